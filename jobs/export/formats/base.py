"""The base classes of the export formats. A format says how one image is written, and which files all images share.

A format is a small frozen object that is sent to the workers. It knows nothing of storage, order or parallel work:
those are the business of `jobs.export.writing`.
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

    `tolerance` is in pixels and for polygons only. `copy_images` is None where the format decides for each image.
    A format that names images by address puts `image_prefix` before their paths. Before the paths of copied images it
    puts `copied_prefix`, the address of the output; on a local disk that is None.
    """

    segmentation: str = "rle"
    tolerance: float = 0.0
    copy_images: bool | None = False
    image_prefix: str | None = None
    copied_prefix: str | None = None


@dataclass(frozen=True)
class ExportImage:
    """One image to export: its row with the instances taken, its numbers in the export, and its bytes if copied.

    `number` counts images from 1. `first_instance` is the number of its first instance, also counted from 1.
    `extension` is that of the copied file, with its dot.
    """

    row: LabelRow
    number: int
    first_instance: int
    data: bytes | None = None
    extension: str = ""


@dataclass(frozen=True)
class Format(ABC):
    """A format with the facts of one table. `model` is the name of the model that made the labels."""

    facts: TableFacts
    options: ExportOptions
    model: str = "yolact"

    #: whether images are copied if the user does not say; None: `copies` decides for each image
    copies_by_default: ClassVar[bool | None] = False

    def files(self, image: ExportImage) -> Iterator[tuple[str, bytes]]:
        """The files of one image: (path below the output, content)."""
        yield from ()

    def common_files(self) -> Iterator[tuple[str, bytes]]:
        """Files for the whole export, written once, at the end: (path below the output, content)."""
        yield from ()

    def image_path(self, image: ExportImage) -> str:
        """The path of a copied image below the output."""
        return f"images/{self.stem(image)}{image.extension}"

    def stem(self, image: ExportImage) -> str:
        """A relative path for files about this image, without an extension."""
        return self.facts.names.stem(image.row.image_id)

    def copies(self, row: LabelRow) -> bool:
        """Whether this row's image is copied into the output."""
        return bool(self.options.copy_images)


class DocumentFormat(Format):
    """A format that is one JSON document. Every image adds items to its lists, which are called sections.

    A document that is itself a list has one section, named "".
    """

    default_name: ClassVar[str]
    sections: ClassVar[tuple[str, ...]] = ("",)

    @abstractmethod
    def items(self, image: ExportImage) -> dict[str, list[Any]]:
        """The items of one image, by section."""

    def head(self) -> dict[str, Any]:
        """The entries of the document that are not sections."""
        return {}


class ArchiveFormat(Format):
    """A format of tar files, each with the members of several images."""

    @abstractmethod
    def members(self, image: ExportImage) -> Iterator[tuple[str, bytes]]:
        """(member name, content) of one image, in order."""


def compact_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
