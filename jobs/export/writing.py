"""Writing one piece of a table in a format: what a worker does.

Files of a picture and tar shards are put where they belong. Parts of a JSON document are handed back in chunks, for one
process to put together in order.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copyfileobj
from typing import IO

from jobs import storage
from jobs.export.formats.base import ArchiveFormat, DocumentFormat, Format, Picture, compact_json
from jobs.export.names import extension
from jobs.export.survey import Selection
from jobs.table.pictures import PictureSource, upright
from jobs.table.read import LabelRow, Piece

_ARCHIVE_BYTES = 256 << 20
_WRITERS = 8
#: pictures held at once, and rows held at once where none are copied
_ROWS_WITH_PICTURES = 32
_ROWS = 256


@dataclass(frozen=True)
class Chunk:
    """What a worker reports of some pictures: counts, and what they add to each section of a document.

    `unreadable` are pictures that could not be fetched to be copied, as "id: reason"; they are left out.
    """

    pictures: int
    instances: int
    unreadable: tuple[str, ...] = ()
    sections: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class PieceWriter:
    """Everything that workers need to know, for whichever piece of the table they get."""

    format: Format
    selection: Selection
    source: PictureSource
    output: str

    def write(self, number: int, piece: Piece) -> Iterator[Chunk]:
        """Write piece `number` of the table; doing it twice writes the same files twice. Memory: one batch of rows."""
        if isinstance(self.format, ArchiveFormat):
            yield from self._write_archives(self.format, number, piece)
            return
        with ThreadPoolExecutor(_WRITERS) as pool:
            for pictures, unreadable in self._batches(number, piece):
                files = (file for picture in pictures for file in self._files(picture))
                list(pool.map(lambda file: storage.put_atomic(f"{self.output}/{file[0]}", file[1]), files))
                sections = document_sections(self.format, pictures) if isinstance(self.format, DocumentFormat) else {}
                yield _chunk(pictures, unreadable, sections)

    def _files(self, picture: Picture) -> Iterator[tuple[str, bytes]]:
        if picture.data is not None:
            yield self.format.picture_path(picture), picture.data
        yield from self.format.files(picture)

    def _batches(self, number: int, piece: Piece) -> Iterator[tuple[list[Picture], tuple[str, ...]]]:
        """Numbered pictures, a batch at a time, and those that could not be fetched."""
        pictures_before, instances_before = self.format.facts.starts[number]
        may_copy = self.format.options.copy_pictures is not False
        for batch in piece.batches(batch_rows=_ROWS_WITH_PICTURES if may_copy else _ROWS):
            pictures: list[Picture] = []
            unreadable: list[str] = []
            rows = list(self.selection.rows(batch))
            copied = [row for row in rows if self.format.copies(row)]
            found = dict(zip((row.image_id for row in copied), self._fetch(piece, copied), strict=True))
            for row in rows:
                data = found.get(row.image_id)
                pictures_before += 1
                if isinstance(data, str):
                    unreadable.append(data)
                else:
                    kind = extension(row.image_id)
                    pictures.append(Picture(row, pictures_before, instances_before + 1, data, kind))
                instances_before += len(row.instances)
            yield pictures, tuple(unreadable)

    def _fetch(self, piece: Piece, rows: list[LabelRow]) -> list[bytes | str]:
        if not rows:
            return []
        found = self.source.fetch(piece.file_name, [(row.image_id, row.uri) for row in rows])
        return [
            upright(data) if isinstance(data, bytes) else f"{row.image_id}: {data.reason}"
            for row, data in zip(rows, found, strict=True)
        ]

    def _write_archives(self, format: ArchiveFormat, number: int, piece: Piece) -> Iterator[Chunk]:
        batches = self._batches(number, piece)
        shard = 0
        exhausted = False
        while not exhausted:
            with tempfile.TemporaryDirectory(prefix="yolact-export-") as folder:
                path = Path(folder) / "shard.tar"
                exhausted = True
                with tarfile.open(path, "w") as archive:
                    for pictures, unreadable in batches:
                        for picture in pictures:
                            for name, data in format.members(picture):
                                _add_member(archive, name, data)
                        yield _chunk(pictures, unreadable, {})
                        if archive.offset >= _ARCHIVE_BYTES:
                            exhausted = False
                            break
                storage.upload_file(path, f"{self.output}/shard-{number:05d}-{shard:03d}.tar")
                shard += 1


def document_sections(format: DocumentFormat, pictures: list[Picture]) -> dict[str, bytes]:
    """The pictures' items by section, as JSON separated by commas."""
    sections: dict[str, list[bytes]] = {}
    for picture in pictures:
        for section, items in format.items(picture).items():
            sections.setdefault(section, []).extend(compact_json(item) for item in items)
    return {section: b",\n".join(items) for section, items in sections.items() if items}


def _chunk(pictures: list[Picture], unreadable: tuple[str, ...], sections: dict[str, bytes]) -> Chunk:
    return Chunk(len(pictures), sum(len(picture.row.instances) for picture in pictures), unreadable, sections)


def _add_member(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # no times, no owner: the same labels give the same bytes
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def write_document(format: DocumentFormat, chunks: Iterable[Chunk], uri: str) -> Iterator[Chunk]:
    """Pass the chunks on while their sections go to disk; then put the whole document to `uri` at once.

    Disk: twice the document, in the system's temporary folder.
    """
    with tempfile.TemporaryDirectory(prefix="yolact-export-") as name:
        folder = Path(name)
        parts: dict[str, IO[bytes]] = {
            section: (folder / f"section-{i}").open("w+b") for i, section in enumerate(format.sections)
        }
        try:
            for chunk in chunks:
                for section, data in chunk.sections.items():
                    file = parts[section]
                    file.write(b",\n" + data if file.tell() else data)
                yield chunk
            with (folder / "document").open("wb") as document:
                _join(document, format, parts)
        finally:
            for file in parts.values():
                file.close()
        storage.upload_file(folder / "document", uri)


def _join(document: IO[bytes], format: DocumentFormat, parts: dict[str, IO[bytes]]) -> None:
    if format.sections == ("",):
        _append(document, b"[\n", parts[""], b"\n]\n")
        return
    head = json.dumps(format.head(), ensure_ascii=False, indent=1).encode()
    document.write(head.removesuffix(b"}").rstrip())
    for section, file in parts.items():
        _append(document, b',\n "%s": [\n' % section.encode(), file, b"\n]")
    document.write(b"\n}\n")


def _append(document: IO[bytes], before: bytes, part: IO[bytes], after: bytes) -> None:
    document.write(before)
    part.seek(0)
    copyfileobj(part, document, 1 << 20)
    document.write(after)
