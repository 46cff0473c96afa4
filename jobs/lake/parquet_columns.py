"""Which columns of a Parquet file hold image bytes, ids or URIs, found by name and type through structs and lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.lake.source import ParquetColumns, Problem
from jobs.runtime.errors import UsageError

#: names of columns of image bytes, best first; if only one column has bytes, its name does not matter
_IMAGE_NAMES = (
    "image", "images", "bytes", "image_bytes", "img", "jpg", "jpeg", "png", "webp", "picture", "content", "data",
)  # fmt: skip
_ID_NAMES = ("image_id", "id", "__key__", "key", "path", "file_name", "filename", "name", "uri", "url")
#: names of columns of image addresses, best first
URI_NAMES = (
    "uri", "url", "image_uri", "image_url", "image", "path", "image_path", "file_path", "filepath", "file",
    "file_name", "filename", "key", "s3_uri", "gcs_uri", "coco_url", "name",
)  # fmt: skip
#: values of a fixed size are checksums or UUIDs more often than images, unless they are longer than this
_LONGEST_DIGEST = 64


class Leaf(NamedTuple):
    """One column of values. `name` is dotted through structs and does not name the lists on the way ("images.bytes").

    `top` is the column of the schema that it stands in, `path` the fields below that. `number` counts the file's
    columns of values; `in_list` says whether a row holds any number of values.
    """

    name: str
    top: str
    path: tuple[str, ...]
    kind: pa.DataType
    number: int
    in_list: bool


@dataclass(frozen=True)
class FoundColumns:
    """The columns to use. `image` is None if the file holds no image bytes."""

    image: Leaf | None
    id: Leaf | None


class UnusableFileError(Exception):
    """The file holds no images that can be read, and no option would change that; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def leaves(schema: pa.Schema) -> list[Leaf]:
    """All columns of values, in the file's order, through structs, lists and maps."""
    found: list[Leaf] = []

    def walk(top: str, path: tuple[str, ...], kind: pa.DataType, in_list: bool) -> None:
        kind = _storage(kind)
        if pa.types.is_struct(kind):
            for inner in kind:
                walk(top, (*path, inner.name), inner.type, in_list)
        elif pa.types.is_map(kind):
            walk(top, (*path, "key"), kind.key_type, True)
            walk(top, (*path, "value"), kind.item_type, True)
        elif _is_list(kind):
            walk(top, path, kind.value_type, True)
        else:
            found.append(Leaf(".".join((top, *path)), top, path, kind, len(found), in_list))

    for field in schema:
        walk(field.name, (), field.type, False)
    return found


def find_columns(schema: pa.Schema, columns: ParquetColumns, uri: str) -> FoundColumns:
    """The columns of images and ids.

    Raises UsageError if an option must say which columns to use, and UnusableFileError if several columns have the
    name of the column of images.
    """
    found = leaves(schema)
    times = Counter(leaf.name for leaf in found)
    single = {leaf.name: leaf for leaf in found if times[leaf.name] == 1}
    image = _image_column(single, columns.image, uri)
    if image is None and (doubled := [leaf.name for leaf in found if times[leaf.name] > 1 and is_bytes(leaf.kind)]):
        reason = f"{times[doubled[0]]} columns of this file have the name {doubled[0]}"
        raise UnusableFileError(Problem("unsupported", reason))
    if columns.id is not None and not _is_id(single.get(columns.id)):
        raise UsageError(f"{uri}: --id-column {columns.id} is no column of strings or integers; {listing(found)}")
    beside = f"{'' if image is None else image.name.rpartition('.')[0]}.path"
    names = [columns.id] if columns.id is not None else [*_ID_NAMES, beside]
    return FoundColumns(image, next((single[name] for name in names if _is_id(single.get(name))), None))


def _image_column(single: dict[str, Leaf], chosen: str | None, uri: str) -> Leaf | None:
    with_bytes = {name: leaf for name, leaf in single.items() if is_bytes(leaf.kind)}
    if chosen is not None:
        for name in (chosen, f"{chosen}.bytes"):
            if name in with_bytes:
                return with_bytes[name]
        if not with_bytes:
            return None
        raise UsageError(f"{uri}: --image-column {chosen} is no column of bytes; {listing(single.values())}")
    likely = {name: leaf for name, leaf in with_bytes.items() if not _is_digest(leaf.kind)}
    if len(likely) == 1:
        return next(iter(likely.values()))
    for name in _IMAGE_NAMES:
        for candidate in (name, f"{name}.bytes"):
            if candidate in with_bytes:
                return with_bytes[candidate]
    if likely:
        what = f"which column holds the images is not clear; {listing(single.values())}"
        raise UsageError(f"{uri}: {what}; name it with --image-column")
    return None


def find_uri_column(schema: pa.Schema, chosen: str | None) -> Leaf | None:
    """The column of image addresses: `chosen`, else the one with a known name, else the only column of strings."""
    texts = {leaf.name: leaf for leaf in leaves(schema) if _is_text(leaf.kind) and not leaf.in_list}
    if chosen is not None:
        return texts.get(chosen)
    named = next((texts[name] for name in URI_NAMES if name in texts), None)
    return named or (next(iter(texts.values())) if len(texts) == 1 else None)


def values_of(column: pa.Array, leaf: Leaf) -> pa.Array:
    """The values of `leaf` in its top column. A list without values gives one null, as in the file itself.

    Outside of lists there is one value a row, null where the row or a struct on the way is null.
    """
    return _values(column, leaf.path)


def _values(column: pa.Array, path: Sequence[str]) -> pa.Array:
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_map(column.type):
        column = column.cast(pa.list_(pa.struct([("key", column.type.key_type), ("value", column.type.item_type)])))
    if _is_list(column.type):
        return _values(_opened(column), path)
    if pa.types.is_struct(column.type):
        return _values(pc.struct_field(column, path[0]), path[1:])
    return column


def _opened(column: pa.Array) -> pa.Array:
    """The values of all lists, one list after the other, with one null for each list that is null or empty."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = column.flatten()
    if (lengths > 0).all():
        return flat
    is_value = np.ones(np.maximum(lengths, 1).sum(), bool)
    starts = np.cumsum(np.maximum(lengths, 1)) - np.maximum(lengths, 1)
    is_value[starts[lengths == 0]] = False
    return flat.take(pa.array(np.cumsum(is_value) - 1, mask=~is_value))


def is_bytes(kind: pa.DataType) -> bool:
    """Whether values of this type are byte strings, in any encoding of Arrow."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _is_digest(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_binary(kind) and kind.byte_width <= _LONGEST_DIGEST)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_id(leaf: Leaf | None) -> bool:
    if leaf is None or leaf.in_list:
        return False
    kind = leaf.kind.value_type if pa.types.is_dictionary(leaf.kind) else leaf.kind
    return _is_text(kind) or bool(pa.types.is_integer(kind))


def listing(columns: Iterable[Leaf]) -> str:
    """All columns with their types, for messages."""
    return "it has " + ", ".join(f"{leaf.name} ({leaf.kind})" for leaf in columns)


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _is_list(kind: Any) -> bool:
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )
