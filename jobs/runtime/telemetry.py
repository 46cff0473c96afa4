"""Switches off the telemetry of the libraries, so that no program sends reports about its use.

OpenVINO and NNCF have no variable for it; `yolact.inference.openvino_engine.import_silently` deals with them.
"""

from __future__ import annotations

import os

#: the variable of Ray's usage report; a user who wants the report sets it to 1
RAY_USAGE = "RAY_USAGE_STATS_ENABLED"
#: each of them decides whether huggingface_hub, which reads hf://, reports about the user's machine
HUB_SWITCHES = ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK")


def switch_off_telemetry() -> None:
    """Set the variables, for this process and its children, where the user has not set them."""
    os.environ.setdefault(RAY_USAGE, "0")
    if not any(name in os.environ for name in HUB_SWITCHES):
        os.environ[HUB_SWITCHES[0]] = "1"
