"""Whom a command calls: its whole tree of processes, under a guard in Python and under strace."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GUARD = Path(__file__).parent / "network_guard"
#: what makes a library think that nobody is there to be watched, or settles its reports by itself
QUIET = ("CI", "TF_BUILD", "JENKINS_URL", "NNCF_CI", "NNCF_DEV", "RAY_USAGE_STATS_ENABLED", "DO_NOT_TRACK")
#: connect(3<UDP:[…]>, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("192.0.2.1")}, 16)
_CALL = re.compile(r'(?:connect|sendto)\(.*(?:inet_addr\(|inet_pton\(AF_INET6, )"([^"]+)"')


@dataclass(frozen=True)
class Watched:
    """What a command did."""

    code: int
    printed: str
    processes: int
    """Python processes that the guard was in"""
    calls: list[str]
    """names resolved and addresses called outside of this machine, as Python saw them"""
    kernel_calls: list[str] | None
    """addresses outside of this machine, as the kernel saw them; None where strace is not there"""


def watch(command: list[str], folder: Path, **environment: str) -> Watched:
    """Run a command as a user does who has no settings: an empty HOME, and none of the variables in `QUIET`."""
    calls, home, trace = folder / "network", folder / "home", folder / "strace"
    calls.mkdir(parents=True)
    home.mkdir()
    values = {name: value for name, value in os.environ.items() if name not in QUIET}
    values |= {"HOME": str(home), "YOLACT_TEST_NETWORK": str(calls), "PYTHONPATH": f"{GUARD}:{ROOT}", **environment}
    traced = can_trace()
    strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-yy", "-e", "trace=connect,sendto", "-o", str(trace)]
    done = subprocess.run(
        [*(strace if traced else []), *command], env=values, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return Watched(
        done.returncode,
        done.stdout,
        len(list(calls.glob("*.guarded"))),
        [line for file in calls.glob("*.calls") for line in file.read_text().splitlines()],
        outside_calls(trace.read_text(errors="replace")) if traced else None,
    )


def can_trace() -> bool:
    """Whether strace is installed and allowed to look."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-f", "--seccomp-bpf", "-qq", "true"], capture_output=True).returncode == 0


def outside_calls(trace: str) -> list[str]:
    """The lines of a trace that connect or send to an address outside of this machine."""
    return [line for line in trace.splitlines() if (call := _CALL.search(line)) and not is_here(call[1])]


def is_here(address: str) -> bool:
    """Whether a numeric address is loopback, or no address yet."""
    found = ipaddress.ip_address(address)
    found = getattr(found, "ipv4_mapped", None) or found
    return found.is_loopback or found.is_unspecified
