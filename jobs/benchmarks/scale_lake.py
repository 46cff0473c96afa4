"""A lake of many small images, quickly: a few hundred encodings under as many names as asked for."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

#: different pictures in a lake of any size
ENCODINGS = 256
IMAGES_PER_SHARD = 1000


def draw_encodings(count: int = ENCODINGS, seed: int = 0) -> list[bytes]:
    """`count` JPEGs of 64 to 96 pixels a side, of ellipses on a gradient; the same for the same seed."""
    rng = np.random.default_rng(seed)
    encodings = []
    for _ in range(count):
        height, width = (int(side) for side in rng.integers(64, 97, 2))
        ramp = np.linspace(0, 120, width)[None, :, None] + rng.uniform(0, 60, (1, 1, 3))
        image = Image.fromarray(np.broadcast_to(ramp, (height, width, 3)).astype(np.uint8))
        draw = ImageDraw.Draw(image)
        for _ in range(int(rng.integers(1, 6))):
            x, y = rng.uniform(0, width), rng.uniform(0, height)
            a, b = rng.uniform(5, 20, 2)
            draw.ellipse((x - a, y - b, x + a, y + b), fill=tuple(int(c) for c in rng.integers(0, 255, 3)))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        encodings.append(file.getvalue())
    return encodings


def write_lake(folder: Path, images: int, *, images_per_shard: int = IMAGES_PER_SHARD, seed: int = 0) -> None:
    """Tar shards `shard-NNNNN.tar` of `images` images in all, each under a name of its own."""
    folder.mkdir(parents=True)
    encodings = draw_encodings(seed=seed)
    for shard, first in enumerate(range(0, images, images_per_shard)):
        with tarfile.open(folder / f"shard-{shard:05d}.tar", "w") as tar:
            for number in range(first, min(images, first + images_per_shard)):
                data = encodings[number % len(encodings)]
                info = tarfile.TarInfo(f"image-{number:08d}.jpg")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
