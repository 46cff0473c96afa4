"""Hosts that share nothing, on this machine: each has its own network, processes, name, HOME and disk.

A host is a set of Linux namespaces that one process holds. When that process ends, the kernel ends every process of the
host and removes its network. So nothing is left behind, also when a test run is killed. A bridge in a namespace of its
own joins the hosts, and this machine has a link to that bridge. This takes root, iproute2 and util-linux.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

#: the network of the hosts, of the range for tests between devices (RFC 2544). The last number but one is free
_NETWORK = "198.18"
#: what a host has of its own
_NAMESPACES = ("--net", "--pid", "--fork", "--mount", "--uts", "--ipc", "--mount-proc")
_TOOLS = ("ip", "unshare", "nsenter", "setpriv")
#: holds the namespaces, and reaps the processes that lose their parent
_HOLD = "sleep infinity & wait"
#: what stays writable: the host's own disk, and what is no disk
_NOT_DISKS = "/tmp|/proc|/proc/*|/sys|/sys/*|/dev|/dev/*"
_GONE_SECONDS = 30.0

#: gives a host its name and a disk, and makes every other disk read-only
_SET_UP = f"""
set -e
hostname "$NAME"
ip link set lo up
mount -t tmpfs tmpfs /dev/shm
mount --bind "$DISK/etc-hosts" /etc/hosts
mount --bind "$DISK" /tmp
while read -r _ place _; do
    case "$place" in {_NOT_DISKS}) ;; *) mount -o remount,bind,ro "$place" 2>/dev/null || true ;; esac
done < /proc/self/mounts
"""


def why_no_hosts() -> str | None:
    """Why namespaces cannot be made here, in one line; None where they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces take Linux and root"
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        return f"network namespaces take iproute2 and util-linux: no {', '.join(missing)} here"
    devices = "ip link add br0 type bridge && ip link add v0 type veth peer name v1"
    tried = subprocess.run(["unshare", *_NAMESPACES, "sh", "-c", devices], capture_output=True, text=True)
    return f"no network namespaces here: {tried.stderr.strip().splitlines()[-1]}" if tried.returncode else None


class Host:
    """A host with the address `address`. Its disk is the folder `disk` of this machine, and /tmp on the host itself."""

    def __init__(self, name: str, address: str, disk: Path) -> None:
        self.name, self.address, self.disk = name, address, disk
        (disk / "home").mkdir(parents=True)
        self.start()

    def start(self) -> None:
        """Make the namespaces, without a network."""
        self._holder = _hold(*_NAMESPACES)
        self.pid = _child_of(self._holder)

    @property
    def enter(self) -> tuple[str, ...]:
        """The words before a command that run it on this host, in HOME."""
        return ("nsenter", f"--target={self.pid}", "--all", "env", "--chdir=/tmp/home", "HOME=/tmp/home")

    def set_up(self, names: Mapping[str, str]) -> None:
        """Give the host its name and disk; `names` are the addresses of all hosts, by name.

        The host's own name is 127.0.1.1 for itself, as Debian and Ubuntu have it.
        """
        seen = {"localhost": "127.0.0.1", **names, self.name: "127.0.1.1"}
        lines = [f"{address} {name}" for name, address in seen.items()]
        (self.disk / "etc-hosts").write_text("\n".join(lines) + "\n")
        self._in_namespaces("env", f"NAME={self.name}", f"DISK={self.disk}", "sh", "-c", _SET_UP)

    def popen(self, *command: str, environment: Mapping[str, str], **options: Any) -> subprocess.Popen[str]:
        """Start a command on this host. `environment` is all that it gets, with HOME and PATH."""
        values = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **environment}
        return subprocess.Popen([*self.enter, *command], env=values, stdin=subprocess.DEVNULL, text=True, **options)

    def lose_the_way_to(self, address: str) -> None:
        """From now on every packet of this host to `address` is lost, and nobody is told."""
        self._in_namespaces("ip", "route", "add", "blackhole", f"{address}/32")

    def find_the_way_to(self, address: str) -> None:
        """Undo `lose_the_way_to`."""
        self._in_namespaces("ip", "route", "del", "blackhole", f"{address}/32")

    def end(self) -> None:
        """End every process of the host, and the host; returns when they are gone."""
        _end(self._holder, self.pid)

    def _in_namespaces(self, *command: str) -> None:
        _run("nsenter", f"--target={self.pid}", "--all", *command)


class Switch:
    """Joins hosts by cables, and this machine to them."""

    def __init__(self) -> None:
        self._network = f"{_NETWORK}.{os.getpid() % 250}"
        self._cables = 0
        #: address of every host that was joined, by name
        self._joined: dict[str, str] = {}
        self._holder = _hold("--net", "--fork", "--pid")
        self._pid = _child_of(self._holder)
        self._run("ip", "link", "add", "bridge", "type", "bridge", "forward_delay", "0")
        self._run("ip", "link", "set", "dev", "bridge", "up")
        _run("ip", "link", "add", f"yl{os.getpid()}", "type", "veth", "peer", "name", "here", "netns", str(self._pid))
        self._plug("here")
        _run("ip", "addr", "add", f"{self._network}.254/24", "dev", f"yl{os.getpid()}")
        _run("ip", "link", "set", "dev", f"yl{os.getpid()}", "up")

    def free_address(self) -> str:
        """An address for the next host."""
        self._cables += 1
        return f"{self._network}.{self._cables}"

    def join(self, host: Host) -> None:
        """Connect a host by a cable."""
        peer = ("peer", "name", "eth0", "netns", str(host.pid))
        self._run("ip", "link", "add", "name", host.name, "type", "veth", *peer)
        self._plug(host.name)
        host._in_namespaces("ip", "addr", "add", f"{host.address}/24", "dev", "eth0")
        host._in_namespaces("ip", "link", "set", "dev", "eth0", "up")
        # Ray asks for the way to the outside to find its own address
        host._in_namespaces("ip", "route", "add", "default", "via", f"{self._network}.254")
        self._joined[host.name] = host.address

    def set_up(self, host: Host) -> None:
        """Give a host its name, its disk and the addresses of all hosts that are joined."""
        host.set_up(self._joined)

    def reboot(self, host: Host) -> None:
        """End everything on the host and start it again, with the same disk and on a cable that works."""
        host.end()
        host.start()
        self.join(host)
        self.set_up(host)

    def pull(self, host: Host) -> None:
        """Pull the host's cable out of the switch: its link is down, and nothing reaches it or leaves it."""
        self._run("ip", "link", "set", "dev", host.name, "down")

    def end(self) -> None:
        """Remove the bridge and its cables."""
        _end(self._holder, self._pid)

    def _plug(self, cable: str) -> None:
        self._run("ip", "link", "set", "dev", cable, "master", "bridge")
        self._run("ip", "link", "set", "dev", cable, "up")

    def _run(self, *command: str) -> None:
        _run("nsenter", f"--target={self._pid}", "--net", *command)


@contextmanager
def switched_hosts(names: Sequence[str], folder: Path) -> Iterator[tuple[Switch, dict[str, Host]]]:
    """Hosts of these names, joined by a switch; their disks lie in `folder`."""
    with ExitStack() as ends:
        switch = Switch()
        ends.callback(switch.end)
        hosts = {}
        for name in names:
            host = Host(name, switch.free_address(), folder / name)
            ends.callback(host.end)
            hosts[name] = host
            switch.join(host)
        for host in hosts.values():
            switch.set_up(host)
        yield switch, hosts


def _hold(*namespaces: str) -> subprocess.Popen[bytes]:
    """A process that holds new namespaces, and ends with this one."""
    ends_with_us = ["setpriv", "--pdeathsig", "KILL"]
    return subprocess.Popen([*ends_with_us, "unshare", *namespaces, "--kill-child", "sh", "-c", _HOLD])


def _child_of(holder: subprocess.Popen[bytes]) -> int:
    """The first process in the new namespaces, as this machine numbers it."""
    children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
    while holder.poll() is None:
        found = children.read_text().split()
        # until unshare has started the shell, the child may be anything
        if found and Path(f"/proc/{found[0]}/comm").read_text().strip() == "sh":
            return int(found[0])
        time.sleep(0.01)
    raise RuntimeError(f"unshare ended with {holder.returncode}")


def _end(holder: subprocess.Popen[bytes], first: int) -> None:
    holder.kill()
    holder.wait()
    deadline = time.monotonic() + _GONE_SECONDS
    while Path(f"/proc/{first}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
