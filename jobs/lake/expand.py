"""From what the user typed to the objects of the lake: braces, globs, folders and single objects of any scheme."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from fsspec.utils import glob_translate

from jobs.lake.source import IMAGE_EXTENSIONS, PARQUET_EXTENSIONS, Source, is_hidden, kind_of
from jobs.runtime.errors import UsageError
from jobs.storage import ObjectInfo, ObjectMissingError, Retry, iter_objects, object_info, split_uri

_BRACES = re.compile(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}")
_RANGE = re.compile(r"^(\d+)\.\.(\d+)$")
_MAGIC = re.compile(r"[*?\[]")
_MOST_ALTERNATIVES = 1_000_000
#: from this many single objects in one folder, listing it is cheaper than asking for each
_MANY = 8


def expand_inputs(
    inputs: Sequence[str],
    *,
    exclude: str | None = None,
    ignored: Counter[str] | None = None,
    retry: Retry | None = None,
) -> list[Source]:
    """All sources that `inputs` name, each once: inputs in the order given, within one of them sorted by URI.

    An input is a folder or prefix (taken with all below it), a single object, or a pattern of these with braces
    ("{000..099}", "{train,val}") and globs (*, ?, [abc], and ** across folders). What lies below `exclude` (the run's
    own output) and hidden files are left out. Files of a folder that hold no images are counted in `ignored`, by
    extension. Raises UsageError for an input that names nothing, and what `jobs.storage` raises.
    """
    ignored = Counter() if ignored is None else ignored
    excluded = None if exclude is None else _normalised(exclude).rstrip("/") + "/"
    retry = retry or Retry()
    found: dict[str, Source] = {}
    for argument in inputs:
        for item in _objects_of(argument, retry):
            if excluded is not None and item.uri.startswith(excluded):
                continue
            kind = None if is_hidden(item.uri) else kind_of(item.uri)
            if kind is None:
                ignored[_extension(item.uri)] += 1
            elif item.uri not in found:
                found[item.uri] = _source(item)
    if not found:
        raise UsageError(f"nothing to label in {', '.join(inputs)}: {_nothing(ignored)}")
    return list(found.values())


def folders_of(inputs: Sequence[str]) -> list[str]:
    """The folders or prefixes in object stores that `inputs` will be looked for in, each once."""
    folders = []
    for argument in inputs:
        patterns = [_normalised(pattern) for pattern in expand_braces(argument)]
        for pattern in patterns:
            if _has_magic(pattern):
                folders.append(_split_at_magic(pattern)[0])
            else:
                folders.append(pattern if len(patterns) == 1 else pattern.rpartition("/")[0])
    # nothing can be listed without a bucket, nor on the web; a disk is there
    unlisted = ("http://", "https://")
    return list(dict.fromkeys(f for f in folders if "://" in f and not f.startswith(unlisted)))


def _source(item: ObjectInfo) -> Source:
    kind = kind_of(item.uri)
    assert kind is not None
    if item.size < 0:
        raise UsageError(f"{item.uri}: its store does not say how large it is; copy it to one that does")
    return Source(item.uri, item.size, item.etag, kind)


def _nothing(ignored: Counter[str]) -> str:
    looked_for = f"looked for images ({' '.join(IMAGE_EXTENSIONS)}), .tar and {' '.join(PARQUET_EXTENSIONS)}"
    if not ignored:
        return f"there are no objects; {looked_for}"
    kinds = ", ".join(f"{count} {extension}" for extension, count in ignored.most_common(5))
    return f"{looked_for}; found only {kinds}"


def _objects_of(argument: str, retry: Retry) -> Iterator[ObjectInfo]:
    patterns = [_normalised(pattern) for pattern in expand_braces(argument)]
    listed = _listed_together(patterns, retry)
    missing: list[str] = []
    for pattern in patterns:
        items = [listed[pattern]] if pattern in listed else sorted(_objects_of_pattern(pattern, retry))
        if not items:
            missing.append(pattern)
        yield from items
    if missing and len(patterns) > 1:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UsageError(f"{argument}: no such object or folder: {', '.join(missing[:3])}{more}")
    if missing:
        what = "nothing matches" if _MAGIC.search(argument) else "no object of that name, and none below it as a folder"
        raise UsageError(f"{argument}: {what}")


def _normalised(uri: str) -> str:
    """Local paths absolute and without a scheme, so that one file has one name; a trailing slash stays."""
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


def _listed_together(patterns: list[str], retry: Retry) -> dict[str, ObjectInfo]:
    """Plain names that share a folder, found with one listing of it."""
    by_folder: defaultdict[str, list[str]] = defaultdict(list)
    for pattern in patterns:
        if not _has_magic(pattern) and not pattern.endswith("/"):
            by_folder[pattern.rpartition("/")[0]].append(pattern)
    listed: dict[str, ObjectInfo] = {}
    for folder, names in by_folder.items():
        if len(names) >= _MANY:
            wanted = set(names)
            prefix = _common_prefix(name[len(folder) + 1 :] for name in names)
            items = iter_objects(folder, prefix, recursive=False, retry=retry)
            listed |= {item.uri: item for item in items if item.uri in wanted}
    return listed


def _common_prefix(names: Iterable[str]) -> str:
    ordered = sorted(names)
    first, last = ordered[0], ordered[-1]
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:length]


def _objects_of_pattern(pattern: str, retry: Retry) -> Iterator[ObjectInfo]:
    if not pattern.endswith("/"):
        try:
            yield object_info(pattern, retry=retry)
            return
        except ObjectMissingError:
            pass
    if _has_magic(pattern):
        yield from _matches(pattern.rstrip("/"), retry)
    else:
        yield from iter_objects(pattern, retry=retry)


def _matches(pattern: str, retry: Retry) -> Iterator[ObjectInfo]:
    """Objects whose URI matches, or lies below a folder that does."""
    folder, name_prefix, rest = _split_at_magic(pattern)
    # a pattern for files, such as *.tar, need not look into the folders beside them
    only_files = "/" not in rest and "**" not in rest and kind_of(rest) is not None
    try:
        matching = re.compile("|".join(map(glob_translate, (pattern, f"{pattern}/**"))))
    except (ValueError, re.error) as error:
        raise UsageError(f"{pattern}: {error}") from None
    for item in iter_objects(folder or "/", name_prefix, recursive=not only_files, retry=retry):
        if matching.match(item.uri):
            yield item


def _split_at_magic(pattern: str) -> tuple[str, str, str]:
    """Folder, start of a name in it, and the pattern from its first magic character on."""
    magic = _MAGIC.search(pattern)
    assert magic is not None
    folder, _, name_prefix = pattern[: magic.start()].rpartition("/")
    return folder, name_prefix, pattern[magic.start() :]


def _has_magic(pattern: str) -> bool:
    """Question marks in web addresses are queries."""
    return _MAGIC.search(pattern) is not None and not pattern.startswith(("http://", "https://"))


def _extension(uri: str) -> str:
    name = uri.rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    return f".{extension.lower()}" if dot and stem else "without extension"
