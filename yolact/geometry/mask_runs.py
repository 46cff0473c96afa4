"""Sets of masks as runs of pixels: placed in a larger image, intersected and united without a full-size mask.

A run lies in one column of the image. It goes from `start` to `end`, the end excluded. Both are places in the order of
COCO: down the columns, place = column · H + row.

Shapes: N masks, R runs, P pairs; H × W the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from yolact.geometry.rle import Rle, encode_flips

#: masks whose run lengths are unpacked or packed together: limits the memory for intermediate values
_MASKS_AT_ONCE = 16_384
#: pairs of runs that are intersected together, about
_PAIRS_AT_ONCE = 1 << 22


@dataclass(frozen=True, eq=False)
class MaskRuns:
    """N masks of one image. The runs of a mask stand together, rising, and do not overlap."""

    start: np.ndarray
    """(R,) int64."""
    end: np.ndarray
    """(R,) int64, above `start`."""
    first: np.ndarray
    """(N + 1,) int64: the runs of mask i are first[i] … first[i + 1] − 1."""
    height: int
    """H of the image."""

    def __len__(self) -> int:
        return len(self.first) - 1

    @property
    def owner(self) -> np.ndarray:
        """(R,) int64: the mask that a run belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.first))

    @property
    def areas(self) -> np.ndarray:
        """(N,) int64 pixels."""
        total = np.concatenate([[0], np.cumsum(self.end - self.start)])
        return total[self.first[1:]] - total[self.first[:-1]]

    def take(self, index: np.ndarray) -> MaskRuns:
        """The masks at `index` (M,), in that order."""
        counts = np.diff(self.first)[index]
        places = _ranges(self.first[index], counts)
        return MaskRuns(self.start[places], self.end[places], _offsets(counts), self.height)

    def boxes(self) -> np.ndarray:
        """(N, 4) int64 x1, y1, x2, y2 of the pixels of each mask, ends excluded; zeros for a mask without pixels."""
        boxes = np.zeros((len(self), 4), np.int64)
        filled = np.flatnonzero(np.diff(self.first))
        if len(filled):
            begin = self.first[filled]
            column, top = np.divmod(self.start, self.height)
            boxes[filled, 0] = np.minimum.reduceat(column, begin)
            boxes[filled, 1] = np.minimum.reduceat(top, begin)
            boxes[filled, 2] = np.maximum.reduceat(column, begin) + 1
            boxes[filled, 3] = np.maximum.reduceat(top + self.end - self.start, begin)
        return boxes

    def areas_within(self, index: np.ndarray, windows: np.ndarray) -> np.ndarray:
        """Pixels of the masks at `index` (P,) within `windows` (P, 4) x1, y1, x2, y2, ends excluded: (P,) int64."""
        counts = np.diff(self.first)[index]
        places = _ranges(self.first[index], counts)
        column, top = np.divmod(self.start[places], self.height)
        bottom = top + self.end[places] - self.start[places]
        left, upper, right, lower = np.repeat(windows, counts, axis=0).T
        inside = np.clip(np.minimum(bottom, lower) - np.maximum(top, upper), 0, None)
        total = np.concatenate([[0], np.cumsum(np.where((left <= column) & (column < right), inside, 0))])
        offsets = _offsets(counts)
        return total[offsets[1:]] - total[offsets[:-1]]


def concatenate(parts: Sequence[MaskRuns], height: int) -> MaskRuns:
    """The masks of all parts, one part after the other; each part is of an image with H = `height`."""
    counts = [np.diff(part.first) for part in parts]
    return MaskRuns(
        np.concatenate([part.start for part in parts] or [np.zeros(0, np.int64)]),
        np.concatenate([part.end for part in parts] or [np.zeros(0, np.int64)]),
        _offsets(np.concatenate(counts or [np.zeros(0, np.int64)])),
        height,
    )


def place_masks(masks: Sequence[Rle], lefts: np.ndarray, tops: np.ndarray, height: int) -> MaskRuns:
    """Masks of parts of an image → the same masks in the image.

    Args:
        masks: N COCO RLE dicts, each of the size of its part.
        lefts, tops: (N,) int64: the pixel of the image at which each part begins.
        height: H of the image.
    """
    chunks = [slice(begin, begin + _MASKS_AT_ONCE) for begin in range(0, len(masks), _MASKS_AT_ONCE)]
    return concatenate([_place(masks[chunk], lefts[chunk], tops[chunk], height) for chunk in chunks], height)


def _place(masks: Sequence[Rle], lefts: np.ndarray, tops: np.ndarray, height: int) -> MaskRuns:
    heights = np.array([mask["size"][0] for mask in masks], np.int64)
    runs, first = _unpack([mask["counts"] for mask in masks])
    owner = np.repeat(np.arange(len(masks)), np.diff(first))
    ends = np.cumsum(runs)
    ends -= np.concatenate([[0], ends])[first[:-1]][owner]
    starts = ends - runs
    # every second run is of ones
    ones = ((np.arange(len(runs)) - first[:-1][owner]) % 2 == 1) & (runs > 0)
    start, end, owner = starts[ones], ends[ones], owner[ones]
    # a run that goes on at the top of the next column is cut there
    side = heights[owner]
    first_column, last_column = start // side, (end - 1) // side
    pieces = last_column - first_column + 1
    column = _ranges(first_column, pieces)
    start, end, owner = np.repeat(start, pieces), np.repeat(end, pieces), np.repeat(owner, pieces)
    side = heights[owner]
    begin = (lefts[owner] + column) * height + tops[owner]
    low = np.maximum(start - column * side, 0)
    high = np.minimum(end - column * side, side)
    return MaskRuns(begin + low, begin + high, _offsets(np.bincount(owner, minlength=len(masks))), height)


def _unpack(packed: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """`unpack_counts` of many masks at once: all run lengths, and (N + 1,) where those of each mask begin."""
    characters = np.frombuffer(b"".join(packed), np.uint8).astype(np.int64) - 48
    lengths = np.array([len(text) for text in packed], np.int64)
    last = np.flatnonzero(characters < 0x20)
    begin = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(characters)) - np.repeat(begin, last - begin + 1)
    values = np.add.reduceat((characters & 0x1F) << (5 * place), begin)
    values -= np.where(characters[last] & 0x10, 1 << (5 * (last - begin + 1)), 0)
    first = np.concatenate([[0], np.searchsorted(last, np.cumsum(lengths))])
    # from the fourth number of a mask on, each is the difference to the one two places before
    index = np.arange(len(values)) - np.repeat(first[:-1], np.diff(first))
    runs = values.copy()
    for parity in (0, 1):
        chosen = (index > 0) & (index % 2 == parity)
        total = np.cumsum(np.where(chosen, values, 0))
        before = np.concatenate([[0], total])[first[:-1]]
        runs[chosen] = (total - np.repeat(before, np.diff(first)))[chosen]
    return runs, first


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Pairs of masks that have pixels in common; each pair stands once, the lower index first."""

    one: np.ndarray
    """(P,) int64."""
    other: np.ndarray
    """(P,) int64."""
    pixels: np.ndarray
    """(P,) int64 pixels in common, at least 1."""

    def take(self, index: np.ndarray) -> Overlaps:
        return Overlaps(self.one[index], self.other[index], self.pixels[index])

    def among(self, kept: np.ndarray) -> Overlaps:
        """The pairs whose masks are both `kept` (N,) bool, with indices into `masks.take(np.flatnonzero(kept))`."""
        pairs = self.take(kept[self.one] & kept[self.other])
        place = np.cumsum(kept) - 1
        return Overlaps(place[pairs.one], place[pairs.other], pairs.pixels)


def find_overlaps(masks: MaskRuns, groups: np.ndarray) -> Overlaps:
    """The pairs of masks of one group that have pixels in common.

    The runs are sorted, and each is compared with those that begin before it ends. So the time grows with the number of
    runs and of overlaps, not with the number of pairs of masks.

    Args:
        groups: (N,) int64, at least 0: masks of different groups are not compared.
    """
    count = len(masks)
    owner = masks.owner
    pixels = int(masks.end.max(initial=0)) + 1
    start, end = groups[owner] * pixels + masks.start, groups[owner] * pixels + masks.end
    order = np.argsort(start, kind="stable")
    start, end, owner = start[order], end[order], owner[order]
    following = np.searchsorted(start, end) - np.arange(1, len(start) + 1)
    before = np.concatenate([[0], np.cumsum(following)])
    keys, sums = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    begin = 0
    while begin < len(start):
        stop = max(begin + 1, int(np.searchsorted(before, before[begin] + _PAIRS_AT_ONCE, side="right")) - 1)
        run = np.repeat(np.arange(begin, stop), following[begin:stop])
        later = _ranges(np.arange(begin + 1, stop + 1), following[begin:stop])
        common = np.minimum(end[run], end[later]) - start[later]
        low, high = np.minimum(owner[run], owner[later]), np.maximum(owner[run], owner[later])
        key, total = _sum_by_key(low * count + high, common)
        keys.append(key)
        sums.append(total)
        begin = stop
    key, total = _sum_by_key(np.concatenate(keys), np.concatenate(sums))
    return Overlaps(key // max(count, 1), key % max(count, 1), total)


def _sum_by_key(keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each key once, rising, with the sum of its values."""
    if not len(keys):
        return keys, values
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    new = np.flatnonzero(np.diff(keys, prepend=-1))
    return keys[new], np.add.reduceat(values, new)


def unite(masks: MaskRuns, groups: np.ndarray, count: int) -> MaskRuns:
    """The union of the masks of each group.

    Args:
        groups: (N,) int64 in 0…count − 1, or −1 for a mask that is in none.
        count: how many groups there are.
    """
    group = groups[masks.owner]
    chosen = group >= 0
    pixels = int(masks.end.max(initial=0)) + 1
    # keys of different groups lie apart, so one running maximum serves all
    start, end = (group * pixels + masks.start)[chosen], (group * pixels + masks.end)[chosen]
    order = np.argsort(start, kind="stable")
    start, end = start[order], np.maximum.accumulate(end[order])
    new = np.ones(len(start), bool)
    # runs that only touch stay apart: one column ends where the next one begins
    new[1:] = start[1:] >= end[:-1]
    begins = np.flatnonzero(new)
    stops = np.append(begins[1:], len(start))[: len(begins)] - 1
    group = start[begins] // pixels
    first = _offsets(np.bincount(group, minlength=count))
    return MaskRuns(start[begins] - group * pixels, end[stops] - group * pixels, first, masks.height)


def encode_runs(masks: MaskRuns, width: int) -> tuple[list[Rle], np.ndarray]:
    """COCO RLE dicts of size [H, width], and (N,) int64 areas in pixels."""
    stride = masks.height * width + 1
    rles: list[Rle] = []
    areas = [np.zeros(0, np.int64)]
    for begin in range(0, len(masks), _MASKS_AT_ONCE):
        part = masks.take(np.arange(begin, min(begin + _MASKS_AT_ONCE, len(masks))))
        owner = part.owner
        flips = np.stack([owner * stride + part.start, owner * stride + part.end], axis=1).reshape(-1)
        encoded, area = encode_flips(flips, len(part), masks.height, width)
        rles += encoded
        areas.append(area)
    return rles, np.concatenate(areas)


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _ranges(begin: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """begin[0], begin[0] + 1, …, `counts[0]` numbers in all; then those of begin[1]; and so on."""
    offsets = _offsets(counts)
    return np.arange(offsets[-1]) + np.repeat(begin - offsets[:-1], counts)
