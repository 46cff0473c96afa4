"""Matches file names in annotations with files and with rows of a label table.

Annotations name an image by a path below an unknown folder, by an absolute path on another machine, by a URL, or with
backslashes. `FileNames` finds the file that is meant.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")


@dataclass(frozen=True)
class NameParts:
    """A file name taken apart."""

    parts: tuple[str, ...]
    """folders and the name itself, without `.` and `..`"""
    is_absolute: bool
    """a path from the root of a disk, or a URL: its first folders say nothing here"""


def name_parts(name: str) -> NameParts:
    """Take a relative path, an absolute path, a Windows path or a URL apart.

    An HTTP address loses its query and its percent signs. Letters with accents are compared in one form of Unicode.
    """
    scheme = _SCHEME.match(name)
    is_absolute = scheme is not None or name.startswith(("/", "\\")) or _DRIVE.match(name) is not None
    if scheme is not None:
        name = name[scheme.end() :]
        if scheme.group().lower() in ("http://", "https://"):
            name = unquote(re.split(r"[?#]", name)[0])
    elif _DRIVE.match(name):
        name = name[2:]
    pieces = unicodedata.normalize("NFC", name.replace("\\", "/")).split("/")
    return NameParts(tuple(piece for piece in pieces if piece not in ("", ".", "..")), is_absolute)


class FileNames:
    """Finds the one of some known names that another name means. The first rule that finds a name counts:

    1. the same name
    2. the same path, after both are taken apart
    3. the longest known name that is the end of the wanted path
    4. the known name that ends in the wanted path, if there is only one
    5. where either path is absolute: the known name with the same last part, if there is only one

    Args:
        names: the known names. Of two names with the same parts, rule 1 alone finds either.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)
        self._by_path: dict[tuple[str, ...], list[str]] = {}
        self._by_last: dict[str, list[tuple[NameParts, str]]] = {}
        for name in sorted(self._names):
            taken_apart = name_parts(name)
            if taken_apart.parts:
                self._by_path.setdefault(taken_apart.parts, []).append(name)
                self._by_last.setdefault(taken_apart.parts[-1], []).append((taken_apart, name))

    def find(self, name: str) -> str | None:
        """The name that is meant, or None where there is none or several are possible."""
        if name in self._names:
            return name
        wanted = name_parts(name)
        for start in range(len(wanted.parts)):
            found = self._by_path.get(wanted.parts[start:])
            if found is not None:
                return found[0] if len(found) == 1 else None
        if not wanted.parts:
            return None
        same_last = self._by_last.get(wanted.parts[-1], [])
        longer = [other for parts, other in same_last if parts.parts[-len(wanted.parts) :] == wanted.parts]
        if len(longer) == 1:
            return longer[0]
        if len(same_last) == 1 and (wanted.is_absolute or same_last[0][0].is_absolute):
            return same_last[0][1]
        return None
