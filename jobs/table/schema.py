"""The columns of a label table. Every writer and reader of label tables takes their definition from here."""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 1

STATUS_OK = "ok"

#: `bbox` is x, y, width, height in pixels (COCO); `mask` is COCO compressed RLE counts, of the row's (height, width)
INSTANCE = pa.struct(
    [
        ("label", pa.int32()),
        ("category", pa.string()),
        ("score", pa.float32()),
        ("mask_score", pa.float32()),
        ("bbox", pa.list_(pa.float32(), 4)),
        ("area", pa.int32()),
        ("mask", pa.binary()),
    ]
)

LABELS = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("instances", pa.list_(INSTANCE)),
    ]
)

#: the key of a file's Parquet metadata that holds SCHEMA_VERSION
VERSION_KEY = b"yolact.schema_version"


def misfit(found: pa.Schema) -> str | None:
    """Why a file with this schema cannot be read as a label table, in words that go on after "it"; None where it can.

    All columns and fields of `LABELS` must be there with their types, in any order. More columns and fields are no
    fault: a later minor version may add them.
    """
    missing = [name for name in LABELS.names if name not in found.names]
    if missing:
        return f"lacks {', '.join(missing)}"
    for field in LABELS:
        there = found.field(field.name).type
        if field.name != "instances":
            if there != field.type:
                return f"has {field.name} of type {there}, not {field.type}"
        elif not pa.types.is_list(there) or not pa.types.is_struct(there.value_type):
            return f"has instances of type {there}, not a list of structs"
        else:
            what = _instance_misfit(there.value_type)
            if what is not None:
                return what
    return None


def _instance_misfit(found: pa.StructType) -> str | None:
    types = {field.name: field.type for field in found}
    missing = [f"instances.{field.name}" for field in INSTANCE if field.name not in types]
    if missing:
        return f"lacks {', '.join(missing)}"
    for field in INSTANCE:
        if types[field.name] != field.type:
            return f"has instances.{field.name} of type {types[field.name]}, not {field.type}"
    return None
