"""Take the picture of the report page that stands in the README and docs.

python tests/support/take_screenshot.py demo/report.html docs/images/report.png
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from PIL import Image
from support.browser import open_browser


def main(page: str, picture: str) -> None:
    with open_browser(1400, 1050) as browser:
        browser.get(Path(page).resolve().as_uri())
        time.sleep(8)  # pictures are drawn when the browser finds the time
        browser.save_screenshot(picture)
    # 256 colours are enough for a page, and a quarter of the bytes
    with Image.open(picture) as image:
        small = image.convert("RGB").quantize(256)
    small.save(picture, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
