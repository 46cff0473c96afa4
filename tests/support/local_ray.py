"""A real Ray for tests that run the jobs in their own process."""

from __future__ import annotations

import logging
import warnings


def start_local_ray() -> None:
    """Start Ray on this machine with 2 CPUs; `ray.shutdown()` ends it."""
    import ray

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
        )
