"""Exit codes of the command line and the errors that lead to them; each reaches the user as one line."""

from __future__ import annotations

import sys
from collections.abc import Callable

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_TOO_MANY_BAD_IMAGES = 3
EXIT_RUN_AGAIN = 4
#: as a shell reports a program that SIGPIPE ended
EXIT_OUTPUT_CLOSED = 141


class UsageError(Exception):
    """The command cannot do what the user asked for; the message says what to change (exit code 2)."""


class JobError(Exception):
    """The job cannot continue; the message says what stopped it and what to do next (exit code 1)."""


def exit_code_of(call: Callable[[], int]) -> int:
    """The exit code that `call` returns. A `UsageError` or `JobError` is printed to stderr and becomes its code."""
    try:
        return call()
    except (UsageError, JobError) as error:
        print(f"yolact: {error}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED
