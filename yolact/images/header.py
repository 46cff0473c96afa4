"""Reads size, EXIF orientation and completeness of an image file from its first and last bytes, without decoding it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from yolact.images.decode import MAX_PIXELS
from yolact.images.errors import ImageError
from yolact.images.exif import orientation_of
from yolact.images.kinds import canvas_size, image_kind
from yolact.images.png import parse_png

#: bytes from the start of a file that hold the header of most images
HEAD_BYTES = 64 << 10
#: bytes from the end of a file that `ends_well` looks at
TAIL_BYTES = 1 << 10

_OPENERS: dict[str, Callable[[io.BytesIO], Image.Image]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}
_ORIENTATION = 0x0112
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
#: flag of a WebP file's first chunk
_WEBP_EXIF = 0x08
#: tags of offsets and lengths of the pixel data, in strips or in tiles
_TIFF_PIECES = ((273, 279), (324, 325))


@dataclass(frozen=True)
class ImageHeader:
    """The header of an image file."""

    kind: str
    """as `image_kind` names it"""
    height: int
    width: int
    """pixels as they are stored, before the EXIF turn"""
    orientation: int
    """EXIF's 1 to 8; 1 is upright"""
    data_end: int = 0
    """bytes that the file has at least, where the header says so; else 0"""

    @property
    def upright_size(self) -> tuple[int, int]:
        """(height, width) once the EXIF orientation is applied, as `decode_image` gives it."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def read_header(head: bytes) -> ImageHeader | None:
    """The header in the first bytes of a file.

    None where these bytes do not hold it: it is longer, damaged, or of a kind that only `decode_image` can judge.
    """
    kind = image_kind(head)
    if kind == "WEBP":
        return _webp_header(head)
    if kind not in _OPENERS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = _OPENERS[kind](io.BytesIO(head))
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                return _tiff_header(image)
            return ImageHeader(kind, image.height, image.width, orientation_of(image.info.get("exif") or b""))
    except Exception:  # decoders raise errors of any kind; whoever decodes the whole file says what is wrong
        return None


def stored_orientation(data: bytes) -> int | None:
    """The orientation, 1 to 8, that `decode_image` applies to a whole file; None where its header cannot be read."""
    if image_kind(data) == "PNG":  # EXIF data may stand behind the pixels
        try:
            return parse_png(data, MAX_PIXELS).orientation
        except ImageError:
            return None
    header = read_header(data)
    return None if header is None else header.orientation


def _webp_header(head: bytes) -> ImageHeader | None:
    """From the first chunk. A file with EXIF data, which stands at its end, must be in `head` as a whole."""
    size, data_end = canvas_size("WEBP", head), int.from_bytes(head[4:8], "little") + 8
    if size is None:
        return None
    orientation = 1
    if head[12:16] == b"VP8X" and head[20] & _WEBP_EXIF:
        place = head.rfind(b"EXIF")
        if len(head) < data_end or place < 0:
            return None
        length = int.from_bytes(head[place + 4 : place + 8], "little")
        orientation = orientation_of(head[place + 8 : place + 8 + length])
    return ImageHeader("WEBP", size[1], size[0], orientation, data_end)


def _tiff_header(image: TiffImagePlugin.TiffImageFile) -> ImageHeader:
    """From the tags, since Pillow's own size is turned already; the file ends behind its last strip or tile."""
    tags = image.tag_v2
    ends = [
        offset + length
        for offsets, lengths in _TIFF_PIECES
        if offsets in tags and lengths in tags
        for offset, length in zip(tags[offsets], tags[lengths], strict=False)
    ]
    stated = tags.get(_ORIENTATION, 1)
    orientation = stated if isinstance(stated, int) and 1 <= stated <= 8 else 1
    return ImageHeader("TIFF", int(tags[_TIFF_HEIGHT]), int(tags[_TIFF_WIDTH]), orientation, max(ends, default=0))


def ends_well(header: ImageHeader, tail: bytes, size: int) -> bool:
    """Whether a file ends as its kind should. Where it does not, only decoding tells whether pixels are missing.

    Args:
        header: of the file.
        tail: its last `TAIL_BYTES` bytes, or all of them.
        size: bytes of the whole file.
    """
    if size < header.data_end:
        return False
    match header.kind:
        case "JPEG":
            return b"\xff\xd9" in tail
        case "PNG":
            return b"IEND" in tail and b"eXIf" not in tail  # EXIF data may also stand behind the pixels
        case "GIF":
            return tail.rstrip(b"\0").endswith(b";")
        case "BMP":
            return False  # rows may be missing without a mark, and decoding a BMP costs little
    return True
