"""`yolact train --check`: the checks that training makes before it starts, and an overview of the data."""

from __future__ import annotations

from jobs.runtime.errors import EXIT_OK, UsageError
from jobs.table.policy_file import read_policy
from jobs.train.data import InspectedSet, inspect_image_set
from jobs.train.options import TrainConfig
from jobs.train.overview import overview_lines


def check_data(config: TrainConfig) -> int:
    """Print problems on stderr and an overview of what is left on stdout, for the training and the validation set.

    Raises:
        UsageError: if something is broken and `--skip-broken` is off, or if no data can be read.
    """
    policy = None if config.policy is None else read_policy(config.policy)
    threshold = config.score_threshold
    sets = [
        inspect_image_set(config.annotations, config.images, "training set", score_threshold=threshold, policy=policy)
    ]
    if config.val_annotations is not None:
        sets.append(inspect_image_set(config.val_annotations, config.val_images, "validation set", policy=policy))
    for inspected in sets:
        for line in overview_lines(inspected.settle(skip_broken=True), inspected.name):
            print(line)
    check_classes(sets)
    problems = [problem for inspected in sets for problem in inspected.problems]
    if problems and not config.skip_broken:
        raise UsageError(
            f"{len(problems)} annotations or images are broken, such as: {problems[0]}; "
            "correct them, or train with --skip-broken"
        )
    return EXIT_OK


def check_classes(sets: list[InspectedSet]) -> None:
    """Raises `UsageError` where the validation set has other classes than the training set."""
    first, *others = (inspected.data.class_names for inspected in sets)
    for names in others:
        if names != first:
            raise UsageError(
                f"the validation set has classes {', '.join(names)}, the training set {', '.join(first)}; "
                "they must be the same"
            )
