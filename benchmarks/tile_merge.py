"""Measures how long the detections of tiles take to become those of one image, and whether any is lost or doubled.

    python -m benchmarks.tile_merge --instances 100000

No network runs. Discs that do not touch are spread over an image, and every tile reports what it shows of them, as a
perfect network would. So each disc must come out once, with the mask that it has in the image.
"""

from __future__ import annotations

import math
import resource
import time
from dataclasses import dataclass

import numpy as np

from benchmarks.harness import run_benchmark
from yolact.geometry.mask_runs import MaskRuns, encode_runs
from yolact.images.tile_config import TileConfig
from yolact.images.tiles import Window, tile_windows
from yolact.inference.detections import Detections
from yolact.inference.tiles import MergeRules, TileDetections, merge_tiles

#: pixels between the centres of neighbouring discs, before they are moved at random
_SPACING = 64
_SMALLEST, _LARGEST = 3, 24


@dataclass(frozen=True)
class TileMergeConfig:
    """Options of the measurement."""

    instances: int = 100_000
    """discs in the image, about: the next square number"""
    tile: int = 768
    """side of a tile in pixels"""
    overlap: float = 0.2
    """share of a tile that the next one shows too"""
    rounds: int = 3
    """how often the merge is timed; the fastest one counts"""
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Discs:
    """N discs in a square image."""

    x: np.ndarray
    """(N,) int64 column of the centre"""
    y: np.ndarray
    radius: np.ndarray
    side: int
    """of the image, in pixels"""

    def within(self, window: Window) -> MaskRuns:
        """The masks of all discs that a window shows a part of, in its own pixels."""
        x, y, radius = self.x - window.left, self.y - window.top, self.radius
        near = (x + radius >= 0) & (x - radius < window.width) & (y + radius >= 0) & (y - radius < window.height)
        x, y, radius = x[near, None], y[near, None], radius[near, None]
        across = np.arange(-_LARGEST, _LARGEST + 1)
        half = np.sqrt(np.maximum(radius**2 - across**2, 0)).astype(np.int64)
        column = x + across
        top, bottom = np.maximum(y - half, 0), np.minimum(y + half + 1, window.height)
        there = (np.abs(across) <= radius) & (column >= 0) & (column < window.width) & (top < bottom)
        counts = there.sum(axis=1)
        column, top, bottom = column[there], top[there], bottom[there]
        first = np.concatenate([[0], np.cumsum(counts[counts > 0])])
        return MaskRuns(column * window.height + top, column * window.height + bottom, first, window.height)


def draw(instances: int, seed: int) -> Discs:
    """Discs on a grid, each moved at random, so that no two of them touch."""
    rng = np.random.default_rng(seed)
    per_side = math.ceil(math.sqrt(instances))
    radius = rng.integers(_SMALLEST, _LARGEST, (per_side, per_side))
    room = _SPACING // 2 - 1 - radius
    moved = [rng.integers(-room, room + 1) for _ in range(2)]
    y, x = np.mgrid[:per_side, :per_side] * _SPACING + _SPACING // 2 + np.stack(moved)
    return Discs(x.ravel(), y.ravel(), radius.ravel(), per_side * _SPACING)


def seen_in(discs: Discs, window: Window, seed: int) -> TileDetections:
    """What a perfect network finds in a tile; the scores are random."""
    runs = discs.within(window)
    masks, areas = encode_runs(runs, window.width)
    scores = np.random.default_rng((seed, window.left, window.top)).random(len(runs), np.float32)
    return TileDetections(
        window,
        Detections(
            boxes=runs.boxes().astype(np.float32),
            scores=scores,
            mask_scores=None,
            labels=np.zeros(len(runs), np.int64),
            areas=areas,
            masks=masks,
            height=window.height,
            width=window.width,
        ),
    )


def lost_and_doubled(discs: Discs, merged: Detections) -> tuple[int, int]:
    """How many discs have no detection with exactly their mask, and how many detections there are beside those."""
    whole = Window(0, 0, discs.side, discs.side)
    truth = {mask["counts"] for mask in encode_runs(discs.within(whole), discs.side)[0]}
    found = {mask["counts"] for mask in merged.masks}
    return len(truth - found), len(merged) - len(truth & found)


def measure(config: TileMergeConfig) -> str:
    """Lines with the size of the task, the seconds, the memory and what was lost or doubled."""
    discs = draw(config.instances, config.seed)
    tile = TileConfig(config.tile, config.overlap, whole_image=False)
    windows = tile_windows(discs.side, discs.side, tile)
    tiles = [seen_in(discs, window, config.seed) for window in windows]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(config.rounds):
        begin = time.perf_counter()
        merged = merge_tiles(tiles, None, discs.side, discs.side, MergeRules(config.tile, margin=2))
        seconds.append(time.perf_counter() - begin)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    lost, doubled = lost_and_doubled(discs, merged)
    detections = sum(len(each.found) for each in tiles)
    return "\n".join(
        [
            f"image      {discs.side:,} × {discs.side:,} px, {len(discs.x):,} discs",
            f"tiles      {len(tiles):,}, with {detections:,} detections",
            f"merge      {min(seconds):.2f} s, {grown / 1024:.0f} MiB more memory at its peak",
            f"result     {len(merged):,} instances, {lost} lost, {doubled} doubled or wrong",
        ]
    )


def main(config: TileMergeConfig) -> None:
    print(measure(config))


if __name__ == "__main__":
    run_benchmark(TileMergeConfig, __doc__, main)
