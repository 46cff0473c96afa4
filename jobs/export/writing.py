"""The work of an export's workers: each writes one piece of the table in the chosen format.

A worker puts files of images and tar shards into the output itself. Parts of a JSON document it returns in chunks, and
the driver joins them in order.
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
from jobs.export.formats.base import ArchiveFormat, DocumentFormat, ExportImage, Format, compact_json
from jobs.export.names import extension
from jobs.export.survey import Selection
from jobs.table.images import ImageSource, upright
from jobs.table.read import LabelRow, Piece

_ARCHIVE_BYTES = 256 << 20
_WRITERS = 8
#: rows in memory at once: where images are copied, and where they are not
_ROWS_WITH_IMAGES = 32
_ROWS = 256


@dataclass(frozen=True)
class Chunk:
    """What a worker reports of some images: counts, and their items for each section of a document.

    `unreadable` names, as "id: reason", the images that could not be copied. The export leaves them out.
    """

    images: int
    instances: int
    unreadable: tuple[str, ...] = ()
    sections: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class PieceWriter:
    """Everything that a worker needs to write any piece of the table."""

    format: Format
    selection: Selection
    source: ImageSource
    output: str

    def write(self, number: int, piece: Piece) -> Iterator[Chunk]:
        """Write piece `number` of the table. A second call writes the same files again. Memory: one batch of rows."""
        if isinstance(self.format, ArchiveFormat):
            yield from self._write_archives(self.format, number, piece)
            return
        with ThreadPoolExecutor(_WRITERS) as pool:
            for images, unreadable in self._batches(number, piece):
                files = (file for image in images for file in self._files(image))
                list(pool.map(lambda file: storage.put_atomic(f"{self.output}/{file[0]}", file[1]), files))
                sections = document_sections(self.format, images) if isinstance(self.format, DocumentFormat) else {}
                yield _chunk(images, unreadable, sections)

    def _files(self, image: ExportImage) -> Iterator[tuple[str, bytes]]:
        if image.data is not None:
            yield self.format.image_path(image), image.data
        yield from self.format.files(image)

    def _batches(self, number: int, piece: Piece) -> Iterator[tuple[list[ExportImage], tuple[str, ...]]]:
        """Batches of numbered images, each with the ids and reasons of the images that could not be fetched."""
        images_before, instances_before = self.format.facts.starts[number]
        may_copy = self.format.options.copy_images is not False
        for batch in piece.batches(batch_rows=_ROWS_WITH_IMAGES if may_copy else _ROWS):
            images: list[ExportImage] = []
            unreadable: list[str] = []
            rows = list(self.selection.rows(batch))
            copied = [row for row in rows if self.format.copies(row)]
            found = dict(zip((row.image_id for row in copied), self._fetch(piece, copied), strict=True))
            for row in rows:
                data = found.get(row.image_id)
                images_before += 1
                if isinstance(data, str):
                    unreadable.append(data)
                else:
                    kind = extension(row.image_id)
                    images.append(ExportImage(row, images_before, instances_before + 1, data, kind))
                instances_before += len(row.instances)
            yield images, tuple(unreadable)

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
                    for images, unreadable in batches:
                        for image in images:
                            for name, data in format.members(image):
                                _add_member(archive, name, data)
                        yield _chunk(images, unreadable, {})
                        if archive.offset >= _ARCHIVE_BYTES:
                            exhausted = False
                            break
                storage.upload_file(path, f"{self.output}/shard-{number:05d}-{shard:03d}.tar")
                shard += 1


def document_sections(format: DocumentFormat, images: list[ExportImage]) -> dict[str, bytes]:
    """The images' items by section, as JSON separated by commas."""
    sections: dict[str, list[bytes]] = {}
    for image in images:
        for section, items in format.items(image).items():
            sections.setdefault(section, []).extend(compact_json(item) for item in items)
    return {section: b",\n".join(items) for section, items in sections.items() if items}


def _chunk(images: list[ExportImage], unreadable: tuple[str, ...], sections: dict[str, bytes]) -> Chunk:
    return Chunk(len(images), sum(len(image.row.instances) for image in images), unreadable, sections)


def _add_member(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # no times, no owner: the same labels give the same bytes
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def write_document(format: DocumentFormat, chunks: Iterable[Chunk], uri: str) -> Iterator[Chunk]:
    """Yield the chunks and keep their sections on disk; at the end put the whole document to `uri` at once.

    Needs disk space for two copies of the document, in the system's temporary folder.
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
