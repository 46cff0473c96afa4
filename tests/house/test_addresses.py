"""Whether an address is a local path is asked in one place of each package, so that file:// is local everywhere."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from jobs import storage
from yolact.weights.files import local_path

ROOT = Path(__file__).resolve().parents[2]
#: `yolact` knows nothing of `jobs`, so each package has its own place
PLACES = {"jobs/storage/filesystems.py", "yolact/weights/files.py"}


def asks(path: Path) -> bool:
    """Whether a file looks for "://" in a text by itself."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return any(
        isinstance(node, ast.Compare)
        and isinstance(node.ops[0], ast.In | ast.NotIn)
        and isinstance(node.left, ast.Constant)
        and node.left.value == "://"
        for node in nodes
    )


def test_no_other_file_looks_for_a_scheme():
    files = [path for package in ("jobs", "yolact", "benchmarks") for path in (ROOT / package).rglob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in files if asks(path)}
    assert found - PLACES == set(), "ask storage.is_local, storage.has_scheme or local_path"


@pytest.mark.parametrize("name", ["/data/a.pth", "file:///data/a.pth", "FILE:///data/a.pth", "local:///data/a.pth"])
def test_both_places_take_the_same_addresses_for_local(name):
    assert storage.is_local(name)
    assert storage.split_uri(name)[1] == str(local_path(name)) == "/data/a.pth"


@pytest.mark.parametrize("name", ["s3://bucket/a.pth", "hf://owner/a.pth", "https://host/a.pth", "memory://a.pth"])
def test_both_places_take_the_same_addresses_for_remote(name):
    assert not storage.is_local(name)
    assert local_path(name) is None
