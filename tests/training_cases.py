"""What the training tests share."""

from __future__ import annotations

from pathlib import Path

import pytest


def shared_path(name: str) -> Path:
    """A file or folder of the development data beside the checkout; skips the test where it is absent."""
    path = Path(__file__).resolve().parent.parent.parent / "shared" / name
    if not path.exists():
        pytest.skip(f"development data {name!r} is not beside the checkout (looked for {path})")
    return path
