"""A guard on the network: every Python process that has this folder on its PYTHONPATH writes down whom it calls.

YOLACT_TEST_NETWORK=DIR   PID.guarded stands in DIR for every process; PID.calls has a line for every name that it
                          resolves and every address that it connects or sends to, outside of this machine

An audit hook sees the sockets of all Python code, also in forked children. It does not see C++ code: the test runs the
command under strace as well.
"""

import os
import socket
import sys

FOLDER = os.environ["YOLACT_TEST_NETWORK"]
HERE = {None, "", "localhost", "0.0.0.0", "::", "::1", socket.gethostname()}


def is_outside(host):
    host = host.decode() if isinstance(host, bytes) else host
    return host not in HERE and not host.startswith("127.")


def write_down(what, host):
    with open(os.path.join(FOLDER, f"{os.getpid()}.calls"), "a") as file:
        file.write(f"{what} {host}: {' '.join(getattr(sys, 'orig_argv', sys.argv))[:200]}\n")


def hook(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        if is_outside(arguments[0]):
            write_down(event, arguments[0])
    elif event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        # the path of a socket on this machine is a string
        if isinstance(address, tuple) and is_outside(address[0]):
            write_down(event, address[0])


open(os.path.join(FOLDER, f"{os.getpid()}.guarded"), "w").close()
sys.addaudithook(hook)
