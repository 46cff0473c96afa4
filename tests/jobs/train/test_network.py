"""Which network gloo takes on a node: that of the node's address in Ray."""

from __future__ import annotations

import os
import socket

import ray.util

from jobs.train.network import network_of, use_network_of_ray


def test_the_network_of_an_address():
    loopback = network_of("127.0.0.1")
    assert loopback in [name for _, name in socket.if_nameindex()]
    assert network_of("192.0.2.1") is None  # an address for examples, which no machine has


def test_gloo_takes_the_network_of_ray_unless_the_user_named_one(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "mine")
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    use_network_of_ray()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "mine"
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    use_network_of_ray()
    assert os.environ.pop("GLOO_SOCKET_IFNAME") == network_of("127.0.0.1")
