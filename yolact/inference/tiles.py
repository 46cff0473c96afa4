"""Detections of the tiles of an image → detections of the image: duplicates go, and cut objects become whole again.

Each tile sees a part of the image, so an object near its edge may be cut, and an object where tiles overlap is found
twice. All comparisons are of masks, within a class, in these steps:

1. A detection that an inner edge of its tile cuts yields to a neighbour's detection that holds most of it and is not
   cut. So does a detection inside a larger one that reaches beyond its tile: its tile saw only a part of that object.
2. Cut detections that agree where their tiles overlap are pieces of one object: their masks are united.
3. What is left is compared in order, as in NMS: whole detections of tiles and whole-image detections that are larger
   than a tile, by their scores; then joined pieces; then whole-image detections that no tile had room for; then pieces
   that nothing continues; then all other whole-image detections. The better one stays.

Detections of the same tile are not compared: the NMS of the tile judged them already.

Shapes: N detections, P pairs of them, R runs; H × W the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from yolact.geometry.mask_runs import MaskRuns, Overlaps, concatenate, encode_runs, find_overlaps, place_masks, unite
from yolact.images.tiles import Window
from yolact.inference.detections import Detections

#: the order of step 3
_WHOLE, _JOINED, _UNSEEN, _PIECE, _OTHER = range(5)


@dataclass(frozen=True)
class MergeRules:
    """When detections of different tiles are of the same object."""

    tile_size: int
    """Side of a tile in pixels."""
    margin: int
    """A detection is cut if it comes closer than this to an inner edge of its tile, in pixels: the size of a value of
    the soft masks, 1 or more."""
    overlap_threshold: float = 0.5
    """Masks are of the same object if they have more than this share in common."""
    limit: int | None = None
    """Most detections of the image; None for no limit."""


@dataclass(frozen=True, eq=False)
class TileDetections:
    """What was found in one tile, in the pixels of the tile."""

    window: Window
    """Where the tile lies in the image."""
    found: Detections


@dataclass(frozen=True, eq=False)
class _Candidates:
    """N detections in the frame of the image; each has at least one mask pixel."""

    boxes: np.ndarray
    """(N, 4) float32."""
    scores: np.ndarray
    """(N,) float32."""
    mask_scores: np.ndarray | None
    """(N,) float32."""
    labels: np.ndarray
    """(N,) int64."""
    source: np.ndarray
    """(N,) int64: index of the tile; below 0 for what comes from no single tile, each value once."""
    windows: np.ndarray
    """(N, 4) int64 x1, y1, x2, y2 of the tile."""
    masks: MaskRuns

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: np.ndarray) -> _Candidates:
        return _Candidates(
            self.boxes[index],
            self.scores[index],
            None if self.mask_scores is None else self.mask_scores[index],
            self.labels[index],
            self.source[index],
            self.windows[index],
            self.masks.take(index),
        )

    def best_first(self, tiers: np.ndarray) -> np.ndarray:
        """The order by tier and falling score. Equal scores are ordered by place, so the order of tiles has no say."""
        return np.lexsort((*self.boxes.T, *self.masks.boxes().T, self.labels, -self.scores, tiers))


def merge_tiles(
    tiles: Sequence[TileDetections], whole: Detections | None, height: int, width: int, rules: MergeRules
) -> Detections:
    """The detections of an image from those of its tiles.

    The order of the tiles changes nothing. Detections without a mask pixel are left out, since their object cannot be
    told. The time grows with the pixels of the masks' columns and with the overlaps of masks.

    Args:
        tiles: those of `tile_windows`.
        whole: detections in the whole image; None if the network did not run on it.
        height, width: H and W of the image.
        rules: when two detections are one object.

    Returns:
        Boxes, masks and areas in the frame of the image. A joined object has the best score of its pieces.
    """
    image = Window(0, 0, width, height)
    parts = [*tiles, TileDetections(image, whole)] if whole is not None else list(tiles)
    everything = _gather(parts, height)
    from_tile = everything.source < len(tiles)
    seen = everything.take(np.flatnonzero(from_tile))
    cut = _is_cut(seen, height, width, rules.margin)
    pairs = _between_tiles(seen)
    stays = ~_yields_to_whole(seen, cut, pairs, rules)
    seen, cut, pairs = seen.take(np.flatnonzero(stays)), cut[stays], pairs.among(stays)
    joined, alone = _join(seen, cut, pairs, rules)
    rest = seen.take(np.flatnonzero(alone))
    coarse = everything.take(np.flatnonzero(~from_tile))
    candidates = _together([rest, joined, coarse], height)
    tiers = np.concatenate(
        [
            np.where(cut[alone], _PIECE, _WHOLE),
            np.full(len(joined), _JOINED),
            _tiers_of_coarse(coarse, tiles, rules),
        ]
    )
    is_coarse = np.arange(len(candidates)) >= len(rest) + len(joined)
    # pairs of the rest are known; only joined and whole-image detections make new ones
    pairs = pairs.among(alone) if len(rest) == len(candidates) else _between_tiles(candidates)
    kept = _suppress(candidates, pairs, tiers, is_coarse, rules.overlap_threshold)
    result = candidates.take(kept)
    result = result.take(result.best_first(np.zeros(len(kept)))[: rules.limit])
    rles, areas = encode_runs(result.masks, width)
    return Detections(
        boxes=result.boxes,
        scores=result.scores,
        mask_scores=result.mask_scores,
        labels=result.labels,
        areas=areas,
        masks=rles,
        height=height,
        width=width,
    )


def _gather(parts: Sequence[TileDetections], height: int) -> _Candidates:
    """All detections with at least one mask pixel, moved to the frame of the image."""
    counts = [len(part.found) for part in parts]
    source = np.repeat(np.arange(len(parts)), counts)
    windows = np.array([(p.window.left, p.window.top, p.window.right, p.window.bottom) for p in parts], np.int64)
    windows = windows.reshape(-1, 4)[source]
    corner = windows[:, :2]
    found = [part.found for part in parts]
    mask_scores = [f.mask_scores for f in found if f.mask_scores is not None]
    every = _Candidates(
        _stack([f.boxes for f in found], (0, 4), np.float32) + np.tile(corner, 2).astype(np.float32),
        _stack([f.scores for f in found], (0,), np.float32),
        _stack(mask_scores, (0,), np.float32) if mask_scores else None,
        _stack([f.labels for f in found], (0,), np.int64),
        source,
        windows,
        place_masks([mask for f in found for mask in f.masks], corner[:, 0], corner[:, 1], height),
    )
    return every.take(np.flatnonzero(every.masks.areas))


def _stack(parts: Sequence[np.ndarray], empty: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(empty, dtype), *parts]).astype(dtype)


def _together(parts: Sequence[_Candidates], height: int) -> _Candidates:
    mask_scores = [part.mask_scores for part in parts if part.mask_scores is not None]
    return _Candidates(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate(mask_scores) if len(mask_scores) == len(parts) else None,
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.source for part in parts]),
        np.concatenate([part.windows for part in parts]),
        concatenate([part.masks for part in parts], height),
    )


def _is_cut(seen: _Candidates, height: int, width: int, margin: int) -> np.ndarray:
    """(N,) bool: whether box or mask comes close to an edge of the tile that is no edge of the image."""
    own = seen.masks.boxes()
    windows = seen.windows
    inner_low = windows[:, :2] > 0
    inner_high = windows[:, 2:] < (width, height)
    low = np.minimum(own[:, :2], seen.boxes[:, :2]) < windows[:, :2] + margin
    high = np.maximum(own[:, 2:], seen.boxes[:, 2:]) > windows[:, 2:] - margin
    return np.asarray(((inner_low & low) | (inner_high & high)).any(axis=1))


def _between_tiles(candidates: _Candidates) -> Overlaps:
    """Pairs of one class from different tiles whose masks overlap."""
    pairs = find_overlaps(candidates.masks, candidates.labels)
    return pairs.take(candidates.source[pairs.one] != candidates.source[pairs.other])


def _yields_to_whole(seen: _Candidates, cut: np.ndarray, pairs: Overlaps, rules: MergeRules) -> np.ndarray:
    """Step 1: (N,) bool which detections go."""
    areas, boxes = seen.masks.areas, seen.masks.boxes()
    yields = np.zeros(len(seen), bool)
    for weak, strong in ((pairs.one, pairs.other), (pairs.other, pairs.one)):
        held = pairs.pixels > rules.overlap_threshold * areas[weak]
        window, box = seen.windows[weak], boxes[strong]
        reaches_out = (box[:, :2] < window[:, :2]).any(axis=1) | (box[:, 2:] > window[:, 2:]).any(axis=1)
        weaker = cut[weak] | (reaches_out & (areas[strong] > areas[weak]))
        yields[weak[held & ~cut[strong] & weaker]] = True
    return yields


def _join(seen: _Candidates, cut: np.ndarray, pairs: Overlaps, rules: MergeRules) -> tuple[_Candidates, np.ndarray]:
    """Step 2: the joined objects, and (N,) bool which detections are not part of one."""
    pairs = pairs.take(cut[pairs.one] & cut[pairs.other])
    first, second = seen.windows[pairs.one], seen.windows[pairs.other]
    common = np.concatenate([np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])], axis=1)
    union = seen.masks.areas_within(pairs.one, common) + seen.masks.areas_within(pairs.other, common) - pairs.pixels
    agrees = pairs.pixels > rules.overlap_threshold * union
    groups, count = _connected(len(seen), pairs.one[agrees], pairs.other[agrees])
    return _united(seen, groups, count), groups < 0


def _connected(count: int, one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, int]:
    """(N,) number of the group of those that pairs connect, −1 for those in no pair; and how many groups there are."""
    leader = list(range(count))

    def lead(member: int) -> int:
        while leader[member] != member:
            leader[member] = leader[leader[member]]
            member = leader[member]
        return member

    for a, b in zip(one.tolist(), other.tolist(), strict=True):
        leader[lead(a)] = lead(b)
    groups = np.full(count, -1, np.int64)
    members = np.unique(np.concatenate([one, other]))
    leaders, groups[members] = np.unique([lead(member) for member in members.tolist()], return_inverse=True)
    return groups, len(leaders)


def _united(seen: _Candidates, groups: np.ndarray, count: int) -> _Candidates:
    """One candidate for each group: the union of masks and boxes, and the best score."""
    members = np.flatnonzero(groups >= 0)
    order = members[np.argsort(groups[members], kind="stable")]
    begin = np.searchsorted(groups[order], np.arange(count))

    def by_group(reduce: np.ufunc, values: np.ndarray) -> np.ndarray:
        return np.asarray(reduce.reduceat(values[order], begin)) if count else values[:0]

    return _Candidates(
        np.concatenate([by_group(np.minimum, seen.boxes[:, :2]), by_group(np.maximum, seen.boxes[:, 2:])], axis=1),
        by_group(np.maximum, seen.scores),
        None if seen.mask_scores is None else by_group(np.maximum, seen.mask_scores),
        by_group(np.maximum, seen.labels),
        -1 - np.arange(count),
        np.zeros((count, 4), np.int64),
        unite(seen.masks, groups, count),
    )


def _tiers_of_coarse(coarse: _Candidates, tiles: Sequence[TileDetections], rules: MergeRules) -> np.ndarray:
    """(N,) tiers of whole-image detections: larger than a tile, too large for the tiles where it lies, or any other."""
    boxes = coarse.masks.boxes()
    fits = np.ones(len(coarse), bool)
    # tiles are a grid, so each axis can be judged on its own
    for low, spans in (
        (0, {(tile.window.left, tile.window.right) for tile in tiles}),
        (1, {(tile.window.top, tile.window.bottom) for tile in tiles}),
    ):
        begin, end = np.array(sorted(spans), np.int64).reshape(-1, 2).T
        # the last tile that begins before the object is the one that reaches furthest beyond it
        place = np.searchsorted(begin, boxes[:, low], side="right") - 1
        fits &= (place >= 0) & (end[np.maximum(place, 0)] >= boxes[:, low + 2])
    large = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) > rules.tile_size
    return np.where(large, _WHOLE, np.where(fits, _OTHER, _UNSEEN))


def _suppress(
    candidates: _Candidates, pairs: Overlaps, tiers: np.ndarray, is_coarse: np.ndarray, threshold: float
) -> np.ndarray:
    """Step 3: indices of what stays, rising.

    Of two whole detections of tiles, the later one goes if the smaller of the two is mostly inside the other. Anything
    else goes if the earlier ones cover most of it. A whole-image detection is not lost to one small detection inside
    it, and it goes if a tile's whole detection is the same object, because tiles see more detail.
    """
    areas = candidates.masks.areas
    fine = (tiers == _WHOLE) & ~is_coarse
    one, other, pixels = pairs.one, pairs.other, pairs.pixels
    same = pixels > threshold * (areas[one] + areas[other] - pixels)
    gone = np.zeros(len(candidates), bool)
    gone[one[same & is_coarse[one] & fine[other]]] = True
    gone[other[same & is_coarse[other] & fine[one]]] = True

    rank = np.empty(len(candidates), np.int64)
    rank[candidates.best_first(tiers)] = np.arange(len(candidates))
    swapped = rank[one] > rank[other]
    earlier, later = np.where(swapped, other, one), np.where(swapped, one, other)
    contained = fine[one] & fine[other] & (pixels > threshold * np.minimum(areas[one], areas[other]))
    both_fine = fine[one] & fine[other]
    # a pair of two tiles counts as a whole or not at all; from others what is covered adds up
    covers = np.where(both_fine, np.where(contained, areas[later], 0), pixels)
    order = np.argsort(rank[earlier], kind="stable")
    removed, covered, most = gone.tolist(), [0] * len(candidates), (threshold * areas).tolist()
    for better, worse, share in zip(
        earlier[order].tolist(), later[order].tolist(), covers[order].tolist(), strict=True
    ):
        if not removed[better]:
            covered[worse] += share
            removed[worse] = removed[worse] or covered[worse] > most[worse]
    return np.flatnonzero(~np.array(removed, bool))
