"""Command lines in one process of their own, as a user runs them: the exit code and the stderr of each.

A process of its own: what a test looks for may be a file that ends the process by a signal.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Answer(NamedTuple):
    """How a command ended; `code` is None where it ended with a traceback, which then is `stderr`."""

    code: int | None
    stderr: str


def run_commands(commands: Sequence[Sequence[str]]) -> list[Answer]:
    """Run the commands one after the other in one child. Raises AssertionError if a command ended the child."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "support.commands"],
        input=json.dumps([list(command) for command in commands]),
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    answers = [Answer(*json.loads(line)) for line in done.stdout.splitlines()]
    if done.returncode != 0:
        command = commands[min(len(answers), len(commands) - 1)]
        raise AssertionError(f"exit code {done.returncode} at {command}\n{done.stderr[-3000:]}")
    return answers


def _answer(command: list[str]) -> Answer:
    from jobs.__main__ import main

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as stderr:
        try:
            return Answer(main(command), stderr.getvalue())
        except Exception:
            return Answer(None, traceback.format_exc())


if __name__ == "__main__":
    for command in json.load(sys.stdin):
        print(json.dumps(_answer(command)), flush=True)
