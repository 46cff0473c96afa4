"""Nothing is sent anywhere: the switches of libraries that report their use to their makers.

OpenVINO and NNCF have no such variable; `yolact.inference.openvino_engine.import_silently` deals with them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

#: Ray's usage report; with RAY_USAGE_STATS_ENABLED=1 the user asks for it
RAY_USAGE = "RAY_USAGE_STATS_ENABLED"
#: any of them says what huggingface_hub may tell of the user's machine, where hf:// is read
HUB_SWITCHES = ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK")


def switch_off_telemetry() -> None:
    """Set the variables, for this process and its children, where the user has not set them."""
    os.environ.setdefault(RAY_USAGE, "0")
    if not any(name in os.environ for name in HUB_SWITCHES):
        os.environ[HUB_SWITCHES[0]] = "1"


@contextmanager
def without_usage_process() -> Iterator[None]:
    """Start a Ray in this block without the process that Ray has for its usage report.

    Ray starts the process beside every cluster without a dashboard, also where the report is switched off; it then
    asks the metadata servers of three clouds where it runs. Nothing else is in it.
    """
    from ray._private import services

    start = services.start_api_server
    # an address and a process: Ray takes None for a process that it did not start
    services.start_api_server = lambda *_, **__: ("", None)
    try:
        yield
    finally:
        services.start_api_server = start
