"""The tree in docs/architecture.md: every file with the first sentence of its docstring or its first comment.

python tests/support/tree.py    writes it anew
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
FOLDERS = ("yolact", "jobs", "benchmarks", "cluster", "tests/support")
_BLOCK = re.compile(r"(?<=<!-- tree -->\n```\n).*?(?=```\n<!-- /tree -->)", re.S)
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


def tree_in_page() -> str:
    """The tree as it stands in the page."""
    [found] = _BLOCK.findall(PAGE.read_text())
    return found


if __name__ == "__main__":
    PAGE.write_text(_BLOCK.sub(lambda _: draw_tree(), PAGE.read_text()))
