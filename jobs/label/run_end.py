"""How a labelling run ended: its exit code, and what its user reads."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class RunEnd:
    """The end of a run. Whoever called it decides whether it is shown."""

    exit_code: int
    """see `jobs.runtime.errors`"""
    summary: str = ""
    """what a finished run has to show, for stdout"""
    complaint: str = ""
    """why the run is not finished, for stderr"""

    def show(self) -> None:
        """Print it, as a command does."""
        if self.summary:
            print(self.summary)
        if self.complaint:
            print(self.complaint, file=sys.stderr)
