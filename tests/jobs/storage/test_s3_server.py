"""The object store that the other tests stand on keeps what it promises them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import s3fs


def test_environment_reaches_this_process_and_its_children(s3):
    assert os.environ["AWS_ENDPOINT_URL"] == s3.endpoint
    path = f"{s3.prefix()}/a.txt"
    code = f"import s3fs; s3fs.S3FileSystem().pipe_file({path!r}, b'from a child')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert s3.filesystem().cat_file(path) == b"from a child"


def test_data_survives_kill_and_restart(s3):
    path = f"{s3.prefix()}/kept.bin"
    s3.filesystem().pipe_file(path, b"x" * 100_000)
    s3.kill()
    assert not s3.running
    s3.start()
    assert s3.filesystem().cat_file(path) == b"x" * 100_000
    s3.restart()
    assert s3.filesystem().cat_file(path) == b"x" * 100_000


def test_wrong_secret_is_refused(s3):
    stranger = s3fs.S3FileSystem(
        key="itestkey", secret="wrong", endpoint_url=s3.endpoint, skip_instance_cache=True, use_listings_cache=False
    )
    with pytest.raises(PermissionError):
        stranger.ls(s3.bucket)
