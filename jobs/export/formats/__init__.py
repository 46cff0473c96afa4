"""Format names of the command line."""

from __future__ import annotations

from jobs.export.formats.base import Format
from jobs.export.formats.coco import Coco, CocoResults, FiftyOne
from jobs.export.formats.geojson import GeoJson
from jobs.export.formats.label_studio import LabelStudio
from jobs.export.formats.png import Png
from jobs.export.formats.webdataset import WebDataset
from jobs.export.formats.yolo import Yolo

FORMATS: dict[str, type[Format]] = {
    "coco": Coco,
    "coco-results": CocoResults,
    "yolo": Yolo,
    "label-studio": LabelStudio,
    "png": Png,
    "geojson": GeoJson,
    "webdataset": WebDataset,
    "fiftyone": FiftyOne,
}
