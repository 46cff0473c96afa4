"""What the lake holds and no row stands for: counted by kind, so that it can be told and kept in run.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

_METADATA_KEY = b"yolact.passed_over"
_MOST_NAMED = 5


@dataclass(frozen=True)
class PassedOver:
    """How often what was passed over, and one line that says why where a whole source gave nothing."""

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
