"""The errors of image decoding, with the statuses that stand in the label table."""

from __future__ import annotations

#: all that an `ImageError.status` can be, and what it means
IMAGE_STATUSES = {
    "undecodable": "no image, or one whose data is corrupt",
    "truncated": "an image that ends before its pixels do",
    "too_large": "more pixels or bytes than the limits allow",
    "unsupported": "an image of a kind, or with a kind of pixels, that is not read here",
}


class ImageError(ValueError):
    """An image that cannot be read: `status` is one of `IMAGE_STATUSES`, `reason` one short line for people."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"

    @classmethod
    def check_pixels(cls, width: int, height: int, max_pixels: int) -> None:
        """Raises `ImageError` for an image without pixels, or with more than `max_pixels`."""
        if width < 1 or height < 1:
            raise cls("undecodable", f"its header gives a size of {width} × {height} pixels")
        if width * height > max_pixels:
            raise cls("too_large", f"{width} × {height} pixels, {max_pixels} allowed")
