"""Imports run one way: no circle between files, and imports inside functions only where there is a reason."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from jobs.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("yolact", "jobs", "benchmarks")

#: imports inside functions that a room may have, by the room's folder: lower a number when you remove one
CEILINGS = {
    "yolact/images": 3,
    "yolact/inference": 1,
    "yolact/weights": 3,
    "jobs/__main__.py": 2,
    "jobs/demo.py": 1,
    "jobs/export_model": 1,
    "jobs/label": 4,
    "jobs/report": 1,
    "jobs/runtime": 12,
    "jobs/table": 2,
    "benchmarks": 1,
}


@cache
def modules() -> dict[str, Path]:
    """Every file by its module's name."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {str(p.relative_to(ROOT))[:-3].replace("/", ".").removesuffix(".__init__"): p for p in paths}


def imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Names of modules that a statement may import; some of them are names inside a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    else:
        yield node.module or ""
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def statements(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """All imports of a file, those for types and those inside functions too."""
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]


def graph(files: dict[str, Path]) -> dict[str, set[str]]:
    """Module → modules of `files` that it imports."""
    found = {
        name: {other for node in statements(path) for other in imported(node) if other in files}
        for name, path in files.items()
    }
    # a package's face and the files of its folder are one room: a file names its own folder in every import
    return {
        name: {other for other in others if not f"{name}.".startswith(f"{other}.")} for name, others in found.items()
    }


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The modules of circles, and those between two circles; empty where there is none."""
    # again and again, take away what imports nothing and what nobody imports; a circle stays
    left = {name: set(others) for name, others in edges.items()}
    while True:
        wanted = {other for others in left.values() for other in others}
        gone = {name for name, others in left.items() if not others or name not in wanted}
        if not gone:
            return [sorted(left)] if left else []
        left = {name: others - gone for name, others in left.items() if name not in gone}


def inner_imports(path: Path) -> int:
    """Imports inside the functions of a file; those in `run` of a command's face are not counted."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    face = is_face(path)
    nodes = {
        id(node)
        for function in functions
        if not (face and function.name == "run")
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    return len(nodes)


def is_face(path: Path) -> bool:
    """Whether a file is `jobs.X` of a command X: its `run` imports the work, so that --help is quick."""
    names = {name.replace("-", "_") for name in COMMANDS}
    return (path.parent == ROOT / "jobs" and path.stem in names) or (
        path.name == "__init__.py" and path.parent.parent == ROOT / "jobs" and path.parent.name in names
    )


def room(path: Path) -> str:
    """The folder that a file's imports are counted for."""
    parts = path.relative_to(ROOT).parts
    return "/".join(parts[:2]) if parts[0] != "benchmarks" else parts[0]


@pytest.mark.compute
def test_there_is_no_circle():
    assert circles(graph(modules())) == []


def test_the_check_sees_a_circle():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def counted() -> Counter[str]:
    counts: Counter[str] = Counter()
    for path in modules().values():
        counts[room(path)] += inner_imports(path)
    return +counts


@pytest.mark.compute
def test_no_room_has_more_imports_inside_functions_than_its_ceiling():
    over = {name: count for name, count in counted().items() if count > CEILINGS.get(name, 0)}
    assert over == {}, "move the imports to the top of the file"


@pytest.mark.parametrize("name", CEILINGS)
def test_every_ceiling_is_of_a_room(name):
    assert (ROOT / name).exists()
