"""Label tables with images for tests of the report, and the data in the report page."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
from PIL import Image
from support.lakes import draw_images, write_files
from support.tables import instance, row

HOSTILE = '</script><img src=x onerror="window.hacked=1"><svg onload=window.hacked=1>\'"`${1}.jpg'


def rows_with_images(folder: Path, count: int, names: list[str] | None = None) -> list[dict]:
    """Rows of images on the local disk, with one or two instances each; `names` replaces the file names."""
    images = draw_images(count)
    if names:
        images = dict(zip(names, images.values(), strict=False))
    write_files(str(folder), images)
    rng = np.random.default_rng(1)
    rows = []
    for name, data in images.items():
        width, height = Image.open(io.BytesIO(data)).size
        y, x = np.mgrid[:height, :width]
        found = []
        for label in range(int(rng.integers(1, 3))):
            mask = (y - height / 2) ** 2 + (x - width * (label + 1) / 3) ** 2 < (height / 4) ** 2
            found.append(instance(mask, label, float(rng.uniform(0.2, 1))))
        rows.append(row(str(folder / name), (height, width), found))
    return rows


def page_data(page: Path) -> dict:
    [text] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S)
    return json.loads(text)
