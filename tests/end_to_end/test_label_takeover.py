"""A driver that stood still until another one had taken its OUTPUT over: real commands, real store, real waits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.lakes import draw_images, write_shards
from support.models import save_tiny_checkpoint

TAKEN_OVER = "yolact: another driver took over this OUTPUT while this one stood still"


def start(s3, lake: str, output: str, checkpoint: Path) -> subprocess.Popen[str]:
    """The command in a Ray of its own."""
    sizes = ["--precision", "float32", "--images-per-unit", "4", "--images-per-part", "8", "--address", "local"]
    return subprocess.Popen(
        [sys.executable, "-m", "jobs", "label", lake, "--output", output, "--weights", str(checkpoint), *sizes],
        env={**os.environ, **s3.env, "RAY_worker_niceness": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_to_its_end(s3, lake: str, output: str, checkpoint: Path) -> tuple[int, str, str]:
    """The command's exit code and what it said. Ray gives up its own start on a busy machine: then once more."""
    while True:
        process = start(s3, lake, output, checkpoint)
        out, err = process.communicate()
        if "no Ray cluster at local" not in err:
            return process.returncode, out, err


def published_ids(s3, output: str) -> list[str]:
    filesystem = s3.filesystem()
    files = sorted(filesystem.glob(f"{output.removeprefix('s3://')}/labels/part-*.parquet"))
    return [
        image_id
        for file in files
        for image_id in pq.read_table(pa.BufferReader(filesystem.cat_file(file)))["image_id"].to_pylist()
    ]


@pytest.mark.slow
def test_a_driver_that_stood_still_leaves_the_labels_of_its_successor(s3, tmp_path):
    checkpoint = save_tiny_checkpoint(tmp_path)
    lake, output = s3.prefix("lake"), s3.prefix("out")
    filesystem = s3.filesystem()
    images = draw_images(24)
    names = list(images)
    write_shards(f"{lake}/first", {name: images[name] for name in names[:16]}, 2)
    first = start(s3, lake, output, checkpoint)
    try:
        while not filesystem.exists(f"{output}/_state/lease.json"):
            assert first.poll() is None, first.communicate()
            time.sleep(0.02)
        first.send_signal(signal.SIGSTOP)
        write_shards(f"{lake}/second", {name: images[name] for name in names[16:]}, 1)
        code, out, err = run_to_its_end(s3, lake, output, checkpoint)
        assert code == 0, err
        assert "images     24 (24 ok, 0 failed)" in out
        ids = published_ids(s3, output)
        assert len(set(ids)) == len(ids) == 24
        marker = filesystem.cat_file(f"{output}/_SUCCESS")
        first.send_signal(signal.SIGCONT)
        _, err = first.communicate()
    finally:
        first.kill()
    assert first.returncode == 1, err
    assert err.splitlines()[-1].startswith(TAKEN_OVER)
    assert "Traceback" not in err
    filesystem.invalidate_cache()
    assert published_ids(s3, output) == ids
    assert filesystem.cat_file(f"{output}/_SUCCESS") == marker
    assert json.loads(filesystem.cat_file(f"{output}/run.json"))["counts"]["images"] == 24
    assert not filesystem.exists(f"{output}/_state/lease.json")
    code, out, err = run_to_its_end(s3, lake, output, checkpoint)
    assert code == 0, err
    assert out.startswith("nothing to do")
