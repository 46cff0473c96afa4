from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_tree_in_the_readme_names_every_file():
    tree = (ROOT / "README.md").read_text().split("## The tree")[1]
    words = {line.split()[0] for line in tree.splitlines() if line.strip()}
    files = [path for package in ("yolact", "jobs") for path in (ROOT / package).rglob("*.py")]
    files += [path for path in (ROOT / "cluster").rglob("*") if path.is_file()]
    missing = {path.name for path in files if path.name != "__init__.py"} - words
    assert not missing
    stale = {word for word in words if word.endswith(".py")} - {path.name for path in files}
    assert not stale
