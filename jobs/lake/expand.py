"""From INPUT arguments to the objects of the lake: folders, single objects, patterns and lists, of any scheme."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from jobs.lake.inventory import inventory_objects, is_inventory_name, read_inventory
from jobs.lake.lists import is_text_list, read_list, uri_column
from jobs.lake.passed_over import HIDDEN, extension_of, is_companion
from jobs.lake.patterns import Pattern, expand_braces, is_web, normalised, patterns_of
from jobs.lake.source import (
    IMAGE_EXTENSIONS,
    PARQUET_EXTENSIONS,
    Kind,
    ParquetColumns,
    Source,
    is_hidden,
    kind_of,
    kind_of_bytes,
)
from jobs.lake.sources import ObjectTable, SourceTable
from jobs.runtime.errors import UsageError
from jobs.storage import ObjectInfo, ObjectMissingError, Retry, is_local, iter_objects, object_info, read_range
from yolact.images.kinds import describe_no_image

#: from this many single objects in one folder, listing it is cheaper than asking for each
_MANY = 8
_THREADS = 16
#: enough of a file to tell what it is
_HEAD_BYTES = 512


def expand_inputs(
    inputs: Sequence[str],
    *,
    exclude: str | None = None,
    ignored: Counter[str] | None = None,
    any_name: bool = False,
    columns: ParquetColumns | None = None,
    retry: Retry | None = None,
) -> SourceTable:
    """All sources that `inputs` name, each once. Inputs keep their order; the sources of one input are sorted by URI.

    An input is a folder or prefix with everything below it, a single object, or a pattern with braces ("{000..099}",
    "{train,val}") and globs (*, ?, [abc], and ** across folders). If an object has exactly that name, the input is that
    object and no pattern. A text file that is an input is a list of URIs, and so is a Parquet file without image bytes.
    The manifest.json of an S3 Inventory stands for the objects of its report, which are taken as a listing's.

    Hidden files and everything below `exclude` (the run's own output) are left out. In a folder, files without an
    image's extension are counted in `ignored`, by extension. With `any_name` they count as images, except for files
    that usually lie beside images, such as .json. If the name of a single object says nothing, its first bytes decide.
    Raises UsageError for an input that names nothing, and what `jobs.storage` raises.
    """
    wish = _Wish(
        None if exclude is None else normalised(exclude).rstrip("/") + "/",
        any_name,
        columns or ParquetColumns(),
        retry or Retry(),
        Counter() if ignored is None else ignored,
    )
    found = SourceTable.of(source for argument in inputs for source in _sources_of(argument, wish)).each_once()
    if not found:
        raise UsageError(f"nothing to label in {', '.join(inputs)}: {_nothing(wish.ignored)}")
    return found


@dataclass(frozen=True)
class _Wish:
    """The settings of one call, the same for all its inputs."""

    excluded: str | None
    any_name: bool
    columns: ParquetColumns
    retry: Retry
    ignored: Counter[str]


@dataclass(frozen=True)
class _Found:
    """An object. `by_name` is True if an input is its name, False if a folder or a glob led to it."""

    item: ObjectInfo
    by_name: bool


def folders_of(inputs: Sequence[str]) -> list[str]:
    """The folders or prefixes in object stores where `inputs` will be searched, each once."""
    folders = []
    for argument in inputs:
        patterns = [Pattern("", pattern) for pattern in expand_braces(normalised(argument))]
        for pattern in patterns:
            if pattern.is_glob:
                folders.append(pattern.split()[0])
            else:
                folders.append(pattern.uri if len(patterns) == 1 else pattern.uri.rpartition("/")[0])
    # left out: an address without a bucket, web servers (few can list), and local disks (always reachable)
    asked = (f for f in folders if not is_web(f) and f.rstrip("/")[-1:] != ":" and not is_local(f))
    return list(dict.fromkeys(asked))


def _sources_of(argument: str, wish: _Wish) -> Iterator[Source]:
    is_table_of_uris: bool | None = None
    for found in _objects_of(argument, wish.retry):
        item = found.item
        if wish.excluded is not None and item.uri.startswith(wish.excluded):
            continue
        if found.by_name and is_inventory_name(item.uri):
            yield from _of_inventory(item, wish)
            continue
        kind = _kind(found, wish)
        if kind is None:
            continue
        if kind == "list":
            yield from _listed(read_list(item, wish.columns, wish.retry), item.uri, wish.retry)
            continue
        # the files of one input are of one kind: the first one decides
        if kind == "parquet" and found.by_name and is_table_of_uris is not False:
            column = uri_column(item, wish.columns, wish.retry)
            is_table_of_uris = column is not None
            if column is not None:
                yield from _listed(read_list(item, wish.columns, wish.retry, column), item.uri, wish.retry)
                continue
        yield _source(item, kind)


def _of_inventory(item: ObjectInfo, wish: _Wish) -> Iterator[Source]:
    """The sources in an S3 Inventory, sorted by URI. The store is asked about shards of unknown size only."""
    inventory = read_inventory(item, wish.retry)
    listed = ObjectTable()
    for entry in inventory_objects(inventory, wish.retry):
        if wish.excluded is None or not entry.uri.startswith(wish.excluded):
            listed.add(entry)
    if inventory.knows_versions:
        for entry in listed.in_order():
            kind = _kind(_Found(entry, by_name=False), wish)
            if kind is not None and kind != "list":
                yield _source(entry, kind)
        return
    kinds = {entry.uri: _kind(_Found(entry, by_name=False), wish) for entry in listed.in_order()}
    yield from _listed([uri for uri, kind in kinds.items() if kind is not None], item.uri, wish.retry)


def _kind(found: _Found, wish: _Wish) -> Kind | Literal["list"] | None:
    """What an object is; None if it is passed over, and then it is counted."""
    uri = found.item.uri
    kind = kind_of(uri)
    if found.by_name:
        if kind is None:
            return "list" if is_text_list(uri) else _kind_by_content(found.item, wish.retry)
        return kind
    if is_hidden(uri):
        wish.ignored[HIDDEN] += 1
        return None
    if kind is None and wish.any_name and not is_companion(uri):
        return "image"
    if kind is None:
        wish.ignored[extension_of(uri)] += 1
    return kind


def _kind_by_content(item: ObjectInfo, retry: Retry) -> Kind | Literal["list"]:
    """The kind of a single object whose name says nothing, from its first bytes."""
    length = _HEAD_BYTES if item.size < 0 else min(_HEAD_BYTES, item.size)
    head = read_range(item.uri, 0, length, etag=item.etag or None, retry=retry)
    kind = kind_of_bytes(head)
    if kind is not None:
        return kind
    what = describe_no_image(head) if head else "empty"
    if what == "text":
        return "list"
    raise UsageError(f"{item.uri}: neither an image, a tar, a Parquet file nor a list of URIs: the file is {what}")


def _listed(uris: Sequence[str], list_uri: str, retry: Retry) -> Iterator[Source]:
    """The sources that a list names. The store is asked about shards only; images are looked at when fetched."""
    shards = {uri: kind for uri in uris if (kind := kind_of(uri)) is not None and kind != "image"}
    known = _asked(list(shards), retry)
    if missing := [uri for uri in shards if uri not in known]:
        raise UsageError(f"{list_uri}: no such object or folder: {_some(missing)}")
    for uri in uris:
        yield _source(known[uri], shards[uri]) if uri in shards else Source(uri, -1, "", "image")


def _source(item: ObjectInfo, kind: Kind) -> Source:
    if item.size < 0 and kind != "image":
        raise UsageError(f"{item.uri}: its store does not say how large it is; copy it to one that does")
    return Source(item.uri, item.size, item.etag, kind)


def _nothing(ignored: Counter[str]) -> str:
    looked_for = f"looked for images ({' '.join(IMAGE_EXTENSIONS)}), .tar and {' '.join(PARQUET_EXTENSIONS)}"
    if not ignored:
        return f"there are no objects; {looked_for}"
    kinds = ", ".join(f"{count} {extension}" for extension, count in ignored.most_common(5))
    return f"{looked_for}; found only {kinds}"


def _objects_of(argument: str, retry: Retry) -> Iterator[_Found]:
    patterns = patterns_of(argument, retry)
    named = _named(patterns, retry)
    missing: list[str] = []
    for pattern in patterns:
        if pattern.uri in named:
            yield _Found(named[pattern.uri], by_name=True)
            continue
        items = _objects_of_pattern(pattern, retry)
        if not len(items):
            missing.append(pattern.uri)
        yield from (_Found(item, by_name=item.uri == pattern.uri) for item in items.in_order())
    if missing and len(patterns) > 1:
        raise UsageError(f"{argument}: no such object or folder: {_some(missing)}")
    if missing:
        is_pattern = patterns[0].is_glob
        what = "nothing matches" if is_pattern else "no object of that name, and none below it as a folder"
        raise UsageError(f"{argument}: {what}")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"


def _named(patterns: Sequence[Pattern], retry: Retry) -> dict[str, ObjectInfo]:
    """Objects under plain names. One listing finds many names of one folder; other names get a request each."""
    plain = [pattern.uri for pattern in patterns if not pattern.is_glob and not pattern.uri.endswith("/")]
    by_folder: defaultdict[str, list[str]] = defaultdict(list)
    for uri in plain:
        by_folder[uri.rpartition("/")[0]].append(uri)
    found: dict[str, ObjectInfo] = {}
    single: list[str] = []
    for folder, names in by_folder.items():
        if len(names) < _MANY or is_web(folder):
            single += names
            continue
        wanted = set(names)
        prefix = _common_prefix(name[len(folder) + 1 :] for name in names)
        items = iter_objects(folder, prefix, recursive=False, retry=retry)
        found |= {item.uri: item for item in items if item.uri in wanted}
    return found | _asked(single, retry)


def _asked(uris: Sequence[str], retry: Retry) -> dict[str, ObjectInfo]:
    """The objects among `uris`. Each is asked for by a request of its own, several at the same time."""

    def ask(uri: str) -> ObjectInfo | None:
        try:
            return object_info(uri, retry=retry)
        except ObjectMissingError:
            return None

    with ThreadPoolExecutor(min(_THREADS, max(1, len(uris)))) as pool:
        return {uri: item for uri, item in zip(uris, pool.map(ask, uris), strict=True) if item is not None}


def _common_prefix(names: Iterable[str]) -> str:
    ordered = sorted(names)
    first, last = ordered[0], ordered[-1]
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:length]


def _objects_of_pattern(pattern: Pattern, retry: Retry) -> ObjectTable:
    """Objects below a folder, or objects that match a glob. An object whose name is the glob itself wins."""
    literal, matching = ObjectTable(), ObjectTable()
    if not pattern.is_glob:
        for item in iter_objects(pattern.uri, retry=retry):
            literal.add(item)
        return literal
    folder, name_start, rest = pattern.split()
    # a pattern for files, such as *.tar, need not look into the folders beside them
    only_files = "/" not in rest and "**" not in rest and kind_of(rest) is not None
    matches = pattern.matcher().match
    for item in iter_objects(folder or "/", name_start, recursive=not only_files, retry=retry):
        if item.uri == pattern.uri or item.uri.startswith(f"{pattern.uri.rstrip('/')}/"):
            literal.add(item)
        elif matches(item.uri):
            matching.add(item)
    return literal if len(literal) else matching
