"""The development data that lies beside a checkout: golden cases, photos, weights."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"


def shared_path(name: str) -> Path:
    """A file or folder of it; skips the test where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"development data {name!r} is not beside the checkout (looked for {path})")
    return path
