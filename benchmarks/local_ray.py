"""A private Ray with as many CPUs and GPUs as a measurement wants, whether this machine has them or not."""

from __future__ import annotations

import logging
import os
import secrets

import ray
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

#: attempts to start: Ray gives its own processes 30 s, which a busy machine may exceed
_STARTS = 4


def start_ray(*, cpus: int, gpus: int) -> None:
    """Start a Ray of this machine alone. Raises what `ray.init` raises at the last attempt."""
    # a token of its own: otherwise Ray writes one into HOME
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # Ray starts its workers at low priority; the measurement waits for them
    os.environ |= {**token, "RAY_worker_niceness": "0"}
    # Ray's library has read these when it was imported
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
    for attempt in range(1, _STARTS + 1):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                num_gpus=gpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
            return
        except Exception as error:
            ray.shutdown()
            if attempt == _STARTS or "timed out during startup" not in str(error):
                raise
