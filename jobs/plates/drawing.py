"""Synthetic fluorescence microscopy: one plate as pixels with its exact instance masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: neighbours drawn earlier may hide this share of a nucleus; where they hide more, another place is tried
MAX_HIDDEN = 0.12
#: visible pixels; a nucleus with fewer is left out
MIN_AREA = 20
MAX_PLACEMENTS = 12


@dataclass(frozen=True)
class Plate:
    """An image and its nuclei."""

    pixels: np.ndarray
    """(H, W, 3) uint8, grey values in all channels"""
    instances: np.ndarray
    """(H, W) int32: 0 is background, n is the n-th nucleus; masks do not overlap"""

    @property
    def num_instances(self) -> int:
        return int(self.instances.max(initial=0))


def draw_plate(
    seed: int, index: int, height: int = 512, width: int = 512, density: float = 60.0, mean_diameter: float = 26.0
) -> Plate:
    """Draw plate number `index` of the lake `seed`; the same arguments give the same pixels.

    Nuclei are blurred, textured ellipses with a wavy outline, in clusters, on an uneven background with shot noise
    and read-out noise, as in the image of a camera on a fluorescence microscope.

    Args:
        seed: of the lake.
        index: of the plate.
        height: in pixels.
        width: in pixels.
        density: nuclei per 512 × 512 px on average; plates vary by a factor of about two around it.
        mean_diameter: of a nucleus in pixels; plates vary by about a third around it.
    """
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, index))))
    diameter = mean_diameter * np.exp(rng.normal(0, 0.3))
    count = rng.poisson(density * np.exp(rng.normal(0, 0.5)) * height * width / 512**2)
    light = np.zeros((height, width), np.float32)
    instances = np.zeros((height, width), np.int32)
    centres: list[tuple[float, float]] = []
    for _ in range(count):
        _add_nucleus(rng, light, instances, centres, diameter)
    instances = _renumber(instances)
    return Plate(_expose(rng, light), instances)


def _add_nucleus(
    rng: np.random.Generator,
    light: np.ndarray,
    instances: np.ndarray,
    centres: list[tuple[float, float]],
    diameter: float,
) -> None:
    height, width = instances.shape
    long_axis = diameter / 2 * np.exp(rng.normal(0, 0.18))
    for _ in range(MAX_PLACEMENTS):
        if centres and rng.random() < 0.35:  # cells divide, so many nuclei have a close neighbour
            near = centres[rng.integers(len(centres))]
            angle = rng.uniform(0, 2 * np.pi)
            distance = 2.1 * long_axis
            row, column = near[0] + distance * np.sin(angle), near[1] + distance * np.cos(angle)
        else:
            row, column = rng.uniform(0, height), rng.uniform(0, width)
        reach = int(np.ceil(long_axis * 1.4)) + 1
        rows = np.arange(max(0, int(row) - reach), min(height, int(row) + reach + 1))
        columns = np.arange(max(0, int(column) - reach), min(width, int(column) + reach + 1))
        if not len(rows) or not len(columns):
            continue
        depth = _depth(rng, rows[:, None] - row, columns[None, :] - column, long_axis)
        inside = depth > 0
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        visible = inside & (instances[window] == 0)
        if visible.sum() < max(MIN_AREA, (1 - MAX_HIDDEN) * inside.sum()):
            continue
        centres.append((row, column))
        instances[window][visible] = len(centres)
        texture = 1 + 0.12 * _smooth(rng.standard_normal(depth.shape).astype(np.float32), 1.5) * 3
        brightness = np.exp(rng.normal(0, 0.4))
        light[window] += (brightness * texture * np.sqrt(depth.clip(0, 0.35) / 0.35)).astype(np.float32)
        return


def _depth(rng: np.random.Generator, down: np.ndarray, across: np.ndarray, long_axis: float) -> np.ndarray:
    """How deep each pixel lies in the nucleus: 1 in the centre, 0 on the outline, negative outside."""
    tilt = rng.uniform(0, np.pi)
    flatness = rng.uniform(0.62, 1.0)
    along = down * np.sin(tilt) + across * np.cos(tilt)
    aside = (down * np.cos(tilt) - across * np.sin(tilt)) / flatness
    angle = np.arctan2(aside, along)
    outline = np.ones_like(angle)
    for wave in (2, 3, 4):
        outline += rng.normal(0, 0.09 / wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    return 1 - np.hypot(along, aside) / (long_axis * outline)


def _expose(rng: np.random.Generator, light: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 as the camera records it: blur, uneven illumination, shot noise, read-out noise."""
    height, width = light.shape
    down, across = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    slope = rng.normal(0, 0.12, 2)
    illumination = 1 + slope[0] * down + slope[1] * across - 0.15 * (down**2 + across**2)
    haze = _smooth(light, 12.0) * 0.15
    scene = (_smooth(light, rng.uniform(0.7, 1.6)) + haze + rng.uniform(0.03, 0.15)) * illumination
    photons = rng.uniform(40, 400)
    noisy = rng.poisson(scene.clip(0) * photons) / photons + rng.normal(0, 0.01, scene.shape)
    gain = rng.uniform(0.3, 0.95) * 255 / max(np.percentile(scene, 99.5), 1e-3)
    grey = (noisy * gain).round().clip(0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur by two one-dimensional passes; the border is repeated."""
    reach = max(1, int(np.ceil(2.5 * sigma)))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2).astype(np.float32)
    kernel /= kernel.sum()
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (reach, reach)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, padding, mode="edge"), len(kernel), axis=axis)
        values = windows @ kernel
    return values


def _renumber(instances: np.ndarray) -> np.ndarray:
    """Consecutive numbers for the nuclei of which MIN_AREA pixels are visible; 0 for all others."""
    numbers, inverse, areas = np.unique(instances, return_inverse=True, return_counts=True)
    kept = (numbers > 0) & (areas >= MIN_AREA)
    renumbered = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return renumbered[inverse].reshape(instances.shape)
