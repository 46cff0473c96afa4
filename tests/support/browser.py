"""A headless Chromium for tests of the report page: Debian's `chromium` and `chromium-driver`, driven by Selenium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

HOW_TO_GET_IT = "apt-get install chromium chromium-driver, and pip install selenium"


@contextmanager
def open_browser(width: int = 1400, height: int = 1000) -> Iterator[Chrome]:
    """A browser window; skips the test with a message where there is no Chromium or no Selenium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason=f"no selenium: {HOW_TO_GET_IT}")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip(f"no Chromium: {HOW_TO_GET_IT}")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        f"--window-size={width},{height}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()
