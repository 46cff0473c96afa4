"""Paths of a training run as its workers need them."""

from __future__ import annotations

from jobs.train.command import _with_absolute_paths
from jobs.train.options import TrainConfig


def test_file_addresses_are_local_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = TrainConfig("file:///data/a.json", "out", images="s3://lake/images", init_weights="yolact_base")
    absolute = _with_absolute_paths(config)
    assert (absolute.annotations, absolute.output) == ("/data/a.json", str(tmp_path / "out"))
    assert (absolute.images, absolute.init_weights) == ("s3://lake/images", "yolact_base")
