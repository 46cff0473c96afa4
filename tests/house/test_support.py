"""Tests share code only through tests/support, and its README names every file there."""

from __future__ import annotations

import ast
from pathlib import Path

from support.tree import draw_helpers, helpers_in_page

TESTS = Path(__file__).resolve().parents[1]


def test_the_readme_of_support_names_every_helper():
    assert helpers_in_page() == draw_helpers(), "run `make tree`"


def test_no_test_imports_from_a_test():
    names = {path.stem for path in TESTS.rglob("test_*.py")}
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[-1] not in names, path
                assert not names & {alias.name for alias in node.names if "test" in (node.module or "")}, path
