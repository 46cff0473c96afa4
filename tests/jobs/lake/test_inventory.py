"""S3 Inventory as an input: what it names is taken as a listing's, and no object is listed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections import Counter
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.lakes import fetch, put, tar_bytes

from jobs import lake, storage
from jobs.lake import Source, expand_inputs, index_source
from jobs.runtime.errors import UsageError

CSV_COLUMNS = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass"
PARQUET_SCHEMA = (
    "message s3.inventory {  required binary bucket (UTF8);  required binary key (UTF8);"
    "  optional binary version_id (UTF8);  optional boolean is_latest;  optional boolean is_delete_marker;"
    "  optional int64 size;  optional int64 last_modified_date (TIMESTAMP(MILLIS,true));"
    "  optional binary e_tag (UTF8);}"
)


def quoted(key: str) -> str:
    return quote_plus(key, safe="/")


def csv_file(bucket: str, rows: list[tuple]) -> bytes:
    """`rows` are (key, size, etag, is_latest, is_delete_marker)."""
    lines = [
        f'"{bucket}","{quoted(key)}","v1","{str(latest).lower()}","{str(gone).lower()}","{size}","2026-11-25T01:00:00.000Z"'
        f',"{etag}","STANDARD"\n'
        for key, size, etag, latest, gone in rows
    ]
    return gzip.compress("".join(lines).encode())


def parquet_file(bucket: str, rows: list[tuple]) -> bytes:
    keys, sizes, etags, latest, gone = zip(*rows, strict=True)
    table = pa.table(
        {
            "bucket": [bucket] * len(rows), "key": keys, "version_id": ["v1"] * len(rows), "is_latest": latest,
            "is_delete_marker": gone, "size": pa.array(sizes, pa.int64()), "e_tag": etags,
        }
    )  # fmt: skip
    stream = io.BytesIO()
    pq.write_table(table, stream, row_group_size=2)
    return stream.getvalue()


def put_report(folder: str, bucket: str, form: str, contents: list[bytes], **changes) -> str:
    """The uri of a report's manifest.json, with its files beside it under data/."""
    prefix = folder.split("/", 3)[3]
    ending = {"CSV": "csv.gz", "Parquet": "parquet", "ORC": "orc"}[form]
    entries = []
    for number, data in enumerate(contents):
        put(f"{folder}/data/{number}.{ending}", data)
        md5 = hashlib.md5(data).hexdigest()
        entries.append({"key": f"{prefix}/data/{number}.{ending}", "size": len(data), "MD5checksum": md5})
    manifest = {
        "sourceBucket": bucket, "destinationBucket": f"arn:aws:s3:::{bucket}", "version": "2016-11-30",
        "creationTimestamp": "1514944800000", "fileFormat": form,
        "fileSchema": CSV_COLUMNS if form == "CSV" else PARQUET_SCHEMA, "files": entries, **changes,
    }  # fmt: skip
    uri = f"{folder}/2026-11-25T01-00Z/manifest.json"
    put(uri, json.dumps(manifest).encode())
    return uri


@pytest.fixture
def stage(s3):
    """(the lake's prefix, its sources, rows of an inventory of it)"""
    prefix = s3.prefix()
    put(f"{prefix}/b b+ü.jpg", b"b")
    put(f"{prefix}/a.png", b"aa")
    put(f"{prefix}/s.tar", tar_bytes([("x.jpg", b"x")]))
    sources = expand_inputs([prefix])
    start = prefix.split("/", 3)[3]
    rows = [(source.uri.split("/", 3)[3], source.size, source.etag, True, False) for source in reversed(sources)]
    rows += [
        (f"{start}/old.jpg", 5, "e", False, False),
        (f"{start}/deleted.jpg", "", "", True, True),
        (f"{start}/notes.txt", 5, "e", True, False),
        (f"{start}/.hidden.jpg", 5, "e", True, False),
        (f"{start}/folder.jpg/", 0, "e", True, False),
    ]
    return prefix, sources, rows


@pytest.mark.parametrize("form", ["CSV", "Parquet"])
def test_an_inventory_is_taken_as_a_listing(s3, stage, form, monkeypatch):
    prefix, sources, rows = stage
    make = csv_file if form == "CSV" else parquet_file
    if form == "Parquet":
        rows = [(key, size or None, etag, latest, gone) for key, size, etag, latest, gone in rows]
    uri = put_report(s3.prefix(), s3.bucket, form, [make(s3.bucket, rows[:2]), make(s3.bucket, rows[2:])])
    monkeypatch.setattr("jobs.lake.expand.iter_objects", None)
    ignored = Counter()
    assert expand_inputs([uri], ignored=ignored) == sources
    assert ignored == {".txt": 1, "hidden": 1}
    first, second, shard = sources
    assert fetch(lake.image_rows([first, second])) == [b"aa", b"b"]
    assert fetch(index_source(shard)) == [b"x"]
    assert expand_inputs([uri], exclude=prefix.rpartition("/")[0] + "/elsewhere") == sources
    assert expand_inputs([uri, f"{prefix}/a.png"]) == sources


def test_without_sizes_it_is_a_list(s3, stage):
    prefix, sources, rows = stage
    lines = "".join(f'"{s3.bucket}","{quoted(key)}"\n' for key, *_ in rows[:3])
    uri = put_report(s3.prefix(), s3.bucket, "CSV", [gzip.compress(lines.encode())], fileSchema="Bucket, Key")
    assert expand_inputs([uri]) == [
        Source(source.uri, -1, "", "image") if source.kind == "image" else source for source in sources
    ]


def test_a_row_of_a_bucket_without_versions(s3, stage):
    _, sources, rows = stage
    lines = "".join(
        f'"{s3.bucket}","{quoted(key)}","","","","{size}","","{etag}",""\n' for key, size, etag, *_ in rows[:3]
    )
    uri = put_report(s3.prefix(), s3.bucket, "CSV", [gzip.compress(lines.encode())])
    assert expand_inputs([uri]) == sources


def test_what_is_no_inventory_is_one_line(s3, stage):
    _, _, rows = stage
    good = csv_file(s3.bucket, rows)
    cases = [
        ("ORC", [b"ORC"], {}, "an inventory in ORC cannot be read; have it made as CSV or Parquet"),
        ("CSV", [good], {"fileSchema": "Bucket, Size"}, "the inventory has no column key"),
        ("CSV", [b"not gzip"], {}, "this file of the inventory cannot be read"),
        ("Parquet", [b"not parquet"], {}, "this file of the inventory cannot be read"),
        ("CSV", [good], {"files": "x"}, "not the manifest of an S3 Inventory"),
    ]
    for form, files, changes, message in cases:
        uri = put_report(s3.prefix(), s3.bucket, form, files, **changes)
        with pytest.raises(UsageError, match=message) as caught:
            expand_inputs([uri])
        assert "\n" not in str(caught.value)
    uri = put_report(s3.prefix(), s3.bucket, "CSV", [good])
    storage.put_atomic(f"{uri.rpartition('/')[0].rpartition('/')[0]}/data/0.csv.gz", csv_file(s3.bucket, rows[:1]))
    with pytest.raises(UsageError, match="is not the one that its manifest names"):
        expand_inputs([uri])


def test_another_json_of_that_name_is_one_line(tmp_path):
    put(str(tmp_path / "manifest.json"), b'{"version": 3}')
    with pytest.raises(UsageError, match="not the manifest of an S3 Inventory"):
        expand_inputs([str(tmp_path / "manifest.json")])
    put(str(tmp_path / "manifest.json"), b"[")
    with pytest.raises(UsageError, match="not the manifest of an S3 Inventory"):
        expand_inputs([str(tmp_path / "manifest.json")])
