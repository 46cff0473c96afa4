"""Larger data beside the checkout (`../shared`): parity cases, photos, weights; tests skip where it is absent."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"


def shared_path(name: str) -> Path:
    """A file or folder of the larger data by name; skips the test where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"larger data {name!r} is not beside the checkout (looked for {path})")
    return path
