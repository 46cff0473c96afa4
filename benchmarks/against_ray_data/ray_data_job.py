"""Labels a prefix of JPEG files with Ray Data alone: read, decode, model, Parquet, with Ray's own checkpoints.

    python -m benchmarks.against_ray_data.ray_data_job s3://lake/images s3://labels/run --blocks 100 --gpus 4

This is what the label job would be as one plain program, with the settings that help it most. Only the model is a
stand-in. Run it again after an interruption: Ray Data leaves out the rows that its checkpoint holds.
"""

from __future__ import annotations

import argparse

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.data.checkpoint import CheckpointConfig

from benchmarks.against_ray_data.stand_in_gpu import StandInGpu
from benchmarks.local_ray import start_ray
from benchmarks.scale.stand_in import fixed_detections
from yolact.images.decode import ImageError, decode_image
from yolact.images.prepare import prepare_image

INPUT_SIZE = 96
BATCH = 16
INSTANCE = pa.struct([("label", pa.int32()), ("score", pa.float32()), ("area", pa.int32()), ("mask", pa.binary())])
IMAGE = [("path", pa.string()), ("error", pa.string()), ("height", pa.int32()), ("width", pa.int32())]
DECODED = pa.schema([*IMAGE, ("pixels", pa.binary())])
LABELS = pa.schema([*IMAGE, ("instances", pa.list_(INSTANCE))])


def decode(batch: pa.Table) -> pa.Table:
    """Encoded bytes → pixels; an image that cannot be decoded becomes a row with an error."""
    rows = []
    for image in batch.to_pylist():
        try:
            prepared = prepare_image(decode_image(image["bytes"]), INPUT_SIZE)
            size = {"height": prepared.height, "width": prepared.width}
            rows.append({"path": image["path"], "pixels": prepared.pixels.tobytes(), **size})
        except ImageError as error:
            rows.append({"path": image["path"], "error": str(error)})
    return pa.Table.from_pylist(rows, schema=DECODED)


class Model:
    """The model of one actor."""

    def __init__(self) -> None:
        self._gpu = StandInGpu()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Pixels → rows of the label table."""
        rows = batch.to_pylist()
        # a copy: torch takes no read-only arrays
        pixels = [np.frombuffer(row.pop("pixels"), np.uint8).copy() for row in rows if row["error"] is None]
        self._gpu.run(len(pixels))
        for row in rows:
            if row["error"] is None:
                found = fixed_detections(row["height"], row["width"])
                columns = zip(found.labels, found.scores, found.areas, found.masks, strict=True)
                row["instances"] = [
                    {"label": label, "score": score, "area": area, "mask": mask["counts"]}
                    for label, score, area, mask in columns
                ]
        return pa.Table.from_pylist(rows, schema=LABELS)


def main() -> None:
    """Label LAKE; the rows go to OUTPUT/data, the checkpoint to OUTPUT/checkpoint."""
    parser = argparse.ArgumentParser()
    parser.add_argument("lake")
    parser.add_argument("output")
    parser.add_argument("--blocks", type=int, help="blocks of the lake: one is read, labelled and written at once")
    parser.add_argument("--cpus", type=int, default=4)
    parser.add_argument("--gpus", type=int, default=4)
    parser.add_argument("--max-errored-blocks", type=int, default=0, help="-1: a block that fails is left out")
    options = parser.parse_args()
    start_ray(cpus=options.cpus, gpus=options.gpus)
    context = DataContext.get_current()
    context.max_errored_blocks = options.max_errored_blocks
    context.checkpoint_config = CheckpointConfig(
        id_column="path", checkpoint_path=f"{options.output}/checkpoint", delete_checkpoint_on_success=False
    )
    (
        ray.data.read_binary_files(options.lake, include_paths=True, override_num_blocks=options.blocks)
        # without a limit Ray starts a task again for ever when its process dies
        .map_batches(decode, batch_size=None, batch_format="pyarrow", max_retries=2)
        .map_batches(
            Model,
            batch_size=BATCH,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=options.gpus, max_tasks_in_flight_per_actor=4),
            num_cpus=0,
            num_gpus=1,
        )
        .write_parquet(f"{options.output}/data")
    )


if __name__ == "__main__":
    main()
