"""No credential in what a run says or writes."""

from __future__ import annotations

import io
import logging

import pyarrow.parquet as pq
import pytest
from support.fault_proxy import FaultProxy
from support.lakes import draw_images, write_files
from support.models import save_tiny_checkpoint
from support.s3_server import ACCESS_KEY, SECRET_KEY

from jobs.label import run
from jobs.label.options import LabelConfig


@pytest.mark.usefixtures("local_ray")
def test_credentials_of_the_environment_stand_nowhere(s3, tmp_path, monkeypatch, capsys, caplog):
    caplog.set_level(logging.INFO, logger="jobs")
    lake, output = s3.prefix("lake"), s3.prefix("out")
    # bytes of a bad image may come back in an error; so may those of a store's refusal
    bad = f"<Error><AWSAccessKeyId>{ACCESS_KEY}</AWSAccessKeyId>{SECRET_KEY}</Error>".encode()
    write_files(lake, {**draw_images(3), "refused.jpg": bad, f"{SECRET_KEY[:4]}.jpg": b""})
    with FaultProxy(s3.endpoint) as proxy:
        proxy.fail("forbidden", times=3)
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        config = LabelConfig(
            (lake,), output, weights=str(save_tiny_checkpoint(tmp_path)), precision="float32", max_error_rate=1.0
        )
        assert run(config) == 0
        assert proxy.requests
    captured = capsys.readouterr()
    filesystem = s3.filesystem()
    texts = {"stdout": captured.out, "stderr": captured.err, "log": caplog.text}
    for path in filesystem.find(output):
        data = filesystem.cat_file(path)
        if path.endswith(".parquet"):
            table = pq.read_table(io.BytesIO(data))
            texts[path] = f"{table.to_pylist()} {table.schema.metadata}"
        else:
            texts[path] = data.decode(errors="replace")  # the hashes of ids are no text
    assert len(texts) >= 6
    for name, text in texts.items():
        assert ACCESS_KEY not in text, name
        assert SECRET_KEY not in text, name
