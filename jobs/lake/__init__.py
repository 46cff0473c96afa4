"""The input of a job, in three steps: INPUT arguments to sources, sources to index rows, index rows to image bytes."""

from jobs.lake.child import ChildDiedError, call_in_child
from jobs.lake.expand import expand_inputs, folders_of
from jobs.lake.fetch import Fetched, fetch_rows
from jobs.lake.index import index_in_child, index_source
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
from jobs.lake.sources import SOURCE_COLUMNS, SourceTable

__all__ = [
    "IMAGE_EXTENSIONS",
    "INDEX",
    "SOURCE_COLUMNS",
    "STATUSES",
    "ChildDiedError",
    "Fetched",
    "ParquetColumns",
    "PassedOver",
    "Problem",
    "Source",
    "SourceTable",
    "call_in_child",
    "expand_inputs",
    "fetch_rows",
    "folders_of",
    "image_rows",
    "index_in_child",
    "index_source",
    "kind_of",
    "object_id",
]
