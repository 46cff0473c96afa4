"""The units that are still to do, and the bundles of neighbouring units in which they are handed out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jobs.label.manifest.parts import Part
from jobs.table.output import UNITS_PER_PART

#: images of a full bundle: the driver's work for a bundle does not depend on what is in it
IMAGES_PER_BUNDLE = 1024
#: how often a unit is handed out again after its actor died, before it is left to the next pass
_RETRIES_AFTER_A_DEATH = 2


class MissingUnits:
    """Which units of some parts are not committed: one byte a unit, 16 MB for a billion images."""

    def __init__(self, parts: Sequence[Part], staged: Collection[int]) -> None:
        """`staged` are the units that are committed; those of other parts are ignored."""
        self._missing = {part.number: np.ones(part.units, np.bool_) for part in parts}
        for unit in staged:
            part, index = divmod(unit, UNITS_PER_PART)
            if unit in self:
                self._missing[part][index] = False
        self._counts = {number: int(units.sum()) for number, units in self._missing.items()}
        self._total = sum(self._counts.values())

    def __len__(self) -> int:
        return self._total

    def __iter__(self) -> Iterator[int]:
        """The missing units in ascending order of their parts; each part is looked at when its turn comes."""
        for number in self._missing:
            yield from self.of_part(number)

    def __contains__(self, unit: int) -> bool:
        part, index = divmod(unit, UNITS_PER_PART)
        return part in self._missing and index < len(self._missing[part]) and bool(self._missing[part][index])

    def of_part(self, number: int) -> list[int]:
        """The missing units of one part, ascending."""
        return [number * UNITS_PER_PART + index for index in np.flatnonzero(self._missing[number]).tolist()]

    def parts(self) -> list[int]:
        """Numbers of all parts, in the given order."""
        return list(self._missing)

    def left_in(self, number: int) -> int:
        """How many units of a part are missing."""
        return self._counts[number]

    def remove(self, unit: int) -> bool:
        """Note that `unit` is committed. False if that was known."""
        if unit not in self:
            return False
        part, index = divmod(unit, UNITS_PER_PART)
        self._missing[part][index] = False
        self._counts[part] -= 1
        self._total -= 1
        return True


@dataclass(frozen=True)
class Bundle:
    """Neighbouring units of one part, ascending, that one call of a model actor labels."""

    units: tuple[int, ...]


class Bundles:
    """Hands out missing units as bundles, and units again whose actor died.

    A bundle has `units_per_bundle` units. Towards the end bundles become smaller: each takes a `2 * at_once`-th of what
    is left, so that all who label end at about the same time.
    """

    def __init__(self, missing: MissingUnits, units_per_bundle: int, at_once: int) -> None:
        """`at_once` bundles are worked on at the same time."""
        self._left = len(missing)
        self._cut = self._cut_all(missing, units_per_bundle, at_once)
        self._again: list[Bundle] = []
        self._deaths: Counter[int] = Counter()

    @property
    def left(self) -> int:
        """How many units are not handed out."""
        return self._left + len(self._again)

    def take(self) -> Bundle | None:
        """The next bundle; None if none is left, until units come back."""
        return self._again.pop() if self._again else next(self._cut, None)

    def give_back(self, units: Collection[int]) -> None:
        """Take back `units` whose actor died. They are handed out again one by one, so that one costs no other."""
        self._deaths.update(units)
        self._again += [Bundle((unit,)) for unit in units if self._deaths[unit] <= _RETRIES_AFTER_A_DEATH]

    def _cut_all(self, missing: MissingUnits, units_per_bundle: int, at_once: int) -> Iterator[Bundle]:
        for number in missing.parts():
            units = missing.of_part(number)
            while units:
                size = max(1, min(units_per_bundle, self._left // (2 * at_once)))
                bundle, units = Bundle(tuple(units[:size])), units[size:]
                self._left -= len(bundle.units)
                yield bundle
        # units that were committed meanwhile are not handed out
        self._left = 0


def units_per_bundle(parts: Collection[Part]) -> int:
    """How many units of these parts make `IMAGES_PER_BUNDLE` images, at least 1."""
    images, units = sum(part.images for part in parts), sum(part.units for part in parts)
    return max(1, IMAGES_PER_BUNDLE * units // max(1, images))
