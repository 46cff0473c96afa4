"""OpenVINO's networks on this machine's disk: made once, and anew where what is kept is broken or of other weights."""

from __future__ import annotations

import pytest
from support.models import save_tiny_checkpoint

import yolact
from jobs.label.networks import cached_network, converted
from yolact.inference.openvino_engine import OpenVinoNetwork

pytestmark = pytest.mark.compute


def test_a_network_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setenv("YOLACT_CACHE", str(tmp_path))
    made = OpenVinoNetwork(b"<net/>", b"weights")
    assert cached_network("openvino/a", lambda: made) == made
    assert cached_network("openvino/a", lambda: pytest.fail("it was kept")) == made
    assert [path.name for path in (tmp_path / "openvino").iterdir()] == ["a.zip"], "no temporary file stays"


def test_a_broken_file_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("YOLACT_CACHE", str(tmp_path))
    made = OpenVinoNetwork(b"<net/>", b"weights")
    cached_network("a", lambda: made)
    (tmp_path / "a.zip").write_bytes(made.to_bytes()[:20])
    assert cached_network("a", lambda: made) == made
    assert OpenVinoNetwork.from_bytes((tmp_path / "a.zip").read_bytes()) == made


def test_a_cache_that_cannot_be_written_is_no_end_of_the_job(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("YOLACT_CACHE", str(tmp_path / "file"))
    made = OpenVinoNetwork(b"<net/>", b"weights")
    assert cached_network("a", lambda: made) == made
    assert "cannot be kept" in caplog.text


def test_other_weights_are_another_network(tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("YOLACT_CACHE", str(tmp_path / "cache"))
    one, other = (yolact.load_checkpoint(save_tiny_checkpoint(tmp_path, seed)) for seed in (0, 1))
    first = converted(one, "sha of one")
    assert converted(one, "sha of one") == first
    assert converted(other, "sha of other").weights != first.weights
    assert len(list((tmp_path / "cache/openvino").iterdir())) == 2
