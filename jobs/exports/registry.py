"""Format names of the command line."""

from __future__ import annotations

from jobs.exports.coco import Coco, CocoResults, FiftyOne
from jobs.exports.formats import Format
from jobs.exports.geojson import GeoJson
from jobs.exports.label_studio import LabelStudio
from jobs.exports.png import Png
from jobs.exports.webdataset import WebDataset
from jobs.exports.yolo import Yolo

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
