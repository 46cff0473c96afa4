"""The units that are still to do, and the bundles of neighbouring units in which they are handed out."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
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

    def __init__(self, parts: Iterable[Part], staged: Collection[int]) -> None:
        """`staged` are the units that are committed; those of other parts are ignored."""
        self.parts: list[int] = []
        """numbers of all parts, in the order in which they came"""
        self._missing: dict[int, np.ndarray] = {}
        self._counts: dict[int, int] = {}
        self._total = 0
        self.add(parts, staged)

    def add(self, parts: Iterable[Part], staged: Collection[int] = ()) -> None:
        """Take in more parts, which nobody has begun apart from `staged`."""
        for part in parts:
            self.parts.append(part.number)
            self._missing[part.number] = np.ones(part.units, np.bool_)
            self._counts[part.number] = part.units
            self._total += part.units
        for unit in staged:
            self.remove(unit)

    def __len__(self) -> int:
        return self._total

    def __iter__(self) -> Iterator[int]:
        """The missing units in the order of their parts; each part is looked at when its turn comes."""
        for number in self.parts:
            yield from self.of_part(number)

    def __contains__(self, unit: int) -> bool:
        part, index = divmod(unit, UNITS_PER_PART)
        return part in self._missing and index < len(self._missing[part]) and bool(self._missing[part][index])

    def of_part(self, number: int) -> list[int]:
        """The missing units of one part, ascending."""
        return [number * UNITS_PER_PART + index for index in np.flatnonzero(self._missing[number]).tolist()]

    def left_in(self, number: int) -> int:
        """How many units of a part are missing."""
        return self._counts[number]

    def remove(self, unit: int) -> bool:
        """Note that `unit` is committed. False if that was known, or if the unit is in none of the parts."""
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
    """Hands out missing units as bundles, and units again whose actor died. Parts may be added meanwhile.

    A bundle has `units_per_bundle` units. Towards the end bundles become smaller: each takes at most half of an equal
    share of what is left, so that all who label end at about the same time.
    """

    def __init__(self, missing: MissingUnits, units_per_bundle: int, at_once: int) -> None:
        """`at_once` bundles are worked on at the same time."""
        self._missing, self._most, self._at_once = missing, units_per_bundle, at_once
        self._parts_begun = 0
        self._of_this_part: list[int] = []
        self._again: list[Bundle] = []
        self._deaths: Counter[int] = Counter()

    def take(self) -> Bundle | None:
        """The next bundle; None if there is none now, until units come back or parts are added."""
        if not self.any_now():
            return None
        if self._again:
            return self._again.pop()
        size = max(1, min(self._most, self._left() // (2 * self._at_once)))
        units, self._of_this_part = self._of_this_part[:size], self._of_this_part[size:]
        return Bundle(tuple(units))

    def any_now(self) -> bool:
        """Whether `take` would give a bundle."""
        while not self._of_this_part and self._parts_begun < len(self._missing.parts):
            self._of_this_part = self._missing.of_part(self._missing.parts[self._parts_begun])
            self._parts_begun += 1
        return bool(self._again or self._of_this_part)

    def _left(self) -> int:
        """How many units are not handed out; no more are counted than make a difference."""
        left = len(self._of_this_part)
        for number in itertools.islice(self._missing.parts, self._parts_begun, None):
            if left >= 2 * self._at_once * self._most:
                break
            left += self._missing.left_in(number)
        return left

    def give_back(self, units: Collection[int]) -> None:
        """Take back `units` whose actor died. They are handed out again one by one, so that one costs no other."""
        self._deaths.update(units)
        self._again += [Bundle((unit,)) for unit in units if self._deaths[unit] <= _RETRIES_AFTER_A_DEATH]


def units_per_bundle(parts: Collection[Part]) -> int:
    """How many units of these parts make `IMAGES_PER_BUNDLE` images, at least 1."""
    images, units = sum(part.images for part in parts), sum(part.units for part in parts)
    return max(1, IMAGES_PER_BUNDLE * units // max(1, images))
