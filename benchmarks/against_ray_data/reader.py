"""A reader of the label table: what it sees while the table grows, and what is in it at the end."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq
import s3fs

from benchmarks.against_ray_data.programs import Program

_POLL_SECONDS = 0.5


@dataclass
class TornReads:
    """What no reader should see: files that it cannot read, files that go away, ids that stand twice at one moment."""

    unreadable: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    doubled: set[str] = field(default_factory=set)
    looks: int = 0

    @property
    def files(self) -> int:
        """Files that were torn in one of the first two ways."""
        return len(self.unreadable | self.gone)


class TableReader:
    """Looks at a program's table all the while in its `with` block, in a thread of its own.

    `uri` is the program's OUTPUT. `torn` holds what was wrong.
    """

    def __init__(self, filesystem: s3fs.S3FileSystem, uri: str, program: Program) -> None:
        self._filesystem, self._program = filesystem, program
        self._folder = f"{uri}/{program.rows}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        #: ids by file: a file that was read once is not read again
        self._ids: dict[str, list[str]] = {}
        self.torn = TornReads()

    def __enter__(self) -> TableReader:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            self.look()

    def look(self) -> None:
        """List the table and read its new files."""
        files = set(_files(self._filesystem, self._folder))
        self.torn.gone |= self._ids.keys() - files
        for path in files - self._ids.keys() - self.torn.unreadable:
            try:
                table = _read(self._filesystem, path)
            except FileNotFoundError:
                self.torn.gone.add(path)
            except (pa.ArrowException, OSError):
                self.torn.unreadable.add(path)
            else:
                self._ids[path] = _names(table, self._program)
        shown = Counter(name for path in files for name in self._ids.get(path, ()))
        self.torn.doubled |= {name for name, count in shown.items() if count > 1}
        self.torn.looks += 1


@dataclass(frozen=True)
class Verdict:
    """The table at the end, against the lake's images."""

    rows: int
    lost: int
    """images without a row"""
    doubled: int
    """rows too many"""
    failed: int
    """rows that hold an error"""


def judge(filesystem: s3fs.S3FileSystem, uri: str, program: Program, lake: Iterable[str]) -> Verdict:
    """Compare the table in OUTPUT `uri` with the names of the lake's images."""
    tables = [_read(filesystem, path) for path in _files(filesystem, f"{uri}/{program.rows}")]
    names = Counter(name for table in tables for name in _names(table, program))
    return Verdict(
        rows=names.total(),
        lost=len(set(lake) - names.keys()),
        doubled=names.total() - len(names),
        failed=sum(table.num_rows - table[program.error_column].null_count for table in tables),
    )


def _files(filesystem: s3fs.S3FileSystem, folder: str) -> list[str]:
    # pyarrow writes empty objects as folders, which are no part of the table
    return [path for path in filesystem.find(folder) if path.endswith(".parquet")]


def _read(filesystem: s3fs.S3FileSystem, path: str) -> pa.Table:
    return pq.read_table(io.BytesIO(filesystem.cat_file(path)))


def _names(table: pa.Table, program: Program) -> list[str]:
    """File names of the images: one program gives ids with a scheme, the other without."""
    return [value.rpartition("/")[2] for value in table[program.id_column].to_pylist()]
