"""A policy file from curves: the score threshold of each class that the ground truth asks for."""

from __future__ import annotations

from typing import Any

import numpy as np
import yaml

from jobs.runtime.errors import UsageError
from yolact.coco.curves import Curve
from yolact.coco.quality import Quality

#: a class with fewer objects in the ground truth gets the threshold of all classes: its own would be chance
LEAST_OBJECTS = 10


def policy_of(quality: Quality, wanted_precision: float | None) -> dict[str, Any]:
    """The policy as YAML values: one threshold for all classes, and one for each class with enough objects.

    Args:
        quality: of the labels.
        wanted_precision: 0–1; thresholds are then the lowest ones with this precision. A class that never has it is
            dropped. Where all classes together never have it, only the classes that have it are kept. None: thresholds
            are those of the best F1.

    Raises:
        UsageError: if no threshold does what is asked.
    """
    # a class without detections may be one that the model does not have: a policy that names it would be refused
    enough = {
        name: one.half for name, one in quality.classes.items() if one.objects >= LEAST_OBJECTS and one.detections
    }
    chosen = {name: threshold_of(curve, wanted_precision) for name, curve in enough.items()}
    classes = {name: {"score_threshold": score} for name, score in chosen.items() if score is not None}
    whole = threshold_of(quality.whole.half, wanted_precision)
    if whole is not None:
        policy: dict[str, Any] = {"score_threshold": whole}
        if wanted_precision is not None and len(classes) < len(enough):
            policy["drop"] = [name for name in enough if name not in classes]
        return {**policy, "classes": classes} if classes else policy
    if wanted_precision is None:
        raise UsageError(
            "--write-policy: no detection has an object at IoU 0.50, so no threshold is better than another"
        )
    if not classes:
        best = max(quality.whole.half.precision, default=0.0)
        raise UsageError(
            f"--wanted-precision {wanted_precision:g}: no score threshold gives it; "
            f"the highest precision of all classes together is {best:.3f}"
        )
    return {"keep": list(classes), "classes": classes}


def policy_yaml(policy: dict[str, Any], ground_truth: str, wanted_precision: float | None) -> str:
    """The file's text, with a first line that says where the thresholds come from."""
    rule = "best F1" if wanted_precision is None else f"the most objects at precision {wanted_precision:g} or more"
    origin = " ".join(ground_truth.split())
    body: str = yaml.safe_dump(policy, sort_keys=False, allow_unicode=True)
    return f"# score thresholds of yolact evaluate: {rule}, masks at IoU 0.50, against {origin}\n{body}"


def policy_lines(policy: dict[str, Any], uri: str) -> list[str]:
    """What the policy does, in words."""
    own = f"{len(policy.get('classes', {}))} classes have a score threshold of their own"
    whole = policy.get("score_threshold")
    others = "" if whole is None else f", the others {whole:g}"
    lines = ["", f"wrote {uri}: {own}{others}"]
    if dropped := policy.get("drop"):
        lines.append(f"{len(dropped)} classes never have the wanted precision and are dropped: {', '.join(dropped)}")
    if kept := policy.get("keep"):
        lines.append(f"all classes together never have the wanted precision, so only these are kept: {', '.join(kept)}")
    return lines


def threshold_of(curve: Curve, wanted_precision: float | None) -> float | None:
    """The score threshold in few digits; None where no score does what is asked.

    It lies below the score that it stands for, because a policy leaves out scores that are no more than it.
    """
    point = curve.best_f1() if wanted_precision is None else curve.with_precision(wanted_precision)
    if point is None:
        return None
    rounded, score = curve.rounded(point.score), np.float32(point.score)
    # label tables hold float32, and a policy compares in it
    return rounded if np.float32(rounded) < score else float(np.nextafter(score, np.float32(0)))
