"""Recognises a file by its first bytes: a kind of image that can be decoded, or a name of what it is instead."""

from __future__ import annotations

import struct

#: the kinds that are read, by signature; WebP and the HEIF family have their letters further behind
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
#: files of boxes (ISO base media files) by the brands in their first box; the first line with one of the file's brands
#: names its kind
_BRANDS: tuple[tuple[tuple[bytes, ...], str], ...] = (
    ((b"avif", b"avis"), "AVIF"),
    ((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIC"),
)
_OTHER_BRANDS: tuple[tuple[tuple[bytes, ...], str], ...] = (
    ((b"mif1", b"msf1", b"mif2", b"mif3", b"miaf"), "a HEIF image that is neither HEIC nor AVIF"),
    ((b"crx ",), "a camera's raw file (Canon CR3)"),
    ((b"jp2 ", b"jpx ", b"jpm "), "a JPEG 2000 image"),
    ((b"jxl ",), "a JPEG XL image"),
    ((b"qt  ",), "a QuickTime video"),
)
#: images of kinds that are not read: (where the mark stands, the mark, what to call the file)
_OTHER_IMAGES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"II\xbc", "a JPEG XR image"),
    (0, b"\x97JB2\r\n\x1a\n", "a JBIG2 image"),
    (0, b"\x8aMNG\r\n\x1a\n", "an MNG animation"),
    (0, b"\x8bJNG\r\n\x1a\n", "a JNG image"),
    (0, b"\0\0\x01\0", "an icon"),
    (0, b"\0\0\x02\0", "a mouse pointer (CUR)"),
    (0, b"icns", "an icon of macOS"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"gimp xcf", "a GIMP file"),
    (0, b"qoif", "a QOI image"),
    (0, b"DDS ", "a DDS texture"),
    (0, b"\xabKTX ", "a KTX texture"),
    (0, b"\x13\xab\xa1\x5c", "an ASTC texture"),
    (0, b"farbfeld", "a farbfeld image"),
    (0, b"FLIF", "a FLIF image"),
    (0, b"BPG\xfb", "a BPG image"),
    (0, b"AT&TFORM", "a DjVu document"),
    (0, b"\x01\xda\x00", "an SGI image"),
    (0, b"\x01\xda\x01", "an SGI image"),
    (0, b"\x59\xa6\x6a\x95", "a Sun raster image"),
    (0, b"FORM", "an IFF image"),
    (0, b"#?RADIANCE", "a Radiance HDR image"),
    (0, b"#?RGBE", "a Radiance HDR image"),
    (0, b"/* XPM */", "an XPM image"),
    (0, b"#define ", "an XBM image"),
    (0, b"\xd7\xcd\xc6\x9a", "a Windows metafile"),
    (40, b" EMF", "a Windows metafile (EMF)"),
    (0, b"BLP1", "a BLP texture"),
    (0, b"BLP2", "a BLP texture"),
    (0, b"FTEX", "an FTEX texture"),
    (0, b"GRIB", "a GRIB file"),
    (0, b"BUFR", "a BUFR file"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (0, b"SIMPLE  =", "a FITS image"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"CDF\x01", "a NetCDF file"),
    (0, b"ZISRAWFILE", "a Zeiss CZI file"),
    (0, b"\xda\xce\xbe\x0a", "a Nikon ND2 file"),
    (208, b"MAP ", "an MRC image"),
    (344, b"n+1\0", "a NIfTI image"),
    (128, b"DICM", "a DICOM image"),
    (0, b"IIU\0", "a camera's raw file (Panasonic RW2)"),
    (0, b"IIRO", "a camera's raw file (Olympus ORF)"),
    (0, b"IIRS", "a camera's raw file (Olympus ORF)"),
    (0, b"MMOR", "a camera's raw file (Olympus ORF)"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file (Fujifilm RAF)"),
    (0, b"FOVb", "a camera's raw file (Sigma X3F)"),
    (0, b"\0MRM", "a camera's raw file (Minolta MRW)"),
    (6, b"HEAPCCDR", "a camera's raw file (Canon CRW)"),
    (4, b"\x11\xaf", "an FLI animation"),
    (4, b"\x12\xaf", "an FLC animation"),
)
#: the Netpbm family: one letter and a digit, then white space
_NETPBM = {
    b"P1": "a PBM image",
    b"P2": "a PGM image",
    b"P3": "a PPM image",
    b"P4": "a PBM image",
    b"P5": "a PGM image",
    b"P6": "a PPM image",
    b"P7": "a PAM image",
    b"PF": "a PFM image",
    b"Pf": "a PFM image",
}
_NO_IMAGES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"PK\x05\x06", "a zip archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"\x1f\x8b", "gzip-compressed"),
    (0, b"BZh", "bzip2-compressed"),
    (0, b"\xfd7zXZ\0", "xz-compressed"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed"),
    (0, b"%PDF", "a PDF document"),
    (257, b"ustar", "a tar archive"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript document"),
    (0, b"PAR1", "a Parquet file"),
    (4, b"ftyp", "a video (MP4)"),
    (8, b"AVI ", "a video (AVI)"),
    (0, b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)"),
    (0, b"\0\0\x01\xba", "a video (MPEG)"),
    (0, b"\0\0\x01\xb3", "a video (MPEG)"),
    (0, b"\x7fELF", "a program"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Microsoft Office or OLE file"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"version https://git-lfs", "a pointer of Git LFS: the file itself was not fetched"),
)
_MARKUP: tuple[tuple[bytes, str], ...] = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML document"),
)


def image_kind(data: bytes) -> str | None:
    """ "JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF" or "HEIC"; None for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return _of_brands(data, _BRANDS)
    return next((kind for signature, kind in _SIGNATURES if data.startswith(signature)), None)


def other_image_kind(data: bytes) -> str | None:
    """ "a JPEG XL image" and the like for images that are not read here; None for anything else."""
    if data[4:8] == b"ftyp":
        return _of_brands(data, _OTHER_BRANDS)
    if data[2:3].isspace() and data[:2] in _NETPBM:
        return _NETPBM[data[:2]]
    if _looks_like_tga(data):
        return "a TGA image"
    name = next((name for offset, mark, name in _OTHER_IMAGES if data.startswith(mark, offset)), None)
    if name is None and data[-18:] == b"TRUEVISION-XFILE.\0":
        return "a TGA image"
    if name is None and data[:1] == b"\n" and data[1:2] in b"\0\2\3\4\5" and data[2:3] == b"\1" and len(data) > 128:
        return "a PCX image"
    return name


def _looks_like_tga(data: bytes) -> bool:
    """Whether all fields of a TGA header have a value that TGA knows; it has no mark at its beginning."""
    if len(data) < 19 or data[1] > 1 or data[2] not in (1, 2, 3, 9, 10, 11):
        return False
    if data[1] == 0 and any(data[3:8]):  # as in mouse pointers
        return False
    palette_fits = (data[1] == 1 and data[7] in (15, 16, 24, 32)) if data[2] in (1, 9) else True
    width, height = struct.unpack_from("<HH", data, 12)
    return palette_fits and width > 0 < height and data[16] in (8, 15, 16, 24, 32) and data[17] & 0xC0 == 0


def _of_brands(data: bytes, names: tuple[tuple[tuple[bytes, ...], str], ...]) -> str | None:
    """By the major brand, then by the compatible ones; the minor version between them is no brand."""
    end = min(int.from_bytes(data[:4], "big"), len(data), 512)
    brands = [data[8:12], *(data[place : place + 4] for place in range(16, end - 3, 4))]
    return next((name for marks, name in names if any(brand in marks for brand in brands)), None)


def describe_no_image(data: bytes) -> str:
    """What to call bytes that are no image: "an HTML page", "a zip archive", "text", "zero bytes only" …"""
    for offset, mark, name in _NO_IMAGES:
        if data.startswith(mark, offset):
            return name
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for mark, name in _MARKUP:
        if head.startswith(mark):
            return name
    if not any(data):
        return "zero bytes only"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in data[:512]):
        return "text"
    return "of no known kind"


def canvas_size(kind: str, data: bytes) -> tuple[int, int] | None:
    """(width, height) as the header of a WebP or GIF file has it: their decoders allocate memory at once.

    None for other kinds, and where the header is cut short.
    """
    if kind == "GIF" and len(data) >= 10:
        width, height = struct.unpack_from("<HH", data, 6)
        return width, height
    if kind == "WEBP" and len(data) >= 30:
        return _webp_size(data)
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L" and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def is_cut_short(kind: str, data: bytes) -> bool:
    """Whether a file ends before the length that its header gives, for kinds whose decoder does not say so."""
    if kind == "WEBP":
        return len(data) >= 8 and int.from_bytes(data[4:8], "little") + 8 > len(data)
    return kind in ("AVIF", "HEIC") and _ends_within_a_box(data)


def _ends_within_a_box(data: bytes) -> bool:
    place = 0
    while place + 8 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        if size == 1:  # the length is in 8 bytes behind the name
            size = int.from_bytes(data[place + 8 : place + 16], "big")
        if size < 8:  # 0: up to the end of the file; anything else is for the decoder to judge
            return False
        place += size
    return place > len(data)
