"""Converts the sample values of an image file to 8-bit RGB.

In samples of 8 bits and less, 0 is black and the largest possible value is white. In samples of 16 bits white is not
certain: cameras of 10, 12 or 14 bits store their values unchanged in 16-bit files, and the image would look black.
`significant_bits` has the rule.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from yolact.images.errors import ImageError

#: the bits that cameras and scanners have; 8 is for small values in files of larger samples
_USUAL_BITS = (8, 10, 12, 14, 16)
_EIGHT_BIT_MODES = {"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"}
_WITH_ALPHA = {"RGBA", "LA", "PA"}
_PREMULTIPLIED = {"RGBa": "RGBA", "La": "LA"}


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image with samples of 8 bits or less in mode RGB.

    Transparent pixels (alpha, transparent palette entries, a transparent colour) show white behind them, as in most
    viewers. CMYK and YCCK are converted without a profile. ICC profiles of every kind are ignored: the numbers are
    taken as sRGB.

    Raises:
        ImageError: unsupported, for other modes (Lab, 16 bits, floats).
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        return _over_white(image.convert("RGBA"))
    if image.mode not in _EIGHT_BIT_MODES:
        raise ImageError("unsupported", f"pixels of the kind {image.mode}, which is not read here")
    return image.convert("RGB")


def significant_bits(largest: int, stored_bits: int, declared_bits: int | None = None) -> int:
    """How many bits of integer samples carry the image: `value >> (bits - 8)` is its 8-bit value.

    Args:
        largest: the largest value of all colour samples of the image.
        stored_bits: the bits of a sample in the file. Below 16 these are the answer: the file says so itself.
        declared_bits: what else the file declares as its depth. It is ignored where `largest` does not fit.

    Returns:
        `declared_bits`; without them the smallest of 8, 10, 12, 14 and 16 bits that `largest` fits into.
    """
    if stored_bits < 16:
        return stored_bits
    if declared_bits is not None and largest < 2**declared_bits:
        return max(declared_bits, 8)
    return next((bits for bits in _USUAL_BITS if largest < 2**bits), stored_bits)


def samples_to_8_bits(
    samples: np.ndarray, *, declared_bits: int | None = None, declared_range: tuple[float, float] | None = None
) -> tuple[np.ndarray, int]:
    """Samples of more than 8 bits as 8-bit ones.

    Integers from 0 to 65,535 are shifted right by `significant_bits` − 8. Samples with a declared range within which
    they all lie are scaled from that range to 0 … 255. What else there is goes through `stretch`.

    Args:
        samples: colour samples of one image, any shape, integer or float of any size, not empty.
        declared_bits: the depth that the file declares.
        declared_range: the smallest and the largest value that the file declares.

    Returns:
        uint8 of the same shape, and the number of significant bits (8 where there is no such number).
    """
    finite = samples if samples.dtype.kind in "iu" else samples[np.isfinite(samples)]
    low, high = (finite.min(), finite.max()) if finite.size else (0, 0)
    if declared_range is not None:
        black, white = declared_range
        if black == 0 and white in (2**bits - 1 for bits in range(8, 17)):
            declared_bits = int(white).bit_length()
        elif black <= low and high <= white and black < white:
            scaled = (samples.astype(np.float64) - black) / (white - black) * 255
            return np.rint(np.nan_to_num(scaled, nan=0, posinf=0, neginf=0)).astype(np.uint8), 8
    if samples.dtype.kind in "iu" and samples.dtype.itemsize > 1 and low >= 0 and high <= 65535:
        bits = significant_bits(int(high), 16, declared_bits)
        return (samples >> (bits - 8)).astype(np.uint8), bits
    return stretch(samples), 8


def alpha_to_8_bits(alpha: np.ndarray, colour_bits: int) -> np.ndarray:
    """16-bit alpha as 8-bit alpha: by its full range, or by the colours' depth if its largest value is that depth's."""
    bits = colour_bits if int(alpha.max()) == 2**colour_bits - 1 else 16
    return (alpha >> (bits - 8)).astype(np.uint8)


def stretch(values: np.ndarray) -> np.ndarray:
    """Samples without a fixed range (integers or floats, any shape) as uint8 of the same shape.

    All within 0 … 1 (floats): times 255. All within 0 … 255: rounded. Anything else: from its smallest to its largest
    value over 0 … 255. NaN and infinities become 0. Empty gives empty.
    """
    finite = np.isfinite(values)
    if not finite.all():
        values = np.where(finite, values, 0)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0, 0)
    scaled = values.astype(np.float64)
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        scaled *= 255
    elif not (low >= 0 and high <= 255):
        # halves: the difference of two large floats may be no float any more
        scaled = (scaled / 2 - float(low) / 2) / (float(high) / 2 - float(low) / 2 or 1.0) * 255
    return np.where(finite, np.clip(np.rint(scaled), 0, 255), 0).astype(np.uint8)


def laid_over_white(rgb: np.ndarray, alpha: np.ndarray, *, premultiplied: bool = False) -> np.ndarray:
    """An image with transparency as viewers show it on a white page.

    Args:
        rgb: (height, width, 3) uint8.
        alpha: (height, width) uint8, 0 transparent and 255 opaque.
        premultiplied: the colours were multiplied by alpha already.

    Returns:
        (height, width, 3) uint8.
    """
    if alpha.min() == 255:
        return rgb
    if premultiplied:
        return np.minimum(rgb + (255 - alpha.astype(np.uint16))[..., None], 255).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(rgb)).convert("RGBA")
    image.putalpha(Image.fromarray(np.ascontiguousarray(alpha)))
    return np.asarray(_over_white(image))


def _over_white(image: Image.Image) -> Image.Image:
    alpha = image.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return image.convert("RGB")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image.convert("RGB"), mask=alpha)
    return canvas
