"""COCO files as annotation tools write them, odd in one way each, with what reading must make of them."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as rle_tools

HEIGHT, WIDTH = 60, 80
#: id of the annotation that is odd; the images also hold good ones
ODD_ID = 77


def mask_rle(x: int = 40, y: int = 20, side: int = 12, height: int = HEIGHT, width: int = WIDTH) -> dict[str, Any]:
    """A square as RLE with compressed counts."""
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[y : y + side, x : x + side] = 1
    encoded = rle_tools.encode(mask)
    return {"size": [height, width], "counts": encoded["counts"].decode()}


def square(x: int = 10, y: int = 10, side: int = 12) -> list[float]:
    return [float(v) for v in (x, y, x + side, y, x + side, y + side, x, y + side)]


def good_content() -> dict[str, Any]:
    """Two images; the first has a square as polygon and one as RLE, the second a polygon, whose id is ODD_ID."""
    return {
        "info": {"description": "drawn for tests"},
        "images": [
            {"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH},
            {"id": 2, "file_name": "b.png", "height": HEIGHT, "width": WIDTH},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 8, "name": "traffic light"}],
        "annotations": [
            _annotation(11, 1, 1, [10, 10, 12, 12], [square()]),
            _annotation(12, 1, 8, [40, 20, 12, 12], mask_rle()),
            _annotation(ODD_ID, 2, 1, [10, 10, 12, 12], [square()]),
        ],
    }


def _annotation(number: int, image: int, category: int, box: list[float], segmentation: Any) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "area": 144,
        "iscrowd": 0,
        "segmentation": segmentation,
    }


@dataclass(frozen=True)
class Oddity:
    """One odd file."""

    name: str
    change: Callable[[dict[str, Any]], Any]
    """edits the good content; what it returns, if anything, is the file instead"""
    problem: str = ""
    """regular expression of the problem told with ODD_ID; "" where the file reads as the good one"""
    refused: str = ""
    """regular expression of the one line that refuses the whole file"""

    def content(self) -> Any:
        content = good_content()
        changed = self.change(content)
        return content if changed is None else changed

    def text(self) -> bytes:
        content = self.content()
        return content if isinstance(content, bytes) else json.dumps(content).encode()


def _odd(**values: Any) -> Callable[[dict[str, Any]], None]:
    """Set fields of the odd annotation; `...` removes one."""

    def change(content: dict[str, Any]) -> None:
        for name, value in values.items():
            if value is ...:
                del content["annotations"][2][name]
            else:
                content["annotations"][2][name] = copy.deepcopy(value)

    return change


def _every(part: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    """Set fields of all entries of a list; a function makes the value from the old one, `...` removes the field."""

    def change(content: dict[str, Any]) -> None:
        for entry in content[part]:
            for name, value in values.items():
                if value is ...:
                    entry.pop(name, None)
                else:
                    entry[name] = value(entry.get(name)) if callable(value) else value

    return change


def _all(*changes: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for one in changes:
            one(content)

    return change


def _set(part: str, number: int, name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[part][number].__setitem__(name, value)


def _counts(counts: Any) -> Callable[[dict[str, Any]], None]:
    return _odd(segmentation={"size": [HEIGHT, WIDTH], "counts": counts})


def _append(part: str, entry: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content[part].append(entry)


PIXELS = HEIGHT * WIDTH
#: the runs of `square()`, down the columns
RUNS = [10 * HEIGHT + 10, *[12, HEIGHT - 12] * 11, 12, PIXELS - (21 * HEIGHT + 22)]

MENDED = [
    Oddity("category ids as strings", _all(_every("categories", id=str), _every("annotations", category_id=str))),
    Oddity("image ids as strings", _all(_every("images", id=str), _every("annotations", image_id=str))),
    Oddity("image ids as strings on one side", _every("annotations", image_id=str)),
    Oddity("one image id a string", _all(_set("images", 1, "id", "2"), _set("annotations", 2, "image_id", "2"))),
    Oddity("image id a text", _all(_set("images", 1, "id", "b"), _set("annotations", 2, "image_id", "b"))),
    Oddity("ids as floats", _all(_every("images", id=float), _every("categories", id=float))),
    Oddity("sizes as strings", _every("images", height=str, width=str)),
    Oddity("sizes as floats", _every("images", height=float, width=float)),
    Oddity("iscrowd as the text 0", _odd(iscrowd="0")),
    Oddity("iscrowd false", _odd(iscrowd=False)),
    Oddity("iscrowd null", _odd(iscrowd=None)),
    Oddity("iscrowd absent", _odd(iscrowd=...)),
    Oddity("annotation id absent", _every("annotations", id=...)),
    Oddity("annotation ids null", _every("annotations", id=None)),
    Oddity("annotation ids repeated", _every("annotations", id=5)),
    Oddity("annotation ids 0", _every("annotations", id=0)),
    Oddity("area absent", _every("annotations", area=...)),
    Oddity("area NaN", _every("annotations", area=math.nan)),
    Oddity("area as text", _every("annotations", area=str)),
    Oddity("a part of two points beside the polygon", _odd(segmentation=[[1, 1, 5, 5], square(), []])),
    Oddity("polygon beyond the image's edge", _odd(segmentation=[square(), [-9, -9, -2, -9, -2, -2]])),
    Oddity("counts as list", _counts(RUNS)),
    Oddity("counts as floats", _counts([float(run) for run in RUNS])),
    Oddity(
        "category names as numbers", _every("categories", name=lambda name: {"person": 0, "traffic light": 1}[name])
    ),
    Oddity(
        "Roboflow's category 0 with the name of another",
        lambda content: content["categories"].insert(0, {"id": 0, "name": "person", "supercategory": "none"}),
    ),
    Oddity("byte order mark", lambda content: b"\xef\xbb\xbf" + json.dumps(content).encode()),
    Oddity("UTF-16", lambda content: json.dumps(content).encode("utf-16")),
    Oddity(
        "LVIS: coco_url instead of file_name",
        _all(
            _every("images", coco_url=lambda _: "http://images.cocodataset.org/val2017/a.png", file_name=...),
            _set("images", 1, "coco_url", "http://images.cocodataset.org/val2017/b.png"),
        ),
    ),
]

BROKEN = [
    Oddity("bbox absent", _odd(bbox=...), r"has box \[\]"),
    Oddity("bbox null", _odd(bbox=None), r"has box \[\]"),
    Oddity("bbox of three", _odd(bbox=[1, 2, 3]), "four finite numbers"),
    Oddity("bbox NaN", _odd(bbox=[10, math.nan, 12, 12]), "four finite numbers"),
    Oddity("bbox infinite", _odd(bbox=[10, 10, math.inf, 12]), "four finite numbers"),
    Oddity("bbox with null", _odd(bbox=[10, None, 12, 12]), "four finite numbers"),
    Oddity("bbox with text", _odd(bbox=["10", "10", "12", "12"]), "four finite numbers"),
    Oddity("bbox with a number beyond floats", _odd(bbox=[10, 10, 10**400, 12]), "four finite numbers"),
    Oddity("bbox flat", _odd(bbox=[10, 10, 0, 12]), "0 px wide"),
    Oddity("bbox outside", _odd(bbox=[81, 10, 12, 12]), "outside of its 80×60 image"),
    Oddity("bbox an object", _odd(bbox={"x": 1}), r"has box \[\]"),
    Oddity("segmentation []", _odd(segmentation=[]), "no segmentation"),
    Oddity("segmentation [[]]", _odd(segmentation=[[]]), "no segmentation"),
    Oddity("segmentation null", _odd(segmentation=None), "no segmentation"),
    Oddity("segmentation absent", _odd(segmentation=...), "no segmentation"),
    Oddity("segmentation a text", _odd(segmentation="mask.png"), "no segmentation"),
    Oddity("segmentation flat", _odd(segmentation=square()), "not a list of polygons"),
    Oddity("segmentation of points", _odd(segmentation=[[10, 10], [22, 10], [22, 22]]), "three or more pairs"),
    Oddity("polygon of two points", _odd(segmentation=[[10, 10, 22, 22]]), "three or more pairs"),
    Oddity("polygon of seven numbers", _odd(segmentation=[square()[:7]]), "three or more pairs"),
    Oddity("polygon with null", _odd(segmentation=[[*square()[:7], None]]), "not a finite number"),
    Oddity("polygon with NaN", _odd(segmentation=[[*square()[:7], math.nan]]), "not a finite number"),
    Oddity("polygon with text", _odd(segmentation=[[*square()[:7], "22"]]), "not a finite number"),
    Oddity(
        "polygon nested", _odd(segmentation=[[[10, 10], [22, 10], [22, 22], [10, 22], [1, 1], [2, 2]]]), "not a fin"
    ),
    Oddity("polygon with 2e8", _odd(segmentation=[[10, 10, 2e8, 10, 22, 22]]), r"2e\+08 px away"),
    Oddity("polygon with 1e300", _odd(segmentation=[[10, 10, 1e300, 10, 22, 22]]), "px away"),
    Oddity("polygon of endless outline", _odd(segmentation=[[0, 0, 9e5, 0] * 10]), "outline of"),
    Oddity("polygon outside", _odd(segmentation=[square(200, 200)]), "outside of its 80×60 image only"),
    Oddity("counts null", _counts(None), "counts are None"),
    Oddity("counts absent", _odd(segmentation={"size": [HEIGHT, WIDTH]}), "counts are None"),
    Oddity("counts an object", _counts({"a": 1}), "counts are {"),
    Oddity("counts too short", _counts([600, 144]), "RLE of 744 pixels in an image of 4800"),
    Oddity("counts too long", _counts([600, 144, PIXELS]), "RLE of 5544 pixels"),
    Oddity("counts beyond the image", _counts([600, 10**9]), "longer than its image"),
    Oddity("counts negative", _counts([600, -144, PIXELS - 456]), "below 0"),
    Oddity("counts fractional", _counts([600.5, 144, PIXELS - 744.5]), "not run lengths"),
    Oddity("counts of text", _counts(["600", "144"]), "not run lengths"),
    Oddity("counts []", _counts([]), "RLE of 0 pixels"),
    Oddity("compressed counts too short", _counts(mask_rle(height=59)["counts"]), "RLE of 4720 pixels"),
    Oddity("compressed counts too long", _counts(mask_rle(height=61)["counts"]), "RLE of 4880 pixels"),
    Oddity("compressed counts empty", _counts(""), "not run lengths"),
    Oddity("compressed counts cut in a number", _counts(mask_rle()["counts"] + "o"), "not run lengths"),
    Oddity("compressed counts of garbage", _counts("~~~ no counts é"), "not run lengths"),
    Oddity("compressed counts without end", _counts("o" * 1000), "not run lengths"),
    Oddity("compressed counts negative", _counts("O" * 40), "below 0"),
    Oddity("base64 PNG", _counts("iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB"), "."),
    Oddity("RLE size swapped", _odd(segmentation=mask_rle(height=WIDTH, width=HEIGHT)), "are swapped"),
    Oddity("RLE size absent", _odd(segmentation={"counts": mask_rle()["counts"]}), "RLE of size None"),
    Oddity("iscrowd 2", _odd(iscrowd=2), "has iscrowd 2; 0 or 1 is needed"),
    Oddity("iscrowd a text", _odd(iscrowd="no"), "has iscrowd 'no'"),
    Oddity("iscrowd a list", _odd(iscrowd=[0]), r"has iscrowd \[0\]"),
    Oddity("category unknown", _odd(category_id=3), "category id 3, which is not listed"),
    Oddity("category id 1.5", _odd(category_id=1.5), "category id 1.5, which is not listed"),
    Oddity("category id absent", _odd(category_id=...), "category id null"),
    Oddity("image unknown", _odd(image_id=3), "belongs to image 3, which is not listed"),
    Oddity("image id absent", _odd(image_id=...), "belongs to image null"),
    Oddity("image id a list", _odd(image_id=[2]), r"belongs to image \[2\]"),
]

BROKEN_IMAGES = [
    Oddity(
        "image size absent", lambda c: c["images"][1].pop("height") and None, "image 2 has height null and width 80"
    ),
    Oddity("image size null", _set("images", 1, "width", None), "image 2 has height 60 and width null"),
    Oddity("image size 60.5", _set("images", 1, "height", 60.5), "image 2 has height 60.5"),
    Oddity("image size 0", _set("images", 1, "height", 0), "image 2 is 80×0 px by the annotations"),
    Oddity("image size negative", _set("images", 1, "height", -60), "image 2 is 80×-60 px"),
    Oddity("image size beyond memory", _set("images", 1, "height", 10**12), "image 2 is 80×1000000000000 px"),
    Oddity("file name absent", lambda c: c["images"][1].pop("file_name") and None, "image 2 has file name null"),
    Oddity("file name null", _set("images", 1, "file_name", None), "image 2 has file name null"),
    Oddity("file name a number", _set("images", 1, "file_name", 7), "image 2 has file name 7"),
    Oddity("file name with a zero byte", _set("images", 1, "file_name", "b\0.png"), r"has file name 'b\\x00.png'"),
    Oddity("file name of half a letter", _set("images", 1, "file_name", "\udce9.png"), "image 2 has file name"),
    Oddity("file name twice", _set("images", 1, "file_name", "a.png"), "image 2 has the file name 'a.png', which"),
    Oddity("image id 1.5", _set("images", 1, "id", 1.5), "image 'number 2' has id 1.5"),
    Oddity("image id null", _set("images", 1, "id", None), "image 'number 2' has id null"),
    Oddity("image id a list", _set("images", 1, "id", [2]), r"image 'number 2' has id \[2\]"),
    Oddity("image a text", lambda c: c["images"].__setitem__(1, "b.png"), "image 'number 2' has id null"),
    Oddity(
        "annotation a text", _append("annotations", "b.png"), "annotation 'number 4' of image None is not an object"
    ),
]

REFUSED = [
    Oddity("no JSON", lambda _: b"no json", refused="no JSON: Expecting value"),
    Oddity("empty file", lambda _: b"", refused="the file is empty"),
    Oddity("cut short", lambda c: json.dumps(c).encode()[:300], refused="no JSON: "),
    Oddity("Latin-1", lambda c: json.dumps(c).encode().replace(b"person", b"caf\xe9"), refused="byte 0xe9 at position"),
    Oddity("nested deeply", lambda _: b"[" * 200_000, refused="nested too deeply"),
    Oddity("a number of 5,000 digits", lambda _: b'{"images": ' + b"9" * 5000 + b"}", refused="no JSON: "),
    Oddity("zip", lambda _: b"PK\x03\x04 and so on", refused="a zip archive: unpack it"),
    Oddity("gzip", lambda _: b"\x1f\x8b\x08 and so on", refused="compressed by gzip: unpack it"),
    Oddity("XML", lambda _: b"<?xml version='1.0'?><annotations/>", refused="an XML document"),
    Oddity("a list", lambda _: [], refused="its JSON is a list"),
    Oddity("a number", lambda _: b"5", refused="its JSON is a int"),
    Oddity("an empty object", lambda _: {}, refused="has no list 'images'"),
    Oddity("no annotations", lambda c: c.pop("annotations") and None, refused="has no list 'annotations'"),
    Oddity("annotations null", lambda c: c.update(annotations=None), refused="has no list 'annotations'"),
    Oddity("images an object", lambda c: c.update(images={"1": {}}), refused="has no list 'images'"),
    Oddity("no categories", lambda c: c.update(categories=[]), refused="lists no categories"),
    Oddity("categories of text", lambda c: c.update(categories=["a"]), refused="category number 1 is not an object"),
    Oddity("category id twice", _every("categories", id=1), refused="category id 1 comes twice"),
    Oddity("category id 1.5", _set("categories", 0, "id", 1.5), refused="category number 1 has id 1.5"),
    Oddity("category id absent", _every("categories", id=...), refused="category number 1 has id null"),
    Oddity("category id a text", _every("categories", id="cat"), refused="category number 1 has id 'cat'"),
    Oddity("category name null", _set("categories", 0, "name", None), refused="category 1 has name null"),
    Oddity("category name absent", _every("categories", name=...), refused="category 1 has name null"),
    Oddity("category name empty", _set("categories", 0, "name", " "), refused="category 1 has name ' '"),
    Oddity("category name of half a letter", _set("categories", 0, "name", "\ud800"), refused="category 1 has name"),
    Oddity("category name twice", _every("categories", name="x"), refused="categories 1 and 8 are both named 'x'"),
    Oddity("image id twice", _every("images", id=1), refused="lists image id 1 more than once"),
    Oddity("image ids 1 and '1'", _set("images", 1, "id", "1"), refused="lists image id '1' more than once"),
    Oddity("boxes only", _every("annotations", segmentation=...), refused="3 annotations have no segmentation"),
    Oddity("boxes only, empty lists", _every("annotations", segmentation=[]), refused="such as annotation 11: masks"),
    Oddity("boxes in shares", _every("annotations", bbox=[0.1, 0.2, 0.3, 0.4]), refused="lie between 0 and 1"),
    Oddity(
        "labelme",
        lambda _: {"version": "5.4.1", "shapes": [{"label": "a", "points": [[1, 2], [3, 4]]}], "imagePath": "a.png"},
        refused="a labelme file of one image",
    ),
    Oddity(
        "VIA project",
        lambda _: {"_via_settings": {}, "_via_img_metadata": {"a.png123": {"filename": "a.png", "regions": []}}},
        refused="a VIA project",
    ),
    Oddity(
        "VIA annotations",
        lambda _: {"a.png123": {"filename": "a.png", "size": 9, "regions": []}},
        refused="a VIA project",
    ),
    Oddity("panoptic", _every("annotations", segments_info=[], id=...), refused="COCO panoptic"),
    Oddity("captions", _every("annotations", caption="a cat", segmentation=...), refused="COCO captions"),
    Oddity("results", lambda _: [{"image_id": 1, "category_id": 1, "score": 0.5}], refused="a list of COCO results"),
    Oddity("annotations only", lambda c: c["annotations"], refused="a list of annotations only"),
    Oddity("Label Studio", lambda _: [{"id": 1, "data": {"image": "a"}, "annotations": []}], refused="a Label Studio"),
    Oddity("CreateML", lambda _: [{"image": "a.png", "annotations": []}], refused="a CreateML file"),
    Oddity("Datumaro", lambda _: {"info": {}, "categories": {}, "items": []}, refused="a Datumaro file"),
    Oddity("GeoJSON", lambda _: {"type": "FeatureCollection", "features": []}, refused="a GeoJSON file"),
]
