"""A real Ray for tests that run the jobs in their own process."""

from __future__ import annotations

import logging
import warnings

#: attempts to start Ray: it gives its processes 30 s, which a busy machine may exceed
_STARTS = 5


def start_local_ray() -> None:
    """Start Ray on this machine with 2 CPUs; `ray.shutdown()` ends it."""
    import ray

    options = {"include_dashboard": False, "logging_level": logging.ERROR, "log_to_driver": False}
    for attempt in range(1, _STARTS + 1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ray.init(address="local", num_cpus=2, _node_ip_address="127.0.0.1", **options)
            return
        except Exception as error:
            # Ray raises the base class itself
            if attempt == _STARTS or "timed out during startup" not in str(error):
                raise
            ray.shutdown()
