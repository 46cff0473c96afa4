"""Reads a COCO instances file into records, and corrects what tools often write wrong.

Only a file that cannot be read as a whole is refused. An entry that cannot become a record becomes a problem of the
data set. `yolact.coco.checks` checks the records.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from yolact.coco.annotations import AnnotatedImage, AnnotatedImages, Annotation, AnnotationProblem
from yolact.coco.foreign import describe_bytes, describe_json

#: what iscrowd may be in a file; Python reads JSON's true and 1 as equal, and 1.0 too
_CROWD = {None: False, 0: False, 1: True, "0": False, "1": True}


class NotCocoError(ValueError):
    """A file that is not COCO instances JSON as a whole; the message is one short line with its name."""

    def __init__(self, source: str, what: str) -> None:
        super().__init__(f"{source} is not a COCO instances file ({what}); see cocodataset.org/#format-data")


def parse_coco(data: bytes | str | Mapping[str, Any], source: str = "the annotation file") -> AnnotatedImages:
    """Read a COCO instances file.

    Ids need not be contiguous, and 1, 1.0 and "1" are the same id. Images without annotations stay. Annotations are not
    checked here: `find_problems` does.

    Args:
        data: the JSON text, or the parsed object.
        source: its name for error messages.

    Returns:
        Images in the order of their file names. `problems` has the entries that could not become records.

    Raises:
        ValueError: one short line, if it is not COCO instances JSON at all, if category ids, category names or image
            ids repeat or are missing, or if no annotation has a mask in pixels.
    """
    content = _content(data, source)
    annotations = content["annotations"]
    categories, notes = _categories(content["categories"], annotations, source)
    problems: list[AnnotationProblem] = []
    images = _images(content["images"], problems, source)
    grouped: dict[Hashable, list[Annotation]] = {key: [] for key in images}
    for number, entry in enumerate(annotations, start=1):
        found = _annotation(entry, number, grouped)
        if isinstance(found, AnnotationProblem):
            problems.append(found)
        else:
            grouped[found[0]].append(found[1])
    _refuse_masks_of_other_kinds(annotations, source)
    notes += _notes_on_ids(annotations)
    complete = (
        AnnotatedImage(image.image_id, image.file_name, image.height, image.width, tuple(grouped[key]))
        for key, image in images.items()
        if image is not None
    )
    ordered = tuple(sorted(complete, key=lambda image: image.file_name))
    return AnnotatedImages(ordered, categories, tuple(problems), tuple(notes))


def _content(data: bytes | str | Mapping[str, Any], source: str) -> dict[str, Any]:
    """The JSON object with its three lists."""
    content: Any = data
    if isinstance(data, bytes | str):
        try:
            content = json.loads(data)
        except UnicodeDecodeError as error:
            foreign = describe_bytes(data)
            where = f"byte {error.object[error.start]:#04x} at position {error.start} is not UTF-8; save it as UTF-8"
            raise NotCocoError(source, foreign or where) from None
        except RecursionError:
            raise NotCocoError(source, "its JSON is nested too deeply") from None
        except ValueError as error:
            raise NotCocoError(source, describe_bytes(data) or f"no JSON: {str(error)[:100]}") from None
    foreign = describe_json(content)
    if foreign is not None:
        raise NotCocoError(source, foreign)
    if not isinstance(content, Mapping):
        raise NotCocoError(source, f"its JSON is a {type(content).__name__}, not an object")
    for name in ("images", "annotations", "categories"):
        if not isinstance(content.get(name), list):
            raise NotCocoError(source, f"it has no list {name!r}")
    return dict(content)


def _categories(entries: list[Any], annotations: list[Any], source: str) -> tuple[dict[int, str], list[str]]:
    """Category id → name in the order of ids, and notes on categories that were left out."""
    categories: dict[int, str] = {}
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, Mapping):
            raise NotCocoError(source, f"category number {number} is not an object")
        category_id = whole_number(entry.get("id"))
        if category_id is None:
            raise NotCocoError(source, f"category number {number} has id {_cut(entry.get('id'))}, not a whole number")
        name = entry.get("name")
        name = str(name) if isinstance(name, int) and not isinstance(name, bool) else name
        if not isinstance(name, str) or not name.strip() or not _is_text(name):
            raise NotCocoError(source, f"category {category_id} has name {_cut(entry.get('name'))}; give it a name")
        if category_id in categories:
            raise NotCocoError(source, f"category id {category_id} comes twice; give every category an id of its own")
        categories[category_id] = name
    if not categories:
        raise NotCocoError(source, "it lists no categories")
    return _with_single_names(dict(sorted(categories.items())), annotations, source)


def _with_single_names(
    categories: dict[int, str], annotations: list[Any], source: str
) -> tuple[dict[int, str], list[str]]:
    """Leave out unused categories that share their name with another: Roboflow writes one for the whole project."""
    notes: list[str] = []
    repeated = [name for name, count in Counter(categories.values()).items() if count > 1]
    if not repeated:
        return categories, notes
    used = {whole_number(entry.get("category_id")) for entry in annotations if isinstance(entry, Mapping)}
    for name in repeated:
        ids = [category_id for category_id, other in categories.items() if other == name]
        kept = [category_id for category_id in ids if category_id in used] or ids[-1:]
        if len(kept) > 1:
            raise NotCocoError(
                source, f"categories {kept[0]} and {kept[1]} are both named {_cut(name)}; give each a name of its own"
            )
        for category_id in set(ids) - set(kept):
            del categories[category_id]
            notes.append(f"category {category_id} has no objects and the name of category {kept[0]}; it is left out")
    return categories, notes


def _images(
    entries: list[Any], problems: list[AnnotationProblem], source: str
) -> dict[Hashable, AnnotatedImage | None]:
    """Key of the id → image without annotations; None for an image that has a problem, whose annotations go with it."""
    images: dict[Hashable, AnnotatedImage | None] = {}
    for number, entry in enumerate(entries, start=1):
        fields = entry if isinstance(entry, Mapping) else {}
        key = id_key(fields.get("id"))
        if key is None:
            message = f"has id {_cut(fields.get('id'))}; a whole number or a text is needed"
            problems.append(AnnotationProblem("image id", message, f"number {number}"))
            continue
        image_id = fields["id"] if isinstance(fields["id"], str) else int(fields["id"])
        if key in images:
            raise ValueError(f"{source} lists image id {image_id!r} more than once; give every image an id of its own")
        name, height, width = _file_name(fields), whole_number(fields.get("height")), whole_number(fields.get("width"))
        images[key] = None
        if name is None:
            message = f"has file name {_cut(fields.get('file_name'))}"
            problems.append(AnnotationProblem("file name", message, image_id))
        elif height is None or width is None:
            message = f"has height {_cut(fields.get('height'))} and width {_cut(fields.get('width'))}"
            problems.append(AnnotationProblem("size", message, image_id))
        else:
            images[key] = AnnotatedImage(image_id, name, height, width)
    return images


def _file_name(fields: Mapping[str, Any]) -> str | None:
    """`file_name`, or where there is none, as in LVIS, the last part of `coco_url`."""
    name = fields.get("file_name")
    if name is None and isinstance(fields.get("coco_url"), str):
        name = fields["coco_url"].rpartition("/")[2]
    return name if isinstance(name, str) and name and _is_text(name) else None


def _annotation(
    entry: Any, number: int, images: Mapping[Hashable, Any]
) -> tuple[Hashable, Annotation] | AnnotationProblem:
    """Key of the image's id and the record."""
    if not isinstance(entry, Mapping):
        return AnnotationProblem("annotation", "is not an object", None, f"number {number}")
    own_id, image_id = entry.get("id"), entry.get("image_id")
    annotation_id = f"number {number}" if own_id is None else own_id

    def problem(kind: str, message: str) -> AnnotationProblem:
        shown = annotation_id if isinstance(annotation_id, int | str) else f"number {number}"
        return AnnotationProblem(kind, message, image_id if isinstance(image_id, int | str) else None, shown)

    if id_key(annotation_id) is None:
        return problem("annotation id", f"has id {_cut(own_id)}; a whole number or a text is needed")
    key = id_key(image_id)
    if key is None or key not in images:
        return problem("image unknown", f"belongs to image {_cut(image_id)}, which is not listed")
    category_id = whole_number(entry.get("category_id"))
    if category_id is None:
        return problem("category unknown", f"has category id {_cut(entry.get('category_id'))}, which is not listed")
    crowd = entry.get("iscrowd")
    if not isinstance(crowd, Hashable) or crowd not in _CROWD:
        return problem("iscrowd", f"has iscrowd {_cut(crowd)}; 0 or 1 is needed")
    box = entry.get("bbox")
    return key, Annotation(
        annotation_id=annotation_id if isinstance(annotation_id, str) else int(annotation_id),
        category_id=category_id,
        bbox=tuple(box) if isinstance(box, list | tuple) else (),
        segmentation=entry.get("segmentation"),
        is_crowd=_CROWD[crowd],
        area=_area(entry.get("area")),
    )


def _area(value: Any) -> float | None:
    """The area of the JSON; None, for the mask's own pixels, where it is no number of pixels."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value <= 2**53 else None


def _refuse_masks_of_other_kinds(annotations: list[Any], source: str) -> None:
    """One line for a file of which no annotation can be used, instead of one for each annotation."""
    entries = [entry for entry in annotations if isinstance(entry, Mapping)]
    if not entries:
        return
    first = f"such as annotation {_cut(entries[0].get('id'))}"
    masks = (entry.get("segmentation") for entry in entries)
    if not any(any(mask) if isinstance(mask, list) else mask for mask in masks):
        raise NotCocoError(source, f"its {len(entries)} annotations have no segmentation, {first}: masks are needed")
    numbers = [value for entry in entries for value in _flat_numbers(entry.get("bbox"))]
    if numbers and max(numbers) <= 1:
        raise NotCocoError(
            source, f"its boxes lie between 0 and 1, {first}: pixels are needed, not shares of the image"
        )


def _flat_numbers(values: Any) -> Iterable[float]:
    return (value for value in values if isinstance(value, int | float)) if isinstance(values, list) else ()


def _notes_on_ids(annotations: list[Any]) -> list[str]:
    ids = Counter(id_key(entry.get("id")) for entry in annotations if isinstance(entry, Mapping))
    repeated = sum(count > 1 for key, count in ids.items() if key is not None)
    return [f"{repeated} annotation ids come more than once; every annotation counts"] if repeated else []


def whole_number(value: Any) -> int | None:
    """An integer that a file wrote as 5, 5.0 or "5"; None for anything else."""
    if isinstance(value, str):
        number = int(value) if value.isascii() and value.lstrip("-").isdigit() and len(value) < 20 else None
        return number if str(number) == value else None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def id_key(value: Any) -> Hashable | None:
    """What two ids have in common if they are the same: 5, 5.0 and "5" are, "05" is a text of its own.

    None for what is no id: null, 1.5, true, a list, an empty text.
    """
    number = whole_number(value)
    if number is not None:
        return number
    return value if isinstance(value, str) and value else None


def _is_text(value: str) -> bool:
    """Whether a string can be printed and can name a file: no half surrogates, no zero byte."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def _cut(value: Any, limit: int = 60) -> str:
    """A value of the file as JSON would show it, cut where it is long."""
    if value is None:
        return "null"
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
