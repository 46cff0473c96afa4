"""The input side of a job: from what the user typed to sources, from sources to index rows, from rows to bytes."""

from jobs.lake.expand import expand_inputs, folders_of
from jobs.lake.fetch import Fetched, fetch_rows
from jobs.lake.index import index_source
from jobs.lake.passed_over import PassedOver
from jobs.lake.source import (
    IMAGE_EXTENSIONS,
    INDEX,
    STATUSES,
    ParquetColumns,
    Problem,
    Source,
    image_rows,
    kind_of,
    object_id,
)

__all__ = [
    "IMAGE_EXTENSIONS",
    "INDEX",
    "STATUSES",
    "Fetched",
    "ParquetColumns",
    "PassedOver",
    "Problem",
    "Source",
    "expand_inputs",
    "fetch_rows",
    "folders_of",
    "image_rows",
    "index_source",
    "kind_of",
    "object_id",
]
