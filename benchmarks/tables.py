"""Takes a measured table over into a page of docs/: between two comments that bear the table's name."""

from __future__ import annotations

import re
from pathlib import Path


def put_into_page(page: Path, name: str, table: str) -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- /NAME -->`. Raises `ValueError` where they are missing."""
    text = page.read_text()
    found = re.compile(rf"(?<=<!-- {re.escape(name)} -->\n).*?(?=<!-- /{re.escape(name)} -->)", re.S)
    if not found.search(text):
        raise ValueError(f"{page} has no <!-- {name} --> and <!-- /{name} -->")
    page.write_text(found.sub(lambda match: table, text, count=1))
