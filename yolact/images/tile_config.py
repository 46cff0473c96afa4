"""How large images are cut into tiles. Imports nothing heavy: command lines check their options with it."""

from __future__ import annotations

from dataclasses import dataclass

#: the smallest tile, in pixels: a smaller one has too few pixels to recognise an object in
SMALLEST_TILE = 32
#: with more than half of a tile in common, three tiles would see the same pixels along one side
LARGEST_OVERLAP = 0.5


@dataclass(frozen=True)
class TileConfig:
    """How an image that is larger than a tile is cut. Raises `ValueError` for values out of their range."""

    size: int
    """T, side of a tile in pixels of the image, at least 32. An image of at most T × T pixels is not cut."""
    overlap: float = 0.2
    """Share of a tile that it has in common with the next one, 0..0.5. It should be larger than the usual object: then
    nearly every object is whole in some tile. With 0, objects at the edge of a tile stay in pieces."""
    whole_image: bool = True
    """Also run the network on the whole image, resized as without tiles, for objects that are larger than a tile."""
    max_detections: int | None = None
    """Most detections of a tiled image; None for no limit. A tile has the limit of an image that is not cut."""

    def __post_init__(self) -> None:
        if self.size < SMALLEST_TILE:
            raise ValueError(f"the size of a tile must be at least {SMALLEST_TILE} pixels, not {self.size}")
        if not 0 <= self.overlap <= LARGEST_OVERLAP:
            raise ValueError(f"the overlap of tiles must lie in 0..{LARGEST_OVERLAP}, not {self.overlap}")
        if self.max_detections is not None and self.max_detections < 1:
            raise ValueError(f"max_detections of a tiled image must be at least 1, not {self.max_detections}")

    @property
    def stride(self) -> int:
        """Pixels from the beginning of a tile to that of the next one."""
        return self.size - round(self.size * self.overlap)

    def cuts(self, height: int, width: int) -> bool:
        """Whether an image of this size is cut."""
        return max(height, width) > self.size
