"""Options of `yolact export`, and the checks of them that need nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from jobs.runtime.options import Address, LogFormatOption, RowsPerTask, check_at_least, check_shares


@dataclass(frozen=True)
class ExportConfig:
    """Options of `yolact export`; `run(ExportConfig(...))` does what the command does."""

    labels: Annotated[str, tyro.conf.Positional]
    """OUTPUT of `yolact label`, a folder of label files, a glob, or one file; any fsspec URI."""
    output: str
    """Folder or prefix to write to; a URI ending in .json for the formats that are one JSON file."""
    format: Literal["coco", "coco-results", "yolo", "label-studio", "png", "geojson", "webdataset", "fiftyone"] = "coco"
    """What to write; docs/export.md describes each."""
    min_score: float = 0.0
    """Leave out instances that score less (0 to 1)."""
    classes: tuple[str, ...] = ()
    """Take only instances of these classes; all if not given."""
    min_area: int = 1
    """Leave out instances with fewer pixels."""
    max_area: int | None = None
    """Leave out instances with more pixels."""
    segmentation: Literal["rle", "polygons"] = "rle"
    """Masks in coco, coco-results, fiftyone and label-studio: run lengths (exact), or polygons."""
    tolerance: float = 0.0
    """Pixels by which a polygon may leave its mask's outline; 0 follows every pixel's edge and is exact."""
    pictures: Literal["auto", "copy", "leave"] = "auto"
    """Copy the images into the output, upright; auto copies for yolo, webdataset and fiftyone, and for label-studio
    what it cannot reach: local files, and members of tar shards and Parquet."""
    image_prefix: str | None = None
    """label-studio: what stands before the path of an image to make the address at which Label Studio finds it."""
    ids_from: str | None = None
    """COCO JSON whose image and category ids to use, matched by file and class name (coco, coco-results, fiftyone)."""
    overwrite: bool = False
    """Write into an output that is not empty; files of the same name are replaced, others stay."""
    rows_per_task: RowsPerTask = 4096
    log_format: LogFormatOption = "text"
    address: Address = "auto"


def check_options(config: ExportConfig) -> None:
    """Raise `UsageError` for values that no export can have."""
    check_shares(config, "min_score")
    check_at_least(config, 0, "tolerance")
    check_at_least(config, 1, "rows_per_task")
