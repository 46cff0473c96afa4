"""Size, EXIF turn and completeness of an image file, from its first and last bytes, without decoding it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from yolact.images.kinds import image_kind

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
    "WEBP": WebPImagePlugin.WebPImageFile,
}
_ORIENTATION = 0x0112
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
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
    if kind not in _OPENERS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = _OPENERS[kind](io.BytesIO(head))
            orientation = image.getexif().get(_ORIENTATION, 1)
            width, height, data_end = image.width, image.height, 0
            if isinstance(image, TiffImagePlugin.TiffImageFile):  # its own size is turned already
                width, height, data_end = _tiff_layout(image)
    except Exception:  # decoders raise whatever comes to hand; whoever decodes the whole file says what is wrong
        return None
    if kind == "WEBP":
        data_end = int.from_bytes(head[4:8], "little") + 8
    if not isinstance(orientation, int) or not 1 <= orientation <= 8:
        orientation = 1
    return ImageHeader(kind, height, width, orientation, data_end)


def _tiff_layout(image: TiffImagePlugin.TiffImageFile) -> tuple[int, int, int]:
    """Stored width and height, and the end of the last strip or tile."""
    tags = image.tag_v2
    ends = [
        offset + length
        for offsets, lengths in _TIFF_PIECES
        if offsets in tags and lengths in tags
        for offset, length in zip(tags[offsets], tags[lengths], strict=False)
    ]
    return int(tags[_TIFF_WIDTH]), int(tags[_TIFF_HEIGHT]), max(ends, default=0)


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
            return b"IEND" in tail
        case "GIF":
            return tail.rstrip(b"\0").endswith(b";")
        case "BMP":
            return False  # rows may be missing without a mark, and decoding a BMP costs little
    return True
