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
