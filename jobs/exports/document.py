"""Putting one JSON document together from chunks, without ever holding it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from shutil import copyfileobj
from typing import IO

from jobs import storage
from jobs.exports.formats import DocumentFormat
from jobs.exports.writing import Chunk


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
