"""Files and members of the lake that get no row. They are counted by kind, for the log and for run.json."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

log = logging.getLogger(__name__)

#: the kinds under which hidden files, and files without an extension, are counted
HIDDEN, NAMELESS = "hidden", "without extension"
#: extensions of images in formats that are not read; they cause a warning
_OTHER_IMAGES = (
    ".jxl", ".jp2", ".j2k", ".jpx", ".jpf", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".psd",
    ".exr", ".hdr", ".dcm", ".ppm", ".pgm", ".pnm", ".tga", ".ico", ".svg", ".nd2", ".czi", ".lif", ".svs", ".ndpi",
)  # fmt: skip
#: extensions of files that usually lie beside images; `--any-name` does not take them for images
_COMPANIONS = (
    ".json", ".jsonl", ".ndjson", ".txt", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".md", ".html", ".htm", ".log",
    ".cls", ".npy", ".npz", ".pkl", ".pt", ".pth", ".safetensors", ".zip", ".gz", ".py", ".ipynb", ".pdf", ".lst",
    ".list", ".idx", ".index", ".crc", ".md5", ".sha256", ".mp4", ".mov", ".avi", ".mp3", ".wav", ".db", ".ini",
)  # fmt: skip
_METADATA_KEY = b"yolact.passed_over"
_MOST_NAMED = 5


@dataclass(frozen=True)
class PassedOver:
    """How many files of each kind were passed over. `reason` is one line if a whole source gave no row."""

    counts: Counter[str]
    reason: str | None = None

    def to_metadata(self) -> dict[bytes, str] | None:
        """As metadata of an index table; None where nothing was passed over."""
        if not self.counts:
            return None
        return {_METADATA_KEY: json.dumps({"counts": self.counts, "reason": self.reason})}

    @classmethod
    def of(cls, index: pa.Table) -> PassedOver:
        """Read from the table of `index_source`."""
        text = (index.schema.metadata or {}).get(_METADATA_KEY)
        noted = {"counts": {}, "reason": None} if text is None else json.loads(text)
        return cls(Counter(noted["counts"]), noted["reason"])

    @classmethod
    def together(cls, all_of_them: Iterable[PassedOver]) -> PassedOver:
        """The sum of the counts, and the last reason."""
        counts: Counter[str] = Counter()
        reason = None
        for one in all_of_them:
            counts += one.counts
            reason = one.reason or reason
        return cls(counts, reason)

    def describe(self) -> str:
        """ "9,999 .heic, 3 without extension", the most frequent first."""
        named = [f"{count:,} {what}" for what, count in self.counts.most_common(_MOST_NAMED)]
        rest = self.counts.total() - sum(count for _, count in self.counts.most_common(_MOST_NAMED))
        return ", ".join(named + ([f"{rest:,} others"] if rest else []))

    def report(self) -> None:
        """Log what a listing passed over: as a warning where images may be among it."""
        if self.has_images():
            log.warning("passed over: %s (--any-name takes files of every name)", self.describe())
        elif self.counts:
            log.info("passed over: %s", self.describe())

    def has_images(self) -> bool:
        """Whether files are among them that may well be images."""
        return any(what == NAMELESS or what in _OTHER_IMAGES for what in self.counts)


def file_name(uri: str) -> str:
    """The last component of an address; of a web address without its query."""
    if uri.startswith(("http://", "https://")):
        uri = uri.partition("?")[0]
    return uri.rpartition("/")[2]


def extension_of(uri: str) -> str:
    """The extension in lower case with its dot, or `NAMELESS`."""
    name = file_name(uri)
    stem, dot, extension = name.rpartition(".")
    return f".{extension.lower()}" if dot and stem else NAMELESS


def is_other_image(uri: str) -> bool:
    """Whether a name is that of an image in a format that is not read."""
    return extension_of(uri) in _OTHER_IMAGES


def is_companion(uri: str) -> bool:
    """Whether a name is that of a file that lies beside images: annotations, tables, archives, films."""
    return extension_of(uri) in _COMPANIONS
