"""From the pixel values an image file holds to 8-bit RGB."""

from __future__ import annotations

import numpy as np
from PIL import Image, TiffImagePlugin

_BITS_PER_SAMPLE = 258
_WITH_ALPHA = {"RGBA", "LA", "PA"}
_PREMULTIPLIED = {"RGBa": "RGBA", "La": "LA"}


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image in mode RGB.

    Transparent pixels (alpha, transparent palette entries, a transparent colour) are laid over white, as viewers show
    them. 16-bit samples keep their high byte, 12-bit samples their high 8 bits. 32-bit integers and floats have no
    fixed range, see `stretch`. CMYK and YCCK are converted without a profile, and ICC profiles of every kind are left
    aside: the numbers are taken as sRGB.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        high = np.asarray(image).astype(np.uint16) >> (_bits_per_sample(image) - 8)
        return Image.fromarray(np.minimum(high, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(stretch(np.asarray(image))).convert("RGB")
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        return _over_white(image.convert("RGBA"))
    return image.convert("RGB")


def stretch(values: np.ndarray) -> np.ndarray:
    """Samples without a fixed range (int32 or float32, any shape) as uint8 of the same shape.

    All within 0 … 1 (floats): times 255. All within 0 … 255: rounded. Integers within 0 … 65535: their high byte.
    Anything else: from its smallest to its largest value over 0 … 255. NaN and infinities become 0. Empty gives empty.
    """
    finite = np.isfinite(values)
    if not finite.all():
        values = np.where(finite, values, 0)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0, 0)
    is_float = np.issubdtype(values.dtype, np.floating)
    scaled = values.astype(np.float64)
    if is_float and low >= 0 and high <= 1:
        scaled *= 255
    elif low >= 0 and high <= 255:
        pass
    elif not is_float and low >= 0 and high <= 65535:
        return (values >> 8).astype(np.uint8)
    else:
        scaled = (scaled - float(low)) / (float(high) - float(low) or 1.0) * 255
    return np.where(finite, np.clip(np.rint(scaled), 0, 255), 0).astype(np.uint8)


def _over_white(image: Image.Image) -> Image.Image:
    alpha = image.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return image.convert("RGB")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image.convert("RGB"), mask=alpha)
    return canvas


def _bits_per_sample(image: Image.Image) -> int:
    """TIFF may hold 12-bit samples in 16-bit pixels."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 16
    bits = image.tag_v2.get(_BITS_PER_SAMPLE, (16,))
    first = bits[0] if isinstance(bits, tuple) else bits
    return first if first in (12, 16) else 16
