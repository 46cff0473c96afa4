"""Take the screenshot of the report page for README.md and docs/report.md.

python tests/support/take_screenshot.py demo/report.html docs/images/report.png
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from PIL import Image
from support.browser import open_browser


def main(page: str, screenshot: str) -> None:
    with open_browser(1400, 1050) as browser:
        browser.get(Path(page).resolve().as_uri())
        time.sleep(8)  # the page draws its images when the browser is idle
        browser.save_screenshot(screenshot)
    # 256 colours are enough, and the file is much smaller
    with Image.open(screenshot) as image:
        small = image.convert("RGB").quantize(256)
    small.save(screenshot, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
