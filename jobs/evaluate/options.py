"""Options of `yolact evaluate`, and their checks. This file imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from jobs.runtime.errors import UsageError
from jobs.runtime.options import PolicyUri, check_shares

#: COCO measures recall at this number of detections too
_RECALL_AT = 10
#: options that are 0 to 1 where they are given
_SHARES = ("score_threshold", "wanted_precision")


@dataclass(frozen=True)
class EvaluateConfig:
    """Options of `yolact evaluate`."""

    labels: Annotated[str, tyro.conf.Positional]
    """OUTPUT of `yolact label`, its labels/ folder, or one Parquet file (any fsspec URI)"""
    ground_truth: str
    """COCO instances JSON; images are matched by file name"""
    policy: PolicyUri = None
    max_detections: tuple[int, ...] = (100,)
    """detections per image and class that count, the best ones; several numbers give several tables (COCO: 100)"""
    per_class: bool = False
    """print the AP of every class as well"""
    skip_broken: bool = False
    """leave broken annotations and images of the ground truth out instead of stopping"""
    output: str | None = None
    """file or URI for the same numbers as JSON, with the curves of every class"""
    score_threshold: float | None = None
    """score at which precision, recall and confusions are counted; by default that of the best F1"""
    write_policy: str | None = None
    """file or URI of a policy to write: the score threshold with the best F1 for each class"""
    wanted_precision: float | None = None
    """with --write-policy: the lowest thresholds with this precision (0 to 1), instead of the best F1"""


def check_options(config: EvaluateConfig) -> None:
    """Raise `UsageError` for values that no evaluation can have."""
    if not config.max_detections or min(config.max_detections) <= _RECALL_AT:
        raise UsageError(f"--max-detections {config.max_detections}: numbers above {_RECALL_AT} are needed")
    check_shares(config, *(name for name in _SHARES if getattr(config, name) is not None))
    if config.wanted_precision is not None and config.write_policy is None:
        raise UsageError(f"--wanted-precision {config.wanted_precision:g}: name the policy file with --write-policy")
