"""Imports run one way: no circle between files, and imports inside functions only where there is a reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from jobs.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("yolact", "jobs", "benchmarks")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

#: imports inside functions: (file, module). Each is of an optional package, or of a heavy one that a light path must do
#: without; a comment beside it says which, and docs/decisions.md why
LATE = {
    ("yolact/images/decode.py", "pillow_heif"),
    ("yolact/inference/engine_choice.py", "yolact.inference.precision"),
    ("jobs/export_model/programs.py", "onnxruntime"),
    ("jobs/label/command.py", "jobs.label.labelling"),
    ("jobs/label/engine.py", "jobs.label.predictors"),
    ("jobs/report/command.py", "jobs.report.plots"),
    ("jobs/report/command.py", "jobs.report.prototypes"),
    ("jobs/runtime/metrics.py", "ray.util.metrics"),
    ("jobs/runtime/model_source.py", "yolact.weights.checkpoint"),
    ("jobs/table/pieces.py", "jobs.table.ray_pieces"),
    ("benchmarks/engines.py", "onnxruntime"),
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


def late_imports(path: Path) -> set[str]:
    """Modules that the functions of a file import; those in `run` of a command's face are not counted."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, FUNCTIONS)]
    face = is_face(path)
    return {
        node.names[0].name if isinstance(node, ast.Import) else node.module or ""
        for function in functions
        if not (face and function.name == "run")
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }


def is_face(path: Path) -> bool:
    """Whether a file is `jobs.X` of a command X: its `run` imports the work, so that --help is quick."""
    names = {name.replace("-", "_") for name in COMMANDS}
    return (path.parent == ROOT / "jobs" and path.stem in names) or (
        path.name == "__init__.py" and path.parent.parent == ROOT / "jobs" and path.parent.name in names
    )


@pytest.mark.compute
def test_there_is_no_circle():
    assert circles(graph(modules())) == []


def test_the_check_sees_a_circle():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.compute
def test_imports_stand_at_the_top_of_a_file_unless_there_is_a_reason():
    found = {(str(path.relative_to(ROOT)), name) for path in modules().values() for name in late_imports(path)}
    assert found - LATE == set(), "move the import to the top of the file"
    assert LATE - found == set(), "take it from the list"


@pytest.mark.parametrize(("name", "module"), sorted(LATE))
def test_a_comment_beside_a_late_import_says_why(name, module):
    lines = (ROOT / name).read_text().splitlines()
    statement = re.compile(rf"\s+(import|from) {re.escape(module)}( import|  #|$)")
    # the same import for type checkers stands above it
    number = [n for n, line in enumerate(lines) if statement.match(line)][-1]
    assert "#" in lines[number] or lines[number - 1].lstrip().startswith("#")


def test_the_check_sees_late_imports(tmp_path):
    path = tmp_path / "late.py"
    path.write_text("import os\ndef run():\n    import re\n    def inner():\n        from a.b import c\n")
    assert late_imports(path) == {"re", "a.b"}
