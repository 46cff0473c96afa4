"""What an export format is: how one picture is written, and what stands around all of them.

A format is a small frozen object that travels to the workers. It says nothing of storage, order or parallel work:
`jobs.export.writing` takes care of those.
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
    """What a user may choose about a format.

    `tolerance` is in pixels and for polygons only. `copy_pictures` is None where the format decides for each image.
    `image_prefix` stands before the paths of images in a format that names images by address; `copied_prefix` before
    those of copied images, where the output is not a local disk.
    """

    segmentation: str = "rle"
    tolerance: float = 0.0
    copy_pictures: bool | None = False
    image_prefix: str | None = None
    copied_prefix: str | None = None


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

    #: whether pictures are copied if the user does not say (None: `copies` decides), and whether they can be at all
    copies_by_default: ClassVar[bool | None] = False
    takes_pictures: ClassVar[bool] = True

    def files(self, picture: Picture) -> Iterator[tuple[str, bytes]]:
        """Files of their own that one picture gives: (path below the output, content)."""
        yield from ()

    def common_files(self) -> Iterator[tuple[str, bytes]]:
        """Files written once, at the end."""
        yield from ()

    def picture_path(self, picture: Picture) -> str:
        """Where a copied picture stands below the output."""
        return f"images/{self.stem(picture)}{picture.extension}"

    def stem(self, picture: Picture) -> str:
        """A relative path for files about this picture, without an extension."""
        return self.facts.names.stem(picture.row.image_id)

    def copies(self, row: LabelRow) -> bool:
        """Whether this row's picture is copied into the output."""
        return bool(self.options.copy_pictures)


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
