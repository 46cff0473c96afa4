"""Encoded bytes → RGB pixels: the one decoder for labelling, training, evaluation and the notebook.

JPEG, PNG, WebP, BMP, TIFF and GIF are read, the first frame of animations. Nothing else can be reached: the kind is
told by the first bytes, whatever the name, and only that kind's decoder is called.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from yolact.images.kinds import canvas_size, describe_no_image, image_kind, is_cut_short, other_image_kind
from yolact.images.values import to_rgb

#: all that an `ImageError.status` can be, and what it means
IMAGE_STATUSES = {
    "undecodable": "no image, or one whose data is corrupt",
    "truncated": "an image that ends before its pixels do",
    "too_large": "more pixels or bytes than the limits allow",
    "unsupported": "an image of a kind, or with a kind of pixels, that is not read here",
}

#: by default an image may have this many pixels (height × width), and its file this many bytes
MAX_PIXELS = 178_956_970
MAX_BYTES = 256 << 20

_DECODERS: dict[str, Callable[[io.BytesIO], Image.Image]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TRUNCATED = re.compile(r"truncated|end of (data|file)|unexpected eof", re.IGNORECASE)
_UNSUPPORTED = re.compile(
    r"cannot handle|unsupported|not supported|unknown (pixel mode|data organization)|not available", re.IGNORECASE
)
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")
_warnings_lock = threading.Lock()


class ImageError(ValueError):
    """An image that cannot be had: `status` is one of `IMAGE_STATUSES`, `reason` one short line for people."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """The first frame of an encoded image as H × W × 3 uint8 RGB, upright (EXIF orientation applied), writable.

    How other pixels than 8-bit RGB are brought there says `yolact.pixel_values.to_rgb`. Broken EXIF data is passed
    over. Sizes are checked against `max_pixels` on the header, before pixels are allocated.

    Raises:
        ImageError: for whatever is wrong with `data`; also where the end is missing, however much came before it.
    """
    kind = _kind_within_limits(data, max_pixels, max_bytes)
    try:
        with _without_warnings():
            image = _DECODERS[kind](io.BytesIO(data))
        _check_pixels(image.width, image.height, max_pixels)
        return np.array(_upright_rgb(kind, data, image))
    except ImageError:
        raise
    except (MemoryError, Image.DecompressionBombError):
        raise ImageError("too_large", f"its {kind} decoder asks for too much memory") from None
    except Exception as error:  # decoders raise whatever comes to hand
        raise _decoder_error(kind, data, error) from None


def _kind_within_limits(data: bytes, max_pixels: int, max_bytes: int) -> str:
    if not data:
        raise ImageError("undecodable", "the file is empty")
    if len(data) > max_bytes:
        raise ImageError("too_large", f"{len(data)} bytes, {max_bytes} allowed")
    kind = image_kind(data)
    if kind is None:
        if (name := other_image_kind(data)) is not None:
            raise ImageError("unsupported", f"the file is {name}")
        raise ImageError("undecodable", f"no image: the file is {describe_no_image(data)}")
    size = canvas_size(kind, data)
    if size is not None:
        _check_pixels(*size, max_pixels)
    if is_cut_short(kind, data):
        raise ImageError("truncated", f"the {kind} file is shorter than its header says")
    return kind


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError("undecodable", f"its header gives a size of {width} × {height} pixels")
    if width * height > max_pixels:
        raise ImageError("too_large", f"{width} × {height} pixels, {max_pixels} allowed")


def _upright_rgb(kind: str, data: bytes, image: Image.Image) -> np.ndarray:
    """Loads the pixels; TIFF and animation decoders warn while they do, and TIFF's turns the image itself."""
    if kind in ("TIFF", "GIF") or (kind == "PNG" and b"acTL" in data):
        with _without_warnings():
            image.load()
    else:
        image.load()
    turn = None if kind == "TIFF" else _TURNS.get(_orientation(image))
    rgb = to_rgb(image)
    return np.asarray(rgb if turn is None else rgb.transpose(turn))


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1 where there is no EXIF data, or none that can be read."""
    try:
        with _without_warnings():
            value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # EXIF is written by every camera and editor in its own way
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def _decoder_error(kind: str, data: bytes, error: Exception) -> ImageError:
    text = _ADDRESS.sub("…", str(error))
    if not isinstance(error, OSError | SyntaxError) or not text:  # a bare "273" says nothing without its KeyError
        text = f"{type(error).__name__} {text}"
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]
    if _TRUNCATED.search(line):
        return ImageError("truncated", f"the {kind} file ends before its last pixel ({line})")
    if _UNSUPPORTED.search(line):
        return ImageError("unsupported", f"a {kind} file of a sort that is not read ({line})")
    return ImageError("undecodable", f"corrupt {kind} data ({line})")


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Filters are process-wide and restored at the end, so threads take turns."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
