"""The page docs/faults.md as the fault tests saw it: every table whole, or nothing is written."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: `make faults-page` copies this file to docs/faults.md: a test run changes no tracked file
PAGE = Path(__file__).resolve().parents[2] / "build" / "faults.md"

_HEAD = """# Faults

Written by `make test-faults` and taken over by `make faults-page`. The tests kill processes at named moments of real
runs, put a proxy that misbehaves in front of a real S3 server (SeaweedFS), and label files that are no images. Do not
edit this page: run the tests again.

Last run: {when}, {cpus} CPUs, {machine}, {seconds:.0f} s.
"""


@dataclass
class FaultReport:
    """Records by section. A section must be announced with all its keys, and each key recorded by a test that held."""

    expected: dict[str, list[Hashable]] = field(default_factory=dict)
    records: dict[str, dict[Hashable, Any]] = field(default_factory=dict)
    started: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))

    def expect(self, section: str, keys: Iterable[Hashable]) -> None:
        self.expected[section] = list(keys)

    def record(self, section: str, key: Hashable, **values: Any) -> None:
        self.records.setdefault(section, {})[key] = values

    def is_whole(self) -> bool:
        """Whether each of the three sections ran, and ran whole."""
        return set(self.expected) == {"kills", "store", "hostile"} and all(
            self.records.get(section, {}).keys() >= set(keys) for section, keys in self.expected.items()
        )

    def write(self, page: Path = PAGE) -> None:
        ended = datetime.datetime.now(datetime.UTC)
        head = _HEAD.format(
            when=ended.strftime("%Y-%m-%d %H:%M UTC"),
            cpus=os.cpu_count(),
            machine=platform.machine(),
            seconds=(ended - self.started).total_seconds(),
        )
        page.parent.mkdir(exist_ok=True)
        temporary = page.with_suffix(".tmp")
        temporary.write_text("\n".join([head, *self._kills(), *self._store(), *self._hostile()]))
        temporary.replace(page)

    def _kills(self) -> Iterable[str]:
        from support.fault_moments import MOMENTS

        cells = self.records["kills"]
        yield "## Kills"
        yield ""
        yield (
            "Each cell: rows lost / rows doubled, then the seconds from the blow until the next object (unit, part, "
            "index) stood in OUTPUT. Runs of 24 images on a Ray cluster of three nodes with lake and OUTPUT on S3. A "
            "driver's recovery is counted from the start of the same command on the cluster that is still there. In "
            "every cell the rows equal an undisturbed run's to the bit, and a reader who looked at `labels/` "
            f"twice a second ({sum(cell['looks'] for cell in cells.values()):,} looks) saw whole parts only and "
            "no id twice."
        )
        yield ""
        yield f"| victim | {' | '.join(MOMENTS)} |"
        yield "|---" * (len(MOMENTS) + 1) + "|"
        for victim in dict.fromkeys(victim for victim, _ in self.expected["kills"]):
            row = [_cell(cells.get((victim, moment))) for moment in MOMENTS]
            yield f"| {victim} | {' | '.join(row)} |"
        yield ""
        yield "– : no model actor lives while the lake is indexed. Publishing is struck when the part stands in"
        yield "`labels/` and its staged units are not yet removed; commit, right before the put."
        left = [cell["left_seconds"] for cell in cells.values() if cell.get("left_seconds") is not None]
        yield f"After SIGTERM the driver was gone within {max(left):.1f} s (at most 30 are allowed)."
        ended = [cell["ended_seconds"] for cell in cells.values() if cell.get("ended_seconds") is not None]
        yield (
            "A driver that was stopped by SIGSTOP went on after another one had taken over and finished. It ended by "
            f"itself within {max(ended):.1f} s, with one line, and no object was another than before."
        )
        yield "The decode worker of the columns index and publish is the task worker that does just that."
        again = [
            f"{victim} at {moment}"
            for (victim, moment), cell in cells.items()
            if cell["runs"] > 1 and not victim.startswith("driver")
        ]
        yield f"Drivers aside, these took the command a second time: {', '.join(again) or 'none'}."
        yield ""

    def _store(self) -> Iterable[str]:
        yield "## A store that misbehaves"
        yield ""
        yield "| what the store does | outcome | exit code | retries |"
        yield "|---|---|---|---|"
        for name, values in self.records["store"].items():
            retries = ", ".join(f"{n} {reason}" for reason, n in sorted(values["retries"].items())) or "none"
            yield f"| {name} | {values['outcome']} | {values['code']} | {retries} |"
        yield ""

    def _hostile(self) -> Iterable[str]:
        yield "## Hostile images"
        yield ""
        yield "Every row that came of the hostile lake; the good images among them have the labels of a clean lake's to"
        yield "the bit."
        yield ""
        yield "| file | status | error |"
        yield "|---|---|---|"
        for name, values in self.records["hostile"].items():
            yield f"| {_quoted(str(name))} | {values['status']} | {_escaped(values['error'] or '')} |"
        yield ""


def _cell(cell: dict[str, Any] | None) -> str:
    return "–" if cell is None else f"{cell['lost']} / {cell['doubled']}, {cell['seconds']:.1f} s"


def _quoted(name: str) -> str:
    """`name` on one line of a table, whatever it holds."""
    shown = ascii(name)[1:-1] if not name.isprintable() else name
    return f"`{(shown if len(shown) < 60 else shown[:57] + '…').replace('|', chr(92) + '|')}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
