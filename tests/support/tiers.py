"""What a test needs beside Python: `ray`, `store`, `browser` or `process`. `make quick` runs the tests that need none.

A test gets its marks from its fixtures and from its module's source, so nobody has to remember them. While `make quick`
runs, starting a process is an error that says which mark is missing.
"""

from __future__ import annotations

import ast
import multiprocessing.process
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

#: fixture → mark of the tests that take it, directly or through another fixture
FIXTURES = {"local_ray": "ray", "s3": "store", "proxy": "store", "browser": "browser"}
#: modules whose use starts processes
STARTERS = {"subprocess", "multiprocessing", "commands", "label_watcher", "local_ray"}
TIERS = ("ray", "store", "browser", "process")


def marks_for(function: str, fixtures: Iterable[str], path: Path) -> set[str]:
    """The marks of a test: `function` in the module `path`, with the names of all fixtures that it reaches."""
    names = set(fixtures)
    found = {FIXTURES[name] for name in names if name in FIXTURES}
    if _reaches_a_starter(path, (function, *sorted(names))):
        found.add("process")
    return found


def _reaches_a_starter(path: Path, starts: tuple[str, ...]) -> bool:
    """Whether a function of the module, or a module-level function that it uses, uses what starts processes."""
    uses, starters = _names_used(path)
    todo, seen = list(starts), set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if uses.get(name, frozenset()) & starters:
            return True
        todo.extend(uses.get(name, ()))
    return False


@cache
def _names_used(path: Path) -> tuple[dict[str, frozenset[str]], frozenset[str]]:
    """Per module-level function or class the names in it, and the names that the module gave to STARTERS."""
    tree = ast.parse(path.read_text())
    starters = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            starters |= {a.asname or a.name for a in node.names if a.name.split(".")[0] in STARTERS}
        elif isinstance(node, ast.ImportFrom) and set((node.module or "").split(".")) & STARTERS:
            starters |= {a.asname or a.name for a in node.names}
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    uses = {
        top.name: frozenset(node.id for node in ast.walk(top) if isinstance(node, ast.Name))
        for top in tree.body
        if isinstance(top, definitions)
    }
    return uses, frozenset(starters)


class StartedAProcess(AssertionError):
    """A test without the mark `process` started one."""


_guarded: list[str] = []
#: what the standard library runs to find a shared library, whenever the first import of torch happens
_LOOKUPS = ("/sbin/ldconfig",)
_EVENTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"}


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if _guarded and event in _EVENTS:
        what = arguments[1] if event == "subprocess.Popen" else event
        if what and what[0] in _LOOKUPS:
            return
        raise StartedAProcess(f"{_guarded[-1]} starts a process ({what}): give it `pytest.mark.process`")


def watch_processes() -> None:
    """Prepare `no_processes`; called once in a test run."""
    sys.addaudithook(_on_event)
    start = multiprocessing.process.BaseProcess.start

    def watched(process: multiprocessing.process.BaseProcess) -> None:
        _on_event("os.fork", ())
        start(process)

    multiprocessing.process.BaseProcess.start = watched  # type: ignore[method-assign]


@contextmanager
def no_processes(test: str) -> Iterator[None]:
    """While it lasts, starting a process raises StartedAProcess with the test's name."""
    _guarded.append(test)
    try:
        yield
    finally:
        _guarded.pop()
