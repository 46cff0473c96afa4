"""The hostile set: every file gets its status, good neighbours their pixels, and memory stays small."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from support.hostile_images import (
    HUGE_BYTES,
    OK,
    good_jpeg,
    hostile_files,
    hostile_shards,
    photo,
    write_lake,
    ycck_jpeg,
)

from jobs import lake, storage
from jobs.lake import STATUSES, Problem, Source
from yolact.images.decode import MAX_BYTES, ImageError, decode_image

TESTS = Path(__file__).resolve().parents[2]


def status_of(data: bytes | Problem) -> str:
    status, reason = (data.status, data.reason) if isinstance(data, Problem) else decoded(data)
    assert reason.isprintable()
    return status


def decoded(data: bytes) -> tuple[str, str]:
    try:
        decode_image(data)
    except ImageError as error:
        return error.status, error.reason
    return OK, ""


def test_expected_statuses_are_of_the_vocabulary():
    assert {file.status for file in hostile_files()} <= STATUSES.keys() | {OK}
    assert sum(len(file.data) for file in hostile_files()) < 2 << 20


@pytest.mark.parametrize("file", [f for f in hostile_files() if f.size is None], ids=lambda file: ascii(file.name))
def test_files(file):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert status_of(file.data) == file.status


@pytest.mark.parametrize("shard", hostile_shards(), ids=lambda shard: shard.name)
def test_shards(shard, tmp_path):
    path = tmp_path / shard.name
    path.write_bytes(shard.data)
    table = lake.index_source(Source(*storage.object_info(str(path)), "tar"))
    fetched = lake.fetch_rows(table.to_pylist(), max_bytes=MAX_BYTES)
    found = [
        (image_id.removeprefix(str(path)), status_of(data))
        for image_id, data in zip(table["image_id"].to_pylist(), fetched, strict=True)
    ]
    assert found == list(shard.rows)
    for (suffix, _), data in zip(found, fetched, strict=True):
        if suffix.startswith("#good-") and isinstance(data, bytes):
            assert data == good_jpeg(int(suffix[6]))
    assert [entry.name for entry in tmp_path.iterdir()] == [shard.name]


def test_the_whole_lake(tmp_path):
    expected = write_lake(tmp_path / "lake")
    assert (tmp_path / "lake" / "huge.jpg").stat().st_blocks * 512 < 1 << 20 < HUGE_BYTES
    sources = lake.expand_inputs([str(tmp_path / "lake")])
    rows = [row for source in sources for row in lake.index_source(source).to_pylist()]
    fetched = lake.fetch_rows(rows, max_bytes=MAX_BYTES)
    found = {row["image_id"]: status_of(data) for row, data in zip(rows, fetched, strict=True)}
    assert len(found) == len(rows)
    assert found == expected


def test_ycck_shows_its_colours():
    assert np.abs(decode_image(ycck_jpeg(photo())).astype(int) - photo()).max() < 24


def test_bombs_are_refused_on_their_headers():
    """In a process of its own, whose peak memory tells whether pixels were allocated."""
    code = """
import resource
from support.hostile_images import hostile_files
from yolact.images.decode import ImageError, decode_image
bombs = [file for file in hostile_files() if file.name.startswith("bomb.")]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for bomb in bombs:
    try:
        decode_image(bomb.data)
    except ImageError as error:
        assert error.status == "too_large", error
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(bombs), after - before)
"""
    root = TESTS.parent
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{root}:{TESTS}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    bombs, kibibytes = map(int, done.stdout.split())
    assert bombs == 6
    assert kibibytes < 20_000
