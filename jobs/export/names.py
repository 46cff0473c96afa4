"""File names for images, made from the ids of their rows: short, safe on any disk, and each used once."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')
_LONGEST = 150
#: extensions that are kept; more need not be counted, since names carry their extension from two kinds on
_MANY = 8


def extension(image_id: str) -> str:
    """The extension of a file with its dot, in the case of the id; "" where there is none."""
    return os.path.splitext(re.split(r"[/#]", image_id)[-1])[1]


@dataclass(frozen=True)
class NameFacts:
    """What file names depend on, gathered over all ids of a table. Facts of pieces can be joined in any order."""

    lowest: str = ""
    highest: str = ""
    extensions: frozenset[str] = frozenset()

    @classmethod
    def of(cls, image_ids: Iterable[str]) -> NameFacts:
        ids = list(image_ids)
        if not ids:
            return cls()
        return cls(min(ids), max(ids), frozenset(sorted({extension(i) for i in ids})[:_MANY]))

    def join(self, other: NameFacts) -> NameFacts:
        if not self.extensions or not other.extensions:
            return self if self.extensions else other
        extensions = frozenset(sorted(self.extensions | other.extensions)[:_MANY])
        return NameFacts(min(self.lowest, other.lowest), max(self.highest, other.highest), extensions)

    @property
    def root(self) -> str:
        """The common start of all ids, up to a folder or an archive."""
        # common characters, not common paths: an archive ends in # and not in /. The cut to a separator follows
        common = os.path.commonprefix([self.lowest, self.highest])  # noqa: RUF071
        return common[: max(common.rfind("/"), common.rfind("#")) + 1]

    def relative(self, image_id: str) -> str:
        """The rest of the id after `root`."""
        return image_id[len(self.root) :]

    def stem(self, image_id: str) -> str:
        """A relative path for files about this image, without an extension.

        Where a table has images with several extensions, the extension becomes part of the name ("a_png"), so that
        a.png and a.jpg get two names. A name that had to be changed to be safe carries a hash of the id.
        """
        path = self.relative(image_id)
        kind = extension(image_id)
        if kind:
            path = path[: -len(kind)]
        if len(self.extensions) > 1:
            path += "_" + kind[1:]
        segments = [_safe(segment) for segment in re.split(r"[/#]", path)]
        if segments != re.split(r"[/#]", path):
            segments[-1] += "-" + id_hash(image_id)
        return "/".join(segments)


def id_hash(image_id: str) -> str:
    """16 hexadecimal digits that make a changed name unique."""
    return hashlib.sha256(image_id.encode()).hexdigest()[:16]


def _safe(segment: str) -> str:
    segment = _UNSAFE.sub("_", segment)
    if len(segment.encode()) > _LONGEST:
        segment = segment.encode()[:_LONGEST].decode(errors="ignore")
    return "_" if segment.strip(". ") == "" else segment
