"""Which network the training workers on CPUs talk over: that of the address which Ray has on each node."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from typing import Any

import ray.util
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

#: gloo's variable for the name of the network
_VARIABLE = "GLOO_SOCKET_IFNAME"
#: Linux's request for the IPv4 address of a network, and where the answer has it
_SIOCGIFADDR = 0x8915
_ADDRESS = slice(20, 24)


class GlooConfig(TorchConfig):
    """`TorchConfig` for gloo, whose workers find each other also where a node does not know its own name.

    Gloo takes the address that the node's name resolves to. Debian and Ubuntu resolve it to 127.0.1.1, where no worker
    of another node answers; the workers then wait for each other until Ray Train gives up.
    """

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """What Ray Train starts on the workers."""
        return _GlooBackend


class _GlooBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(use_network_of_ray)
        super().on_start(worker_group, backend_config)


def use_network_of_ray() -> None:
    """Make gloo in this process use the network of this node's address in Ray, unless the user has named a network."""
    if _VARIABLE not in os.environ and (name := network_of(ray.util.get_node_ip_address())):
        os.environ[_VARIABLE] = name


def network_of(address: str) -> str | None:
    """The name of this machine's network with this IPv4 address, such as "eth0"; None if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            # a network without an IPv4 address has no answer
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(any_socket, _SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(answer[_ADDRESS]) == address:
                    return name
    return None
