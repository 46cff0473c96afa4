"""BMP of Windows and OS/2: depths, masks, palettes, run lengths, rows in either order."""

from __future__ import annotations

import numpy as np
import pytest
from support.image_files import bmp

from yolact.images.decode import ImageError, decode_image

HEIGHT, WIDTH = 7, 11


def sample_pixels(channels: int = 3, largest: int = 255) -> np.ndarray:
    y, x, c = np.mgrid[0:HEIGHT, 0:WIDTH, 0:channels]
    return (x * 37 + y * 91 + c * 57) % (largest + 1)


def fields(values: np.ndarray, masks: tuple[int, ...], bits: int) -> np.ndarray:
    """(height, bytes of a row): the channels put where the masks say."""
    numbers = np.zeros(values.shape[:2], np.uint64)
    for channel, mask in enumerate(masks):
        shift = np.uint64((mask & -mask).bit_length() - 1)
        numbers |= values[..., channel].astype(np.uint64) << shift
    return numbers.astype(f"<u{bits // 8}").view(np.uint8).reshape(len(values), -1)


def refused(data: bytes) -> tuple[str, str]:
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    return caught.value.status, caught.value.reason


@pytest.mark.parametrize("header_bytes", [12, 16, 40, 52, 56, 64, 108, 124])
@pytest.mark.parametrize("top_down", [False, True])
def test_true_colour(header_bytes, top_down):
    if header_bytes == 12 and top_down:
        pytest.skip("its height has no sign")
    values = sample_pixels().astype(np.uint8)
    rows = values[..., ::-1].reshape(HEIGHT, -1)
    data = bmp(rows, width=WIDTH, bits=24, header_bytes=header_bytes, top_down=top_down)
    assert np.array_equal(decode_image(data), values)
    rows = np.dstack([values[..., ::-1], np.full((HEIGHT, WIDTH), 7, np.uint8)]).reshape(HEIGHT, -1)
    data = bmp(rows, width=WIDTH, bits=32, header_bytes=header_bytes, top_down=top_down)
    assert np.array_equal(decode_image(data), values)


@pytest.mark.parametrize("header_bytes", [12, 40, 124])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("colours", ["random", "grey ramp", "few"])
def test_palettes(bits, header_bytes, colours):
    number = 2**bits if colours != "few" else 2 ** (bits - 1) + 1
    palette = np.random.default_rng(bits).integers(0, 256, (number, 3))
    if colours == "grey ramp":
        palette = np.arange(number)[:, None].repeat(3, axis=1)
    values = sample_pixels(1, number - 1)[..., 0]
    each_bit = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(each_bit.reshape(HEIGHT, -1).astype(np.uint8), axis=1)
    entries = [tuple(int(value) for value in colour) for colour in palette]
    data = bmp(rows, width=WIDTH, bits=bits, header_bytes=header_bytes, palette=entries)
    assert np.array_equal(decode_image(data), palette[values])


@pytest.mark.parametrize("header_bytes", [40, 56, 124])
@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        (16, (0xF800, 0x7E0, 0x1F)),
        (16, (0x7C00, 0x3E0, 0x1F)),
        (16, (0xF00, 0xF0, 0xF)),
        (32, (0xFF0000, 0xFF00, 0xFF)),
        (32, (0xFF, 0xFF00, 0xFF0000)),
        (32, (0xFF000000, 0xFF0000, 0xFF00)),
        (32, (0x3FF00000, 0xFFC00, 0x3FF)),
    ],
)
def test_colour_masks(bits, masks, header_bytes):
    largest = np.array([mask // (mask & -mask) for mask in masks])
    values = sample_pixels(3, 1023) % (largest + 1)
    data = bmp(
        fields(values, masks, bits), width=WIDTH, bits=bits, header_bytes=header_bytes, compression=3, masks=masks
    )
    expected = np.where(largest > 255, values >> 2, np.rint(values * 255 / largest))
    assert np.array_equal(decode_image(data), expected)


@pytest.mark.parametrize("header_bytes", [56, 108, 124])
def test_an_alpha_mask_without_any_alpha_is_opaque(header_bytes):
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    values = sample_pixels(4)
    values[..., 3] = 0
    options = {"width": WIDTH, "bits": 32, "header_bytes": header_bytes, "compression": 3, "masks": masks}
    assert np.array_equal(decode_image(bmp(fields(values, masks, 32), **options)), values[..., :3])
    values[..., 3] = sample_pixels(1)[..., 0]
    alpha = values[..., 3:] / 255
    shown = decode_image(bmp(fields(values, masks, 32), **options)).astype(float)
    assert np.abs(shown - (values[..., :3] * alpha + 255 * (1 - alpha))).max() <= 1


@pytest.mark.parametrize("bits", [4, 8])
def test_run_lengths(bits):
    palette = [(number * 13 % 256, 200 - number * 7, number) for number in range(16)]
    indices = np.array([[1, 1, 1, 2, 3, 4, 5, 5], [6, 6, 6, 6, 7, 8, 7, 8]])
    if bits == 8:  # the lowest row first: a run, bytes as they are, the end of the row
        stream = [4, 6, 0, 4, 7, 8, 7, 8, 0, 0, 3, 1, 0, 3, 2, 3, 4, 0, 2, 5, 0, 0, 0, 1]
    else:
        stream = [4, 0x66, 0, 4, 0x78, 0x78, 0, 0, 3, 0x11, 0, 3, 0x23, 0x40, 2, 0x55, 0, 0, 0, 1]
    data = bmp(
        np.array(stream, np.uint8), width=8, bits=bits, compression=3 - bits // 4, palette=palette, colours_used=2
    )
    assert np.array_equal(decode_image(data), np.array(palette)[indices])


@pytest.mark.parametrize("bits", [4, 8])
def test_run_lengths_with_steps_that_end_early(bits):
    """Pixels without a code have the index 0, as OpenCV has it."""
    palette = [(10, 20, 30), (1, 1, 1), (2, 2, 2), *[(0, 0, 0)] * 13]
    run = 1 if bits == 8 else 0x11
    stream = [2, run, 0, 2, 1, 1, 3, run + run, 0, 1]  # two of 1, a step right and up, three of 2, the end
    data = bmp(
        np.array(stream, np.uint8), width=8, bits=bits, compression=3 - bits // 4, palette=palette, colours_used=3
    )
    indices = np.zeros((3, 8), int)
    indices[2, :2], indices[1, 3:6] = 1, 2
    assert np.array_equal(decode_image(data), np.array(palette)[indices])
    place = data.index(bytes(stream))
    assert refused(data[: place + 7])[0] == "truncated"
    overlong = data[:place] + bytes([255, run] * 3 + [0, 1])  # runs beyond the end of the row
    assert decode_image(overlong).shape == (3, 8, 3)


def test_other_kinds_are_named():
    rows = sample_pixels().astype(np.uint8)[..., ::-1].reshape(HEIGHT, -1)
    for compression, name in ((4, "JPEG"), (5, "PNG"), (11, "CMYK"), (77, "77")):
        status, reason = refused(bmp(rows, width=WIDTH, bits=24, compression=compression))
        assert status == "unsupported"
        assert name in reason
    status, reason = refused(bmp(rows, width=WIDTH, bits=0, compression=5))
    assert (status, "PNG" in reason) == ("unsupported", True)
    status, reason = refused(bmp(rows, width=WIDTH, bits=24, header_bytes=64, compression=4))
    assert (status, "OS/2" in reason) == ("unsupported", True)
    masks = (0xF0F00000, 0xFF00, 0xFF)
    status, reason = refused(bmp(rows, width=WIDTH // 2, bits=32, compression=3, masks=masks))
    assert (status, "mask" in reason) == ("unsupported", True)


def test_ends_early():
    data = bmp(sample_pixels().astype(np.uint8).reshape(HEIGHT, -1), width=WIDTH, bits=24)
    assert refused(data[:-1])[0] == "truncated"
    assert refused(data[:30])[0] == "truncated"
    assert refused(data[:8])[0] == "truncated"
