"""Every message that a user can meet stands in the docs with its cure: errors, warnings, and lines on stderr."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: modules of the library whose ValueErrors reach the command line in their own words; the others check Python callers
LIBRARY = [
    *(ROOT / "yolact" / "weights").glob("*.py"),
    ROOT / "yolact" / "coco" / "reading.py",
    ROOT / "yolact" / "config.py",
]
USER_ERRORS = {"UsageError", "JobError"}
#: takes the place of a value that the program puts into a message
VALUE = "⟨value⟩"


def words_of(node: ast.expr) -> list[str]:
    """The texts that an expression can give, with VALUE for each part that is known only at run time."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=pieces):
            texts = [""]
            for piece in pieces:
                more = words_of(piece) if isinstance(piece, ast.Constant) else [VALUE]
                texts = [text + one for text in texts for one in more]
            return texts
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [a + b for a in words_of(left) for b in words_of(right)]
        case ast.IfExp(body=body, orelse=other):
            return words_of(body) + words_of(other)
    return [VALUE]


def messages_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every message for users in a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        wanted = called in USER_ERRORS or (called == "ValueError" and path in LIBRARY)
        warns = isinstance(node.func, ast.Attribute) and called == "warning" and ast.unparse(node.func.value) == "log"
        prints = called == "print" and any(keyword.arg == "file" for keyword in node.keywords)
        if not (wanted or warns or prints):
            continue
        for text in words_of(node.args[0]):
            if warns:
                text = re.sub(r"%[sd]|%\.\d+f", VALUE, text)
            # a text of values alone passes on a message that another module wrote
            if re.search(r"\w", text.replace(VALUE, "").removeprefix("yolact: ")):
                yield node.lineno, text.removeprefix("yolact: ")


@cache
def documented() -> list[re.Pattern[str]]:
    """The messages in the first columns of the tables in docs; … in them matches any text."""
    found = []
    for page in sorted((ROOT / "docs").glob("*.md")):
        for line in page.read_text().splitlines():
            cells = line.split(" | ")
            if line.startswith("|") and len(cells) > 1:
                for quoted in re.findall(r"`([^`]+)`", cells[0]):
                    found.append(re.compile(".*".join(map(re.escape, quoted.split("…"))), re.S))
    return found


MODULES = sorted((ROOT / "jobs").rglob("*.py")) + LIBRARY


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_message_has_a_cure_in_the_docs(path):
    patterns = documented()
    missing = [
        f"{path.name}:{line}: {text}"
        for line, text in messages_of(path)
        if not any(pattern.search(text) and len(pattern.pattern) > 12 for pattern in patterns)
    ]
    assert missing == []


def test_the_check_would_notice(tmp_path):
    module = tmp_path / "module.py"
    module.write_text('raise UsageError(f"--sides {n}: " + ("a wall" if n else "the sea") + " is in the way")\n')
    texts = [text for _, text in messages_of(module)]
    assert texts == [f"--sides {VALUE}: {what} is in the way" for what in ("a wall", "the sea")]
    assert not any(pattern.search(text) for text in texts for pattern in documented())
