"""INPUT arguments as patterns: braces, globs and how to escape them. The name of an existing object is no pattern."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from fsspec.utils import glob_translate

from jobs.runtime.errors import UsageError
from jobs.storage import ObjectMissingError, Retry, folder_exists, object_info, split_uri

#: "[{]" is an escaped brace, as "[*]" is an escaped star
_BRACES = re.compile(r"(?<!\[)\{([^{}]*(?:,|\.\.)[^{}]*)\}")
_RANGE = re.compile(r"^(\d+)\.\.(\d+)$")
_MAGIC = re.compile(r"[*?\[]")
#: question marks in web addresses are queries
_WEB_MAGIC = re.compile(r"[*\[]")
_MOST_ALTERNATIVES = 1_000_000


class Pattern(NamedTuple):
    """A URI in two pieces: in `literal` no character is special; `rest` may hold globs, but no braces."""

    literal: str
    rest: str = ""

    @property
    def uri(self) -> str:
        return self.literal + self.rest

    @property
    def is_glob(self) -> bool:
        return _magic(self).search(self.rest) is not None

    def split(self) -> tuple[str, str, str]:
        """Folder, start of a name in it, and the pattern from its first magic character on."""
        found = _magic(self).search(self.rest)
        place = len(self.literal) + (len(self.rest) if found is None else found.start())
        folder, _, name_start = self.uri[:place].rpartition("/")
        return folder, name_start, self.uri[place:]

    def matcher(self) -> re.Pattern[str]:
        """Matches the URIs of objects that the pattern means, or that lie below a folder it means."""
        literal, rest = re.escape(self.literal), self.rest.rstrip("/")
        try:
            return re.compile("|".join(literal + glob_translate(glob) for glob in (rest, f"{rest}/**")))
        except (ValueError, re.error) as error:
            raise UsageError(f"{self.uri}: {error}") from None


def is_web(uri: str) -> bool:
    """Whether an address is one of HTTP."""
    return uri.startswith(("http://", "https://"))


def _magic(pattern: Pattern) -> re.Pattern[str]:
    return _WEB_MAGIC if is_web(pattern.uri) else _MAGIC


def patterns_of(argument: str, retry: Retry) -> list[Pattern]:
    """The patterns that one INPUT stands for, in its order.

    In the longest start of it that exists as an object or a folder, no character is special. In the rest, braces are
    expanded. Raises UsageError for an empty INPUT and what `expand_braces` raises.
    """
    uri = normalised(argument)
    for end in _ends_behind_special_names(uri):
        start, rest = uri[:end], uri[end:]
        if _exists(start, retry, as_object=not rest):
            return [Pattern(start + rest[:1], alternative) for alternative in expand_braces(rest[1:])]
    return [Pattern("", alternative) for alternative in expand_braces(uri)]


def _ends_behind_special_names(uri: str) -> Iterator[int]:
    """Where the components of `uri` end that hold a special character, the last one first."""
    special = re.compile(r"[*?\[{]")
    end = len(uri.rstrip("/"))
    while (slash := uri.rfind("/", 0, end)) > 0:
        if special.search(uri, slash, end):
            yield end
        end = slash


def _exists(uri: str, retry: Retry, *, as_object: bool) -> bool:
    if as_object:
        try:
            object_info(uri, retry=retry)
            return True
        except ObjectMissingError:
            pass
    return not is_web(uri) and folder_exists(uri, retry=retry)


def normalised(uri: str) -> str:
    """Local paths absolute and without a scheme, so that one file has one name; a trailing slash stays."""
    if not uri.strip():
        raise UsageError("an INPUT is empty (a shell variable that is not set?); name a folder, an object or a pattern")
    scheme, path = split_uri(uri)
    if scheme == "file":
        return path.rstrip("/") + "/" if uri.endswith("/") else path
    return f"s3://{path}" if scheme == "s3" else uri


def expand_braces(pattern: str) -> list[str]:
    """ "a{08..10}b{x,y}" → a08bx, a08by, a09bx, …; numbers keep their zeros. Other braces stay as they are."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    head, tail = pattern[: match.start()], pattern[match.end() :]
    if span := _RANGE.match(match.group(1)):
        first, last = span.groups()
        if abs(int(last) - int(first)) >= _MOST_ALTERNATIVES:
            raise UsageError(f"{pattern}: {match.group()} gives more than {_MOST_ALTERNATIVES} names; use a glob (*)")
        step = 1 if int(last) >= int(first) else -1
        width = len(first) if first.startswith("0") else 0
        middles = [f"{number:0{width}}" for number in range(int(first), int(last) + step, step)]
    elif ".." in match.group(1) and "," not in match.group(1):
        raise UsageError(f"{pattern}: {match.group()} is no range of numbers such as {{000..099}}")
    else:
        middles = match.group(1).split(",")
    tails = expand_braces(tail)
    return [f"{head}{middle}{rest}" for middle in middles for rest in tails]
