"""Recognises annotation files that are not COCO instances JSON, and says how to convert them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BYTES: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive: unpack it"),
    (b"\x1f\x8b", "compressed by gzip: unpack it"),
    (b"PAR1", "a Parquet file: give the folder of the label table"),
    (b"<", "an XML document, such as Pascal VOC or CVAT write: export as COCO instead"),
    (b"\xff\xd8\xff", "an image"),
    (b"\x89PNG", "an image"),
)

_VIA = "a VIA project: export its annotations as COCO from VIA"


def describe_bytes(data: bytes | str) -> str | None:
    """A file that is no JSON, from its first bytes; None where they say nothing."""
    head = data[:64].encode(errors="replace") if isinstance(data, str) else data[:64]
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        return "the file is empty"
    head = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return next((name for mark, name in _BYTES if head.startswith(mark)), None)


def describe_json(content: Any) -> str | None:
    """A parsed JSON file of another tool or format, by name; None where it may be COCO instances."""
    if isinstance(content, list):
        return _describe_list(content)
    if not isinstance(content, Mapping):
        return None
    if "shapes" in content and ("imagePath" in content or "imageData" in content or "version" in content):
        return "a labelme file of one image: convert the folder with labelme2coco"
    if "_via_img_metadata" in content or _is_via(content):
        return _VIA
    if content.get("type") == "FeatureCollection":
        return "a GeoJSON file: COCO instances JSON is needed"
    if isinstance(content.get("items"), list) and "annotations" not in content:
        return "a Datumaro file: export as COCO instead"
    return _describe_coco(content)


def _describe_list(content: list[Any]) -> str | None:
    first = content[0] if content and isinstance(content[0], Mapping) else {}
    if "image_id" in first and "score" in first:
        return "a list of COCO results, which are detections: the ground truth is needed"
    if "image_id" in first and "category_id" in first:
        return "a list of annotations only: the object with images, annotations and categories is needed"
    if "data" in first and ("annotations" in first or "completions" in first):
        return "a Label Studio export in its own JSON: export as COCO instead"
    if "image" in first and ("annotations" in first or "annotation" in first):
        return "a CreateML file: export as COCO instead"
    return None


def _is_via(content: Mapping[str, Any]) -> bool:
    """A VIA export has one entry an image, keyed by file name and size."""
    first = next(iter(content.values()), None)
    return isinstance(first, Mapping) and "regions" in first and "filename" in first


def _describe_coco(content: Mapping[str, Any]) -> str | None:
    annotations = content.get("annotations")
    first = annotations[0] if isinstance(annotations, list) and annotations else None
    if not isinstance(first, Mapping):
        return None
    if "segments_info" in first:
        return "COCO panoptic: convert it with panopticapi's panoptic2detection_coco_format.py"
    if "caption" in first and "segmentation" not in first:
        return "COCO captions: the instances file is needed"
    return None
