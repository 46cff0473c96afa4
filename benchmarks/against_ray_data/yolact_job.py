"""Labels a prefix with `yolact label`, with stand-in GPUs in place of the model.

    python -m benchmarks.against_ray_data.yolact_job s3://lake/images s3://labels/run --weights stand-in.safetensors

The command line has no option for another model, so this calls what the command calls.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks.against_ray_data.stand_in_gpu import StandInGpu
from benchmarks.local_ray import start_ray
from benchmarks.scale.stand_in import StandInPredictor
from jobs.label.command import label_lake
from jobs.label.options import LabelConfig
from jobs.runtime.errors import exit_code_of
from yolact.images.prepare import PreparedImage
from yolact.inference.detections import Detections

IMAGES_PER_UNIT = 64
#: far fewer than by default, so that a small lake has several published files
IMAGES_PER_PART = 512


class GpuPredictor(StandInPredictor):
    """A stand-in that keeps its GPU busy for every image."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._gpu = StandInGpu()

    def predict_prepared(self, images: Sequence[PreparedImage]) -> list[Detections]:
        """The same four ellipses in each image."""
        for start in range(0, len(images), self.batch_size):
            self._gpu.run(len(images[start : start + self.batch_size]))
        return super().predict_prepared(images)


def main() -> int:
    """Label LAKE; returns the job's exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("lake")
    parser.add_argument("output")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--cpus", type=int, default=4)
    parser.add_argument("--gpus", type=int, default=4)
    options = parser.parse_args()
    start_ray(cpus=options.cpus, gpus=options.gpus)
    config = LabelConfig(
        (options.lake,),
        options.output,
        weights=options.weights,
        # the other precisions would prepare an engine, for a model that never runs
        precision="float32",
        engine="eager",
        max_error_rate=1.0,
        images_per_unit=IMAGES_PER_UNIT,
        images_per_part=IMAGES_PER_PART,
        address="local",
    )
    end = label_lake(config, make_predictor=GpuPredictor)
    end.show()
    return end.exit_code


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
