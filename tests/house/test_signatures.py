"""A function that needs many values takes an object that has a name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST = 6
ROOMS = ("jobs/label", "jobs/lake", "jobs/storage", "jobs/table", "jobs/train")


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Names of all parameters except `self` and `cls`."""
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def crowded(text: str) -> Iterator[str]:
    """The functions of a module with more than `MOST` parameters."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and len(parameters(node)) > MOST:
            yield f"{node.name}({', '.join(parameters(node))})"


@pytest.mark.parametrize("room", ROOMS)
def test_no_function_of_a_room_takes_more_than_six_values(room):
    found = [f"{path.name}: {name}" for path in (ROOT / room).rglob("*.py") for name in crowded(path.read_text())]
    assert found == []


def test_the_check_would_notice():
    assert list(crowded("def draw(a, b, c, *, d, e, f, g): ...")) == ["draw(a, b, c, d, e, f, g)"]
    assert list(crowded("class A:\n    def draw(self, a, b, c, *, d, e, f): ...")) == []
