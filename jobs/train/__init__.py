"""Train or fine-tune a model on COCO annotations or on a label table, on one machine or many.

    yolact train --annotations instances_train.json --images train/ --val-annotations instances_val.json \\
        --val-images val/ --config nuclei --init-weights mobilenet_v2_features.pth --output runs/nuclei

OUTPUT then holds `best.safetensors` (by mask AP) and `last.safetensors` for `--weights`, `metrics.jsonl`,
`tensorboard/` and Ray Train's checkpoints. The same command goes on after any interruption, also with another number
of workers.
Hardware: `nuclei` is meant for 2 CPU cores and an hour, the paper's recipe for days on a GPU. What has been measured of
either stands in docs/training.md.
"""

from __future__ import annotations

from jobs.runtime.errors import UsageError
from jobs.train.options import TrainConfig


def run(config: TrainConfig) -> int:
    """Train until done, or check the data alone; returns the exit code."""
    if config.check:
        from jobs.train.check import check_data

        return check_data(config)
    if not config.output:
        raise UsageError("--output is needed: the folder or URI of the run; only --check goes without")
    from jobs.train.command import run_training

    return run_training(config)
