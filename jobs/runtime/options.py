"""Options that several commands share: their types, help and checks. This file imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import tyro

from jobs.runtime.errors import UsageError
from jobs.runtime.logs import LogFormat

ModelName = Annotated[
    str | None,
    tyro.conf.arg(help="Name of the model, such as yolact_base; may be left out where the checkpoint carries its own."),
]
Weights = Annotated[
    str | None,
    tyro.conf.arg(
        help="Official .pth or own checkpoint, any fsspec URI; may be left out where the config names a published file."
    ),
]
ScoreThreshold = Annotated[float, tyro.conf.arg(help="Instances that score no more than this are left out (0 to 1).")]
PolicyUri = Annotated[
    str | None,
    tyro.conf.arg(
        help="Policy file (YAML): which classes are wanted, under which names, from which score and area on; "
        "docs/policy.md describes it."
    ),
]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16", "float16", "int8"],
    tyro.conf.arg(
        help="Arithmetic of the network. auto: bfloat16 where the hardware has it, else float32 on CPUs and float16 on "
        "GPUs. int8 (CPUs, by OpenVINO) is first calibrated on a sample of the lake."
    ),
]
Engine = Annotated[
    Literal["auto", "eager", "compiled", "openvino"],
    tyro.conf.arg(
        help="What runs the network. auto: eager, the exact path, for float32; else the fastest one that is installed."
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    tyro.conf.arg(
        help="Where the model runs. auto: on GPUs where the cluster has any, or its autoscaler may bring any."
    ),
]
BatchSize = Annotated[
    int | None,
    tyro.conf.arg(
        help="Images in one batch of the model; if not given, 1 on CPUs, 64 on GPUs with 16 GiB and more, else 16."
    ),
]
NumActors = Annotated[
    str | None,
    tyro.conf.arg(
        help="Copies of the model: a number, or MIN:MAX to grow with the cluster; fitted to the cluster if not given."
    ),
]
RowsPerTask = Annotated[int, tyro.conf.arg(help="About how many rows of the table one Ray task reads.")]
LogFormatOption = Annotated[
    LogFormat,
    tyro.conf.arg(help="The log on stderr: text for people, or json lines with the run's id for a log collector."),
]
Address = Annotated[
    str,
    tyro.conf.arg(
        help="Ray cluster. auto: RAY_ADDRESS, else the one that ray start started on this machine, else a private Ray. "
        "local: a private Ray. Or an address, such as ray://head:10001."
    ),
]


def parse_count_range(flag: str, text: str) -> tuple[int, int]:
    """(min, max) of `N` or `MIN:MAX`, both at least 1. Raises `UsageError`, which names the `flag`."""
    pieces = text.split(":")
    if len(pieces) > 2 or not all(piece.isdigit() and int(piece) > 0 for piece in pieces):
        raise UsageError(f"{flag} {text}: give a number such as 2, or a range such as 2:8")
    low, high = int(pieces[0]), int(pieces[-1])
    if high < low:
        raise UsageError(f"{flag} {text}: the range must go from low to high")
    return low, high


def check_at_least(config: Any, lowest: int, *names: str) -> None:
    """Raise `UsageError` where one of these options of `config` is below `lowest`. None (not given) passes."""
    for name in names:
        value = getattr(config, name)
        # `not >=`, so that NaN is refused too
        if value is not None and not value >= lowest:
            raise UsageError(f"{flag_of(name)} {value}: must be at least {lowest}")


def check_shares(config: Any, *names: str) -> None:
    """Raise `UsageError` where one of these options of `config` is not a number from 0 to 1."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise UsageError(f"{flag_of(name)} {getattr(config, name)}: must lie between 0 and 1")


def flag_of(name: str) -> str:
    """The flag of a config's field: "--num-actors" for "num_actors"."""
    return "--" + name.replace("_", "-")
