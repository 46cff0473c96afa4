"""`python -m benchmarks.against_ray_data`: what it sees of a table, and one scenario with both programs."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.against_ray_data.__main__ import AgainstConfig, draw_poison, measure
from benchmarks.against_ray_data.programs import RAY_DATA, YOLACT
from benchmarks.against_ray_data.reader import TableReader, judge
from benchmarks.against_ray_data.scenarios import POISON, POISON_HEIGHT, POISON_WIDTH
from benchmarks.against_ray_data.stand_in_gpu import Batch, busy_share, read_batches
from benchmarks.against_ray_data.trial import ROOT
from benchmarks.object_store.proxy import Request
from benchmarks.scale.stand_in import draw_encodings
from benchmarks.tables import put_into_page


def parquet(*ids: str, error: str | None = None) -> bytes:
    file = io.BytesIO()
    errors = pa.array([error] * len(ids), pa.string())
    pq.write_table(pa.table({"path": [f"bucket/lake/{name}" for name in ids], "error": errors}), file)
    return file.getvalue()


@pytest.fixture
def output(s3) -> str:
    return s3.prefix("against").removeprefix("s3://")


def test_a_whole_table_is_not_torn(s3, output):
    reader = TableReader(s3.filesystem(), output, RAY_DATA)
    s3.filesystem().pipe_file(f"{output}/data/one.parquet", parquet("a", "b"))
    reader.look()
    s3.filesystem().pipe_file(f"{output}/data/two.parquet", parquet("c"))
    reader.look()
    assert (reader.torn.files, reader.torn.doubled, reader.torn.looks) == (0, set(), 2)


def test_files_that_go_away_or_cannot_be_read_are_torn(s3, output):
    reader = TableReader(s3.filesystem(), output, RAY_DATA)
    s3.filesystem().pipe_file(f"{output}/data/one.parquet", parquet("a", "b"))
    s3.filesystem().pipe_file(f"{output}/data/half.parquet", parquet("c")[:-9])
    reader.look()
    s3.filesystem().rm_file(f"{output}/data/one.parquet")
    reader.look()
    assert {path.rpartition("/")[2] for path in reader.torn.gone} == {"one.parquet"}
    assert {path.rpartition("/")[2] for path in reader.torn.unreadable} == {"half.parquet"}
    assert reader.torn.files == 2


def test_an_id_that_stands_twice_for_a_while_is_torn(s3, output):
    reader = TableReader(s3.filesystem(), output, RAY_DATA)
    s3.filesystem().pipe_file(f"{output}/data/one.parquet", parquet("a", "b"))
    s3.filesystem().pipe_file(f"{output}/data/two.parquet", parquet("b"))
    reader.look()
    s3.filesystem().rm_file(f"{output}/data/two.parquet")
    reader.look()
    assert reader.torn.doubled == {"b"}


def test_the_verdict_counts_lost_doubled_and_failed_rows(s3, output):
    s3.filesystem().pipe_file(f"{output}/data/one.parquet", parquet("a", "b"))
    s3.filesystem().pipe_file(f"{output}/data/two.parquet", parquet("b", "c", error="undecodable"))
    verdict = judge(s3.filesystem(), output, RAY_DATA, ["a", "b", "c", "d", "e"])
    assert (verdict.rows, verdict.lost, verdict.doubled, verdict.failed) == (4, 2, 1, 2)


def test_busy_is_the_share_of_all_gpus_from_first_to_last_batch(tmp_path):
    (tmp_path / "7-1").write_text("10.0 11.0 4\n12.0 13.0 4\n")
    (tmp_path / "8-1").write_text("10.0 14.0 16\n11.0 1")  # a line that is being written
    batches = read_batches(tmp_path)
    assert batches == [Batch(7, 10.0, 11.0, 4), Batch(7, 12.0, 13.0, 4), Batch(8, 10.0, 14.0, 16)]
    assert busy_share(batches, gpus=2) == pytest.approx(6 / 8)
    assert busy_share([], gpus=2) == 0.0


@pytest.mark.parametrize(
    ("kind", "path", "completes", "wrote", "in_commit"),
    [
        ("PUT", "/b/out/_state/staging/part-000000/unit-000000.parquet", True, [YOLACT], []),
        ("PUT", "/b/out/labels/part-000000.parquet", True, [], [YOLACT]),
        ("PUT", "/b/out/data/x_000001-0.parquet", False, [], []),
        ("POST", "/b/out/data/x_000001-0.parquet", True, [RAY_DATA], []),
        ("COPY", "/b/out/checkpoint/x_000001.parquet", True, [], [RAY_DATA]),
        ("PUT", "/b/out/_state/lease.json", True, [], []),
    ],
)
def test_steps_of_commits_are_known_by_their_requests(kind, path, completes, wrote, in_commit):
    request = Request(0.0, kind, path, 200, completes, 0, 0)
    assert [program for program in (RAY_DATA, YOLACT) if program.wrote_rows(request)] == wrote
    assert [program for program in (RAY_DATA, YOLACT) if program.in_commit(request)] == in_commit


def test_a_table_is_put_between_its_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bill -->\nold\n<!-- /bill -->\nafter\n")
    put_into_page(page, "bill", "| new \\1 |\n")
    assert page.read_text() == "before\n<!-- bill -->\n| new \\1 |\n<!-- /bill -->\nafter\n"
    with pytest.raises(ValueError, match="<!-- other -->"):
        put_into_page(page, "other", "x\n")


@pytest.mark.process
def test_the_poison_kills_whoever_decodes_it_and_nobody_else():
    script = "import sys; from yolact.images.decode import decode_image; decode_image(sys.stdin.buffer.read())"
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{POISON}",
        "POISON_SIZE": f"{POISON_WIDTH}x{POISON_HEIGHT}",
    }

    def exit_code(image: bytes) -> int:
        return subprocess.run([sys.executable, "-c", script], input=image, env=environment).returncode

    assert exit_code(draw_encodings(1)[0]) == 0
    assert exit_code(draw_poison()) == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.store
@pytest.mark.timeout(1200)
def test_both_programs_go_through_a_scenario(tmp_path):
    config = AgainstConfig(output=tmp_path / "out", scenarios=("commit",), images=192, gpu_ms=5.0, ids=0)
    report = measure(config, tmp_path)
    other, label = report.results
    assert (other.program, label.program) == (RAY_DATA.name, YOLACT.name)
    # both were killed once, and ended well at their second start
    assert other.exit_codes == label.exit_codes == [-9, 0]
    assert (label.rows, label.lost, label.doubled, label.torn_files, label.torn_ids) == (192, 0, 0, 0, 0)
    assert label.resume_seconds is None or label.resume_seconds > 0
    saved = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [result["program"] for result in saved["results"]] == [RAY_DATA.name, YOLACT.name]
    assert "| yolact label | -9, 0 | 0 | 0 | 0 |" in report.markdown(timed=False)
