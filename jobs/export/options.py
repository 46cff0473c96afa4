"""Options of `yolact export`, their checks, and where an export is written. This file imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from jobs.runtime.errors import UsageError
from jobs.runtime.options import Address, LogFormatOption, PolicyUri, RowsPerTask, check_at_least, check_shares

#: formats that are one JSON file
DOCUMENT_FORMATS = frozenset({"coco", "coco-results", "fiftyone", "label-studio"})
#: formats with the image and category ids of COCO
COCO_FORMATS = frozenset({"coco", "coco-results", "fiftyone"})
#: formats that can hold copies of the images
IMAGE_FORMATS = frozenset({"coco", "fiftyone", "label-studio", "webdataset", "yolo"})


@dataclass(frozen=True)
class ExportConfig:
    """Options of `yolact export`; `run(ExportConfig(...))` does what the command does."""

    labels: Annotated[str, tyro.conf.Positional]
    """OUTPUT of `yolact label`, a folder of label files, a glob, or one file; any fsspec URI."""
    output: str
    """Folder or prefix to write to; a URI ending in .json for the formats that are one JSON file."""
    format: Literal["coco", "coco-results", "yolo", "label-studio", "png", "geojson", "webdataset", "fiftyone"] = "coco"
    """What to write; docs/export.md describes each."""
    policy: PolicyUri = None
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
    """Copy the images into the output, upright. auto copies them for yolo, webdataset and fiftyone; for label-studio
    it copies only what Label Studio cannot reach: local files, and members of tar shards and Parquet."""
    image_prefix: str | None = None
    """label-studio: the start of the address at which Label Studio finds an image; the image's path is added to it."""
    ids_from: str | None = None
    """COCO JSON whose image and category ids to use, matched by file and class name (coco, coco-results, fiftyone)."""
    overwrite: bool = False
    """Write into an output that is not empty; files of the same name are replaced, others stay."""
    rows_per_task: RowsPerTask = 4096
    log_format: LogFormatOption = "text"
    address: Address = "auto"


@dataclass(frozen=True)
class Destination:
    """Where an export goes: its folder, and the one JSON file (`document`) where the user named a file."""

    folder: str
    document: str | None = None

    @property
    def uri(self) -> str:
        """The address that messages name."""
        return self.document or self.folder


def destination(config: ExportConfig) -> Destination:
    """What `--output` means: a folder, or a JSON file and the folder around it."""
    output = config.output.rstrip("/")
    if not output.endswith(".json"):
        return Destination(output)
    folder, slash, _ = output.rpartition("/")
    return Destination(folder if slash else ".", output)


def check_options(config: ExportConfig) -> None:
    """Raise `UsageError` for values that no export can have, and for options that the format has no use for."""
    check_shares(config, "min_score")
    check_at_least(config, 0, "tolerance")
    check_at_least(config, 1, "rows_per_task")
    target = destination(config)
    if target.document and config.format not in DOCUMENT_FORMATS:
        raise UsageError(f"--output {target.uri}: {config.format} is a folder of files; name a folder")
    if config.pictures == "copy" and config.format not in IMAGE_FORMATS:
        raise UsageError(f"--pictures copy: {config.format} has no place for images; leave it out")
    if config.image_prefix is not None and config.format != "label-studio":
        raise UsageError(f"--image-prefix: {config.format} names no image by an address; leave it out")
    if config.segmentation == "polygons" and config.format == "coco-results":
        raise UsageError("--segmentation polygons: COCO's loadRes reads only run lengths; leave it out")
    if config.ids_from and config.format not in COCO_FORMATS:
        raise UsageError(f"--ids-from: {config.format} has no COCO ids; leave it out")
