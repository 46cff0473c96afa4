"""Label tables for tests of what reads them: drawn shapes with holes and parts, in the real schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pycocotools import mask as coco_mask

from jobs.export import run
from jobs.export.options import ExportConfig
from jobs.runtime.errors import EXIT_OK
from jobs.table.schema import LABELS

CLASS_NAMES = ("person", "traffic light", 'it\'s "odd" <b>')


def instance(mask: np.ndarray, label: int, score: float, mask_score: float | None = None) -> dict[str, Any]:
    """One entry of `instances`; `mask` is (height, width) bool."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "label": label,
        "category": CLASS_NAMES[label],
        "score": score,
        "mask_score": mask_score,
        "bbox": coco_mask.toBbox(rle).tolist(),
        "area": int(mask.sum()),
        "mask": rle["counts"],
    }


def row(image_id: str, size: tuple[int, int] | None, instances: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """One row; `size` is (height, width)."""
    height, width = size or (None, None)
    values = {
        "image_id": image_id,
        "uri": image_id.split("#")[0],
        "status": "ok",
        "error": None,
        "height": height,
        "width": width,
        "instances": sorted(instances, key=lambda i: -i["score"]),
    }
    return {**values, **changes}


def failed_row(image_id: str, status: str = "undecodable") -> dict[str, Any]:
    return row(image_id, None, [], status=status, error="truncated file")


def blob(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A random mask of a few overlapping ellipses with holes cut out, so that it has parts, holes and thin bits."""
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for sign in (True, True, False):
        cy, cx = rng.uniform(0, height), rng.uniform(0, width)
        ry, rx = rng.uniform(1, height / 2), rng.uniform(1, width / 2)
        mask[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1] = sign
    mask[int(rng.integers(height)), int(rng.integers(width))] = True
    return mask


def random_rows(
    count: int, seed: int = 0, root: str = "s3://lake/photos/", extension: str = ".jpg"
) -> list[dict[str, Any]]:
    """Rows of 0 to 5 instances each; every seventh image failed, every fifth of the others has no instance."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        image_id = f"{root}{number // 10:03d}/{number:06d}{extension}"
        if number % 7 == 6:
            rows.append(failed_row(image_id))
            continue
        height, width = int(rng.integers(20, 90)), int(rng.integers(20, 90))
        found = 0 if number % 5 == 4 else int(rng.integers(1, 6))
        scores = rng.uniform(0.05, 1, found)
        instances = [instance(blob(rng, height, width), int(rng.integers(3)), float(score)) for score in scores]
        rows.append(row(image_id, (height, width), instances))
    return rows


def write_labels(folder: Path, parts: list[list[dict[str, Any]]], row_group_size: int = 1000) -> str:
    """An OUTPUT as the label job leaves it: parts, run.json and _SUCCESS; returns its path."""
    (folder / "labels").mkdir(parents=True)
    for number, rows in enumerate(parts):
        table = pa.Table.from_pylist(rows, schema=LABELS)
        pq.write_table(table, folder / "labels" / f"part-{number:06d}.parquet", row_group_size=row_group_size)
    run = {"model": "yolact_test", "class_names": list(CLASS_NAMES), "schema_version": 1}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "_SUCCESS").write_text("{}")
    return str(folder)


def export(labels: str, target: Path, **options: Any) -> Path:
    """Export a label table to `target`, in one piece unless `rows_per_task` is given; returns `target`."""
    assert run(ExportConfig(labels, str(target), address="local", **{"rows_per_task": 10**9, **options})) == EXIT_OK
    return target
