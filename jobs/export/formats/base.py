"""What an export format is: how one picture is written, and what stands around all of them.

A format is a small frozen object that travels to the workers. It says nothing of storage, order or parallel work:
`jobs.exports.writing` takes care of those.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from jobs.export.survey import TableFacts
from jobs.table.read import LabelRow


@dataclass(frozen=True)
class ExportOptions:
    """What a user may choose about a format. `tolerance` is in pixels and for polygons only."""

    segmentation: str = "rle"
    tolerance: float = 0.0
    copy_pictures: bool = False


@dataclass(frozen=True)
class Picture:
    """One picture to export: its row with the instances taken, its numbers in the export, and its bytes if copied.

    `number` counts pictures from 1, `first_instance` is the number of its first instance from 1. `extension` is that of
    the copied file, with its dot.
    """

    row: LabelRow
    number: int
    first_instance: int
    data: bytes | None = None
    extension: str = ""


@dataclass(frozen=True)
class Format(ABC):
    """A format bound to what is known of the table; `model` names what made the labels."""

    facts: TableFacts
    options: ExportOptions
    model: str = "yolact"

    #: whether pictures are copied if the user does not say, and whether they can be copied at all
    copies_by_default: ClassVar[bool] = False
    takes_pictures: ClassVar[bool] = True

    def files(self, picture: Picture) -> Iterator[tuple[str, bytes]]:
        """Files of their own that one picture gives: (path below the output, content)."""
        yield from ()

    def common_files(self) -> Iterator[tuple[str, bytes]]:
        """Files written once, at the end."""
        yield from ()

    def picture_path(self, picture: Picture) -> str:
        """Where a copied picture stands below the output."""
        return f"images/{self.facts.names.stem(picture.row.image_id)}{picture.extension}"


class DocumentFormat(Format):
    """A format that is one JSON document, of lists to which every picture adds, or a list itself (section "")."""

    default_name: ClassVar[str]
    sections: ClassVar[tuple[str, ...]] = ("",)

    @abstractmethod
    def items(self, picture: Picture) -> dict[str, list[Any]]:
        """What a picture adds to each section."""

    def head(self) -> dict[str, Any]:
        """The rest of the document, beside the sections."""
        return {}


class ArchiveFormat(Format):
    """A format of tar files, each with the members of several pictures."""

    @abstractmethod
    def members(self, picture: Picture) -> Iterator[tuple[str, bytes]]:
        """(member name, content) of one picture, in order."""


def compact_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
