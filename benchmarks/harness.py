"""Shared by all measurements of `python -m benchmarks.…`: it parses the flags and prints errors in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

import tyro

from jobs.runtime.errors import EXIT_OK, exit_code_of

Config = TypeVar("Config")


def run_benchmark(config_class: type[Config], description: str | None, main: Callable[[Config], None]) -> NoReturn:
    """Parse the flags into `config_class`, call `main` with it, exit with a code of `jobs.runtime.errors`."""
    config = tyro.cli(config_class, description=description)

    def call() -> int:
        main(config)
        return EXIT_OK

    sys.exit(exit_code_of(call))
