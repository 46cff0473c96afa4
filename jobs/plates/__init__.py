"""Draw a lake of synthetic fluorescence-microscopy plates with exact ground truth.

    yolact plates --output demo/plates --num-plates 200 --layout tar

OUTPUT then holds `ground_truth.json` (COCO instances, one category `nucleus`) and either `images/plate-000000.png …` or
`shards/plates-000000.tar …` (WebDataset). The same options give the same bytes. About 25 plates of 512 × 512 px per
second and core.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from jobs.runtime.errors import EXIT_OK, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobs.plates.drawing import Plate


@dataclass(frozen=True)
class PlatesConfig:
    """Options of `yolact plates`."""

    output: str
    """folder or URI to write to (any fsspec scheme)"""
    num_plates: int = 100
    """how many plates"""
    height: int = 512
    """height of a plate in pixels"""
    width: int = 512
    """width of a plate in pixels"""
    density: float = 60.0
    """mean number of nuclei per 512 × 512 px"""
    mean_diameter: float = 26.0
    """mean diameter of a nucleus in pixels"""
    seed: int = 0
    """of the lake: another seed draws other plates"""
    layout: Literal["images", "tar"] = "images"
    """single PNG files, or WebDataset tar shards"""
    plates_per_shard: int = 256
    """plates in one tar shard"""


def run(config: PlatesConfig) -> int:
    """Draw and write the plates; returns the exit code."""
    import json

    import fsspec

    for name in ("num_plates", "height", "width", "plates_per_shard"):
        if getattr(config, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(config, name)} must be at least 1")
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
    print(f"{config.num_plates} plates with {len(truth['annotations'])} nuclei in {config.output}")
    return EXIT_OK


def _draw(config: PlatesConfig, indices: range, truth: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """PNG files of some plates by name; their ground truth goes to `truth`."""
    from jobs.plates.drawing import draw_plate

    for index in indices:
        plate = draw_plate(config.seed, index, config.height, config.width, config.density, config.mean_diameter)
        name = f"plate-{index:06d}.png"
        truth["images"].append({"id": index + 1, "file_name": name, "height": config.height, "width": config.width})
        truth["annotations"].extend(plate_annotations(plate, index + 1, first_id=len(truth["annotations"]) + 1))
        yield name, _png_bytes(plate)


def plate_annotations(plate: Plate, image_id: int, first_id: int = 1) -> list[dict[str, Any]]:
    """COCO annotations (compressed RLE) of a plate's nuclei."""
    import numpy as np
    from pycocotools import mask as rle_tools

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
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(plate.pixels[:, :, 0]).save(stream, format="PNG", compress_level=3)
    return stream.getvalue()


def _tar_bytes(members: list[tuple[str, bytes]]) -> bytes:
    import io
    import tarfile

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
