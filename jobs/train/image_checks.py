"""Compares image files with their annotations before training starts, by the first and last bytes of each file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from jobs import storage
from yolact.coco.annotations import AnnotatedImage, AnnotatedImages, AnnotationProblem
from yolact.images.decode import ImageError, decode_image
from yolact.images.header import HEAD_BYTES, TAIL_BYTES, ImageHeader, ends_well, read_header

_THREADS = 16
#: images read ahead of the check, at two requests each
_BATCH = 256
_LINE_SECONDS = 10.0


@dataclass(frozen=True)
class FileEnds:
    """The first and last bytes of a file; a small file may be all in `head`."""

    uri: str
    size: int
    head: bytes
    tail: bytes

    def whole(self) -> bytes:
        return self.head if len(self.head) == self.size else storage.read_bytes(self.uri)


def check_images(
    data: AnnotatedImages,
    known: Sequence[AnnotationProblem],
    files: Mapping[str, storage.ObjectInfo],
    name: str,
) -> list[AnnotationProblem]:
    """Compare image files with what the annotations say about them.

    This finds files that are cut off, files that are no image, and images of another size. A file is decoded only if
    its first and last bytes are not enough.

    Args:
        data: with file names as paths below the folder.
        known: problems found already; images that they name are not looked at.
        files: listing of that folder, by these paths.
        name: of the data set, for messages.

    Returns:
        A problem for each image that does not fit.

    Raises:
        TransientStorageError: if the store does not answer.
    """
    broken = {problem.image_id for problem in known if problem.annotation_id is None}
    images = [image for image in data.images if image.image_id not in broken]
    problems: list[AnnotationProblem] = []
    turned = 0
    started = last_line = time.monotonic()
    for number, (image, ends) in enumerate(_read_ends(images, files), start=1):
        found = f"cannot be read: {ends}" if isinstance(ends, storage.StorageError) else _fault(image, ends)
        if isinstance(found, str):
            problems.append(AnnotationProblem("image file", found, image.image_id))
        elif found is not None:
            turned += found.orientation > 1
        if time.monotonic() - last_line > _LINE_SECONDS:
            last_line = time.monotonic()
            rate = number / (last_line - started)
            print(f"{name}: {number:,} of {len(images):,} image files checked, {rate:.0f}/s", file=sys.stderr)
    if turned:
        print(
            f"{name}: {turned} images are turned or mirrored by EXIF; their annotations are taken to be of the "
            "upright image",
            file=sys.stderr,
        )
    return problems


def _read_ends(
    images: Sequence[AnnotatedImage], files: Mapping[str, storage.ObjectInfo]
) -> Iterator[tuple[AnnotatedImage, FileEnds | storage.StorageError]]:
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            yield from zip(batch, pool.map(_file_ends, [files[image.file_name] for image in batch]), strict=True)


def _file_ends(file: storage.ObjectInfo) -> FileEnds | storage.StorageError:
    try:
        if file.size <= HEAD_BYTES + TAIL_BYTES:
            data = storage.read_bytes(file.uri)
            return FileEnds(file.uri, len(data), data, data[-TAIL_BYTES:])
        head = storage.read_range(file.uri, 0, HEAD_BYTES)
        return FileEnds(file.uri, file.size, head, storage.read_range(file.uri, file.size - TAIL_BYTES, TAIL_BYTES))
    except storage.TransientStorageError:
        raise
    except storage.StorageError as error:
        return error


def _fault(image: AnnotatedImage, ends: FileEnds) -> str | ImageHeader | None:
    """What is wrong with a file, in words; else its header, or None if only decoding gave its size."""
    header = read_header(ends.head)
    if header is None or not ends_well(header, ends.tail, ends.size):
        try:
            data = ends.whole()
            height, width = decode_image(data).shape[:2]
        except (ImageError, storage.ObjectMissingError, storage.ObjectChangedError) as error:
            return f"has a file {image.file_name!r} that cannot be used: {error}"
        header = header or read_header(data)
    else:
        height, width = header.upright_size
    if (height, width) == (image.height, image.width):
        return header
    says = f"has a file {image.file_name!r} of {width}×{height} px, but is annotated as {image.width}×{image.height}"
    if header is not None and header.orientation >= 5 and (height, width) == (image.width, image.height):
        says += (
            f": that is the frame before its EXIF orientation {header.orientation} is applied; "
            "turn the file's pixels, or annotate the upright image"
        )
    return says
