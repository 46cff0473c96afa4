"""A headless Chromium for tests of the report page: Debian's `chromium` and `chromium-driver`, driven by Selenium."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

HOW_TO_GET_IT = "apt-get install chromium chromium-driver, and pip install selenium"


def why_no_browser() -> str | None:
    """What is missing and the command that installs it; None where the browser tests can run."""
    if importlib.util.find_spec("selenium") is None:
        return f"no Selenium: {HOW_TO_GET_IT}"
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        return f"no Chromium: {HOW_TO_GET_IT}"
    return None


@contextmanager
def open_browser(width: int = 1400, height: int = 1000) -> Iterator[Chrome]:
    """A browser window; skips the test with a message where there is no Chromium or no Selenium."""
    if missing := why_no_browser():
        pytest.skip(missing)
    from selenium import webdriver  # optional: only browser tests need it

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
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
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield browser
    finally:
        browser.quit()
