"""Encoded bytes → RGB pixels: the one decoder for labelling, training, evaluation and the notebook.

JPEG, PNG, WebP, BMP, TIFF, GIF and AVIF are read, and HEIC where the extra `heif` is installed; of several frames or
pages the first. The first bytes tell the kind, the name does not matter, and only that kind's decoder is
called: the many other decoders of Pillow cannot be reached.
"""

from __future__ import annotations

import functools
import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
from PIL import AvifImagePlugin, GifImagePlugin, Image, WebPImagePlugin

from yolact.images.bmp import read_bmp
from yolact.images.errors import IMAGE_STATUSES, ImageError
from yolact.images.exif import orientation_of, upright
from yolact.images.jpeg import read_jpeg
from yolact.images.kinds import canvas_size, describe_no_image, image_kind, is_cut_short, other_image_kind
from yolact.images.png import read_png
from yolact.images.tiff import read_tiff
from yolact.images.values import to_rgb

__all__ = ["IMAGE_STATUSES", "MAX_BYTES", "MAX_PIXELS", "ImageError", "decode_image"]

#: by default an image may have this many pixels (height × width), and its file this many bytes
MAX_PIXELS = 178_956_970
MAX_BYTES = 256 << 20

_TRUNCATED = re.compile(r"truncated|end of (data|file)|unexpected eof", re.IGNORECASE)
_UNSUPPORTED = re.compile(
    r"cannot handle|unsupported|not supported|unknown (pixel mode|data organization)|not available", re.IGNORECASE
)
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")
_warnings_lock = threading.Lock()


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """The first frame of an encoded image as H × W × 3 uint8 RGB, upright (EXIF orientation applied), writable.

    How samples that are not 8-bit RGB become it is told by `yolact.images.values`. Broken EXIF data is ignored.
    Sizes are checked against `max_pixels` on the header, before pixels are allocated.

    Raises:
        ImageError: if anything is wrong with `data`, also if only its end is missing.
    """
    kind = _kind_within_limits(data, max_pixels, max_bytes)
    try:
        pixels, orientation = _READERS[kind](data, max_pixels)
    except ImageError:
        raise
    except (MemoryError, Image.DecompressionBombError):
        raise ImageError("too_large", f"its {kind} decoder asks for too much memory") from None
    except Exception as error:  # decoders raise exceptions of every type
        raise _decoder_error(kind, error) from None
    return _writable(upright(pixels, orientation))


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
        ImageError.check_pixels(*size, max_pixels)
    if is_cut_short(kind, data):
        raise ImageError("truncated", f"the {kind} file is shorter than its header says")
    return kind


def _writable(pixels: np.ndarray) -> np.ndarray:
    """Contiguous and writable; copied only where it is not yet."""
    if pixels.flags.c_contiguous and pixels.flags.writeable:
        return pixels
    return np.array(pixels, order="C")


# ---- the readers: (bytes, most pixels) to pixels as they are stored and the orientation that makes them upright


def _read_bmp(data: bytes, max_pixels: int) -> tuple[np.ndarray, int]:
    return read_bmp(data, max_pixels), 1


def _read_tiff(data: bytes, max_pixels: int) -> tuple[np.ndarray, int]:
    with _without_warnings():
        return read_tiff(data, max_pixels)


def _read_gif(data: bytes, max_pixels: int) -> tuple[np.ndarray, int]:
    with _without_warnings():
        image = GifImagePlugin.GifImageFile(io.BytesIO(data))
        ImageError.check_pixels(image.width, image.height, max_pixels)
        frames = [tile.extents for tile in image.tile]
        image.load()
    pixels = np.asarray(to_rgb(image))
    if frames and frames[0] is not None and frames[0] != (0, 0, image.width, image.height):
        # browsers leave what the first frame does not cover transparent; Pillow gives it the background colour
        left, top, right, bottom = frames[0]
        canvas = np.full_like(pixels, 255)
        canvas[top:bottom, left:right] = pixels[top:bottom, left:right]
        pixels = canvas
    return pixels, 1


def _read_webp(data: bytes, max_pixels: int) -> tuple[np.ndarray, int]:
    image = WebPImagePlugin.WebPImageFile(io.BytesIO(data))
    ImageError.check_pixels(image.width, image.height, max_pixels)
    image.load()
    return np.asarray(to_rgb(image)), orientation_of(image.info.get("exif") or b"")


def _read_avif(data: bytes, max_pixels: int) -> tuple[np.ndarray, int]:
    with _without_warnings():
        image = AvifImagePlugin.AvifImageFile(io.BytesIO(data))
        ImageError.check_pixels(image.width, image.height, max_pixels)
        image.load()
    # Pillow states the turns of the AVIF container as an orientation
    return np.asarray(to_rgb(image)), orientation_of(image.info.get("exif") or b"")


def _read_heic(data: bytes, max_pixels: int) -> tuple[np.ndarray, int]:
    pillow_heif = _heif_library()
    if pillow_heif is None:
        raise ImageError("unsupported", "the file is a HEIC image, which is read once the extra `heif` is installed")
    with _without_warnings():
        image = pillow_heif.open_heif(data, convert_hdr_to_8bit=True)
        width, height = image.size
        ImageError.check_pixels(width, height, max_pixels)
        # libheif has turned the pixels already
        return np.asarray(to_rgb(image.to_pillow())), 1


@functools.cache
def _heif_library() -> ModuleType | None:
    """Optional: its wheels contain code under the GPL and the LGPL."""
    try:
        import pillow_heif  # of the extra [heif]
    except ImportError:
        return None
    pillow_heif.options.THUMBNAILS = False
    return pillow_heif


_READERS: dict[str, Callable[[bytes, int], tuple[np.ndarray, int]]] = {
    "JPEG": read_jpeg,
    "PNG": read_png,
    "GIF": _read_gif,
    "BMP": _read_bmp,
    "TIFF": _read_tiff,
    "WEBP": _read_webp,
    "AVIF": _read_avif,
    "HEIC": _read_heic,
}


def _decoder_error(kind: str, error: Exception) -> ImageError:
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
