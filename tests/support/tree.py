"""Draws the tree in docs/architecture.md and the list of helpers in tests/support/README.md, from what files say first.

python tests/support/tree.py
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
HELPERS_PAGE = ROOT / "tests" / "support" / "README.md"
FOLDERS = ("yolact", "jobs", "benchmarks", "cluster", "tests/support")
_BLOCK = re.compile(r"(?<=<!-- tree -->\n```\n).*?(?=```\n<!-- /tree -->)", re.S)
_HELPERS = re.compile(r"(?<=<!-- helpers -->\n).*?(?=<!-- /helpers -->)", re.S)
_KINDS = (".py", ".yaml", ".html", ".css", ".js", ".svg", ".json", "Dockerfile")


def first_sentence(path: Path) -> str:
    """What a file says of itself; empty for one that says nothing."""
    text = path.read_text()
    if path.suffix == ".py":
        words = ast.get_docstring(ast.parse(text)) or ""
    elif found := re.match(r"\s*(?:#|//|/\*|\{#|<!--)\s*(.*?)\s*(?:\*/|#\}|-->)?\s*(?:\n|$)", text):
        words = found[1]
    else:
        words = ""
    paragraph = " ".join(words.split("\n\n")[0].split())
    return re.split(r"(?<=[.])\s", paragraph)[0].rstrip(".:")


def draw_tree() -> str:
    """The tree as text, folders before what is in them."""
    lines = []
    for top in FOLDERS:
        for folder in sorted({p.parent for p in (ROOT / top).rglob("*") if p.is_file() and p.name.endswith(_KINDS)}):
            if "__pycache__" in folder.parts:
                continue
            face = folder / "__init__.py"
            lines.append(_line(f"{folder.relative_to(ROOT)}/", first_sentence(face) if face.exists() else ""))
            for path in sorted(folder.iterdir()):
                if path.is_file() and path.name.endswith(_KINDS) and path != face:
                    lines.append(_line(f"  {path.name}", first_sentence(path)))
    return "\n".join(lines) + "\n"


def _line(name: str, words: str) -> str:
    return f"{name:<28}{words}".rstrip()


def draw_helpers() -> str:
    """The helpers of the tests as a table: file, first sentence."""
    support = HELPERS_PAGE.parent
    paths = sorted(path for path in support.rglob("*.py") if "__pycache__" not in path.parts)
    rows = [f"| `{path.relative_to(support)}` | {first_sentence(path)} |" for path in paths]
    return "\n".join(["| file | what it is |", "|---|---|", *rows]) + "\n"


def tree_in_page() -> str:
    """The tree as it stands in the page."""
    [found] = _BLOCK.findall(PAGE.read_text())
    return found


def helpers_in_page() -> str:
    """The table of helpers as it stands in the page."""
    [found] = _HELPERS.findall(HELPERS_PAGE.read_text())
    return found


if __name__ == "__main__":
    PAGE.write_text(_BLOCK.sub(lambda _: draw_tree(), PAGE.read_text()))
    HELPERS_PAGE.write_text(_HELPERS.sub(lambda _: draw_helpers(), HELPERS_PAGE.read_text()))
