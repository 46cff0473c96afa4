"""The exit codes of the command line, and the errors that lead to them. The user sees each error as one line."""

from __future__ import annotations

import sys
from collections.abc import Callable

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_TOO_MANY_BAD_IMAGES = 3
EXIT_RUN_AGAIN = 4
#: the code that a shell reports for a program that SIGPIPE ended
EXIT_OUTPUT_CLOSED = 141


class UsageError(Exception):
    """The command cannot do what the user asked for; the message says what to change (exit code 2)."""


class JobError(Exception):
    """The job cannot continue; the message says what stopped it and what to do next (exit code 1)."""


def exit_code_for_failures(failed: int, images: int, max_error_rate: float) -> int:
    """The exit code of a finished run: `EXIT_TOO_MANY_BAD_IMAGES` if a larger share of the images failed, else 0."""
    return EXIT_TOO_MANY_BAD_IMAGES if failed > max_error_rate * images else EXIT_OK


def exit_code_of(call: Callable[[], int]) -> int:
    """The exit code that `call` returns. A `UsageError` or `JobError` is printed on stderr and gives its own code."""
    try:
        return call()
    except (UsageError, JobError) as error:
        print(f"yolact: {error}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED
