"""Draw plates and write them with their ground truth: as single images or as tar shards."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import fsspec
import numpy as np
from PIL import Image
from pycocotools import mask as rle_tools

from jobs.plates.drawing import Plate, draw_plate
from jobs.plates.options import PlatesConfig, check_options


def write_plates(config: PlatesConfig) -> str:
    """Draw and write the plates; returns a line that says what was written. Raises UsageError for a bad option."""
    check_options(config)
    filesystem, root = fsspec.core.url_to_fs(config.output)
    truth: dict[str, Any] = {
        "info": {"description": f"synthetic plates, seed {config.seed}"},
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "nucleus"}],
    }
    size = config.plates_per_shard if config.layout == "tar" else 1
    for start in range(0, config.num_plates, size):
        members = list(_draw(config, range(start, min(start + size, config.num_plates)), truth))
        if config.layout == "tar":
            _put(filesystem, f"{root}/shards/plates-{start // size:06d}.tar", _tar_bytes(members))
        else:
            _put(filesystem, f"{root}/images/{members[0][0]}", members[0][1])
    _put(filesystem, f"{root}/ground_truth.json", json.dumps(truth, separators=(",", ":")).encode())
    return f"{config.num_plates} plates with {len(truth['annotations'])} nuclei in {config.output}"


def _draw(config: PlatesConfig, indices: range, truth: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """PNG files of some plates by name; their ground truth goes to `truth`."""
    for index in indices:
        plate = draw_plate(config.seed, index, config.height, config.width, config.density, config.mean_diameter)
        name = f"plate-{index:06d}.png"
        truth["images"].append({"id": index + 1, "file_name": name, "height": config.height, "width": config.width})
        truth["annotations"].extend(plate_annotations(plate, index + 1, first_id=len(truth["annotations"]) + 1))
        yield name, _png_bytes(plate)


def plate_annotations(plate: Plate, image_id: int, first_id: int = 1) -> list[dict[str, Any]]:
    """COCO annotations (compressed RLE) of a plate's nuclei."""
    annotations = []
    for number in range(1, plate.num_instances + 1):
        rle = rle_tools.encode(np.asfortranarray(plate.instances == number, dtype=np.uint8))
        annotations.append(
            {
                "id": first_id + number - 1,
                "image_id": image_id,
                "category_id": 1,
                "iscrowd": 0,
                "area": int(rle_tools.area(rle)),
                "bbox": [float(value) for value in rle_tools.toBbox(rle)],
                "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")},
            }
        )
    return annotations


def _png_bytes(plate: Plate) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(plate.pixels[:, :, 0]).save(stream, format="PNG", compress_level=3)
    return stream.getvalue()


def _tar_bytes(members: list[tuple[str, bytes]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)  # no time, no owner: the same plates give the same bytes
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def _put(filesystem: Any, path: str, data: bytes) -> None:
    filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    filesystem.pipe_file(path, data)
