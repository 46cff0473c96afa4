"""The objects of a lake (sources), the index rows of their images, and the problems that either can have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import pyarrow as pa

from jobs.lake.passed_over import PassedOver, file_name
from jobs.storage import ObjectChangedError, ObjectMissingError, StorageError, TransientStorageError
from yolact.images.decode import IMAGE_STATUSES
from yolact.images.kinds import image_kind, other_image_kind

Kind = Literal["image", "tar", "parquet"]

IMAGE_EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"),
    *(".avif", ".avifs", ".heic", ".heics", ".heif", ".hif"),
)
#: compressed tars are listed too, so that they become a row that says so
TAR_EXTENSIONS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
PARQUET_EXTENSIONS = (".parquet", ".pq")

#: every status of an image without labels, and what it means; the only other status is "ok"
STATUSES = IMAGE_STATUSES | {
    "missing": "the object was listed and is not there any more",
    "changed": "the object was replaced since it was indexed",
    "unreadable": "the store refuses the object for good",
}

#: lengths in the index with a special meaning. IN_PARQUET: a value of a Parquet file, whose position in the column of
#: images is the row's offset. UNKNOWN_LENGTH: a whole object of unknown size. SPARSE_MEMBER: a sparse member of a tar,
#: whose first header is at the row's offset
IN_PARQUET, UNKNOWN_LENGTH, SPARSE_MEMBER = -1, -2, -3

#: one row per image. A plain image has offset 0 and length = size, or length UNKNOWN_LENGTH and size -1; a tar member
#: has its bytes' place in the shard. `problem` is "status: reason" for what cannot be fetched.
INDEX = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("size", pa.int64()),
        ("etag", pa.string()),
        ("problem", pa.string()),
    ]
)


class Source(NamedTuple):
    """One object of the lake; `size` in bytes, `etag` changes when its content does.

    Images of a list are first looked at when they are fetched: until then their size is -1 and their etag "".
    """

    uri: str
    size: int
    etag: str
    kind: Kind

    def was_replaced(self, size: int, etag: str) -> bool:
        """Whether it is not the object that was indexed with that size and etag; False where either is unknown."""
        return self.size >= 0 and size >= 0 and (self.size, self.etag) != (size, etag)


class Problem(NamedTuple):
    """A permanent reason why an image has no labels: one of `STATUSES`, and one line for the user."""

    status: str
    reason: str

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"

    @classmethod
    def parse(cls, text: str) -> Problem:
        status, _, reason = text.partition(": ")
        return cls(status, reason)


def as_problem(error: StorageError) -> Problem:
    """What a storage error means for the images of its object. Raises `error` again if it is transient."""
    if isinstance(error, TransientStorageError):
        raise error
    if isinstance(error, ObjectMissingError):
        return Problem("missing", f"the object was listed and is not there any more ({error})")
    if isinstance(error, ObjectChangedError):
        return Problem("changed", "the object was replaced since it was listed; have it labelled again")
    return Problem("unreadable", str(error))


@dataclass(frozen=True)
class ParquetColumns:
    """Which columns hold image bytes and ids; None finds them by name and type. "a.b" is field b of struct a."""

    image: str | None = None
    id: str | None = None


class IndexRows:
    """Collects the rows of one source's index; ids are made unique."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._seen: set[str] = set()
        self._ids: list[str] = []
        self._offsets: list[int] = []
        self._lengths: list[int] = []
        self._problems: list[str | None] = []
        self._passed_over: Counter[str] = Counter()
        self._reason: str | None = None

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self._ids)

    def pass_over(self, what: str, reason: str | None = None) -> None:
        """Count something in the source that gives no row; `reason` is one line for a lake that holds nothing else."""
        self._passed_over[what] += 1
        self._reason = reason and f"{self._source.uri}: {reason}"

    def add(self, name: str | None, offset: int, length: int, problem: Problem | None = None) -> None:
        """Add a row. `name` is within the source, None for the whole source. A repeated name gets #2, #3 … added."""
        stem = object_id(self._source.uri) if name is None else f"{object_id(self._source.uri)}#{printable_name(name)}"
        image_id, copy = stem, 1
        while image_id in self._seen:
            copy += 1
            image_id = f"{stem}#{copy}"
        self._seen.add(image_id)
        self._ids.append(image_id)
        self._offsets.append(offset)
        self._lengths.append(length)
        self._problems.append(None if problem is None else str(problem))

    def table(self) -> pa.Table:
        same = len(self._ids)
        return pa.table(
            [
                pa.array(self._ids, pa.string()),
                pa.array([self._source.uri] * same, pa.string()),
                pa.array(self._offsets, pa.int64()),
                pa.array(self._lengths, pa.int64()),
                pa.array([self._source.size] * same, pa.int64()),
                pa.array([self._source.etag] * same, pa.string()),
                pa.array(self._problems, pa.string()),
            ],
            schema=INDEX.with_metadata(PassedOver(self._passed_over, self._reason).to_metadata()),
        )


def object_id(uri: str) -> str:
    """The `image_id` of an object, and the start of the ids of what is in it: its URI.

    If the URI itself looks like an image inside a shard ("lake/x.tar#a.png"), the id starts with "object:". So no two
    images ever have the same id.
    """
    start = uri
    while "#" in start:
        start = start.rpartition("#")[0]
        if kind_of(start) in ("tar", "parquet"):
            return f"object:{uri}"
    return uri


def image_rows(sources: Sequence[Source]) -> pa.Table:
    """Index rows of plain images, one each, in their order."""
    ids = pa.array([object_id(source.uri) for source in sources], pa.string())
    uris = pa.array([source.uri for source in sources], pa.string())
    sizes = pa.array([source.size for source in sources], pa.int64())
    lengths = pa.array([source.size if source.size >= 0 else UNKNOWN_LENGTH for source in sources], pa.int64())
    etags = pa.array([source.etag for source in sources], pa.string())
    zeros = pa.array([0] * len(sources), pa.int64())
    nulls = pa.nulls(len(sources), pa.string())
    return pa.table([ids, uris, zeros, lengths, sizes, etags, nulls], schema=INDEX)


def kind_of(uri: str) -> Kind | None:
    """The kind by the extension, in upper or lower case; None for a file that holds no images."""
    name = file_name(uri).lower()
    if name.endswith(IMAGE_EXTENSIONS):
        return "image"
    if name.endswith(TAR_EXTENSIONS):
        return "tar"
    return "parquet" if name.endswith(PARQUET_EXTENSIONS) else None


def kind_of_bytes(head: bytes) -> Kind | None:
    """The kind by the first 512 bytes of an object; None for a file that holds no images."""
    if image_kind(head) is not None or other_image_kind(head) is not None:
        return "image"
    if head[257:262] == b"ustar":
        return "tar"
    return "parquet" if head[:4] in (b"PAR1", b"PARE") else None


def is_hidden(name: str) -> bool:
    """Whether the last component starts with a dot, as files of editors and of macOS beside the real files do."""
    return name.rpartition("/")[2].startswith(".")


def printable_name(name: str) -> str:
    r"""`name` as valid Unicode: bytes that are no UTF-8 appear as \xNN."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
