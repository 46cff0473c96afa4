"""Nothing is sent anywhere: runs as users start them, with every process watched."""

from __future__ import annotations

import sys

import pytest
from support.lakes import draw_images, write_files
from support.models import save_tiny_checkpoint
from support.network import outside_calls, watch
from support.training import draw_plates, tiny_config

COMMAND = [sys.executable, "-m", "jobs"]


def runs_a_job(test):
    """Marks of a test that starts Ray by itself. A run under strace takes long on a busy machine."""
    return pytest.mark.ray(pytest.mark.process(pytest.mark.timeout(3600)(test)))


@runs_a_job
@pytest.mark.parametrize("precision", [pytest.param("int8", marks=pytest.mark.slow), "float32"])
def test_a_labelling_run_calls_nobody(tmp_path, precision):
    if precision == "int8":
        pytest.importorskip("openvino")
    write_files(str(tmp_path / "lake"), draw_images(6))
    weights = str(save_tiny_checkpoint(tmp_path))
    arguments = ["label", str(tmp_path / "lake"), "--output", str(tmp_path / "out"), "--weights", weights]
    check(watch([*COMMAND, *arguments, "--precision", precision, "--address", "local"], tmp_path / "watched"))
    assert (tmp_path / "out/_SUCCESS").exists()


@pytest.mark.slow
@runs_a_job
def test_a_training_run_calls_nobody(tmp_path):
    plates = draw_plates(tmp_path / "plates", 4)
    arguments = ["train", "--config", tiny_config(tmp_path), "--output", str(tmp_path / "out")]
    arguments += ["--annotations", plates["annotations"], "--images", plates["images"], "--init-weights", "random"]
    arguments += ["--max-steps", "2", "--batch-size", "2", "--num-workers", "1", "--address", "local"]
    check(watch([*COMMAND, *arguments], tmp_path / "watched"))


def check(watched):
    assert watched.code == 0, watched.printed
    # the driver, Ray's own processes and its workers
    assert watched.processes > 3
    assert watched.calls == []
    if watched.kernel_calls is not None:
        assert watched.kernel_calls == []


@pytest.mark.process
def test_the_watch_sees_calls_of_children(tmp_path):
    program = """
import os, socket
if os.fork() == 0:
    try:
        socket.create_connection(("192.0.2.1", 9), timeout=0.01)
    except OSError:
        os._exit(0)
os.wait()
"""
    watched = watch([sys.executable, "-c", program], tmp_path)
    assert watched.code == 0
    assert any("socket.connect 192.0.2.1" in call for call in watched.calls)
    assert watched.kernel_calls is None or any("192.0.2.1" in call for call in watched.kernel_calls)


def test_loopback_and_its_name_are_no_calls():
    server = 'connect(14<UDP:[31]>, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("10.0.0.53")}, 16) = 0'
    question = (
        r'sendto(14<UDP:[192.0.2.2:33698->10.0.0.53:53]>, "&\17\1\0\0\1\0\0\0\0\0\0%s\7in-addr\4arpa\0\0\f\0\1", 40'
    )
    loopback, other = question % r"\0011\0010\0010\003127", question % r"\0011\0010\0010\00210"
    mapped = 'connect(13<TCPv6:[3]>, {sa_family=AF_INET6, inet_pton(AF_INET6, "::ffff:127.0.0.1", &sin6_addr)}, 28) = 0'
    assert outside_calls(f"7 {server}\n7 {loopback}\n8 {mapped}") == []
    assert outside_calls(f"7 {server}\n7 {other}") == [f"7 {server}"]
    assert outside_calls(f"7 {server}\n9 {loopback}") == [f"7 {server}"]
    assert outside_calls(f"7 {server}\n7 {server}\n7 {loopback}") == [f"7 {server}"]
