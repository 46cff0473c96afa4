"""Records the network connections of a command and of all its child processes, by a guard in Python and by strace."""

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
#: follow all children; only the system calls that are asked for slow a process down
STRACE = ("strace", "-f", "--seccomp-bpf", "-qq")
#: what makes a library think that nobody is there to be watched, or settles its reports by itself
QUIET = ("CI", "TF_BUILD", "JENKINS_URL", "NNCF_CI", "NNCF_DEV", "RAY_USAGE_STATS_ENABLED", "DO_NOT_TRACK")
#: connect(3<UDP:[…]>, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("192.0.2.1")}, 16)
_CALL = re.compile(r'(?:connect|sendto)\(.*(?:inet_addr\(|inet_pton\(AF_INET6, )"([^"]+)"')
#: the process and the socket of a connection to a name server, and of the question for the name of 127.0.0.1
_NAME_SERVER = re.compile(r"(\d+) +connect\((\d+)<UDP.*sin6?_port=htons\(53\)")
_ASKS_FOR_LOOPBACK = re.compile(r'(\d+) +sendto\((\d+)<UDP.*"[^"]*\\0011\\0010\\0010\\003127\\7in-addr\\4arpa\\0')


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
    strace = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-yy",
        "-s",
        "100",
        "-e",
        "trace=connect,sendto",
        "-o",
        str(trace),
    ]
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
    return subprocess.run([*STRACE, "true"], capture_output=True).returncode == 0


def outside_calls(trace: str) -> list[str]:
    """The lines of a trace that connect or send to an address outside of this machine.

    But for one question: PyTorch asks the name server for the name of 127.0.0.1, which it puts into its log messages.
    """
    found: dict[int, str] = {}
    asking: dict[tuple[str, str], int] = {}
    for number, line in enumerate(trace.splitlines()):
        if (call := _CALL.search(line)) and not is_here(call[1]):
            found[number] = line
            if socket := _NAME_SERVER.match(line):
                asking[socket[1], socket[2]] = number
        elif (question := _ASKS_FOR_LOOPBACK.match(line)) and (question[1], question[2]) in asking:
            del found[asking.pop((question[1], question[2]))]
    return list(found.values())


def is_here(address: str) -> bool:
    """Whether a numeric address is loopback, or no address yet."""
    found = ipaddress.ip_address(address)
    found = getattr(found, "ipv4_mapped", None) or found
    return found.is_loopback or found.is_unspecified
