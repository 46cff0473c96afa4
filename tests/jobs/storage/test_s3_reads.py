"""S3 read as users read it: odd names, profiles, options of s3fs, refusals, damaged bodies."""

from __future__ import annotations

import fsspec.config
import pytest
from support.fault_proxy import FaultProxy

from jobs import storage
from jobs.storage import ObjectMissingError, Retry, TransientStorageError

DATA = bytes(range(256)) * 100


@pytest.fixture
def uri(s3):
    uri = f"{s3.prefix()}/object.bin"
    s3.filesystem().pipe_file(uri, DATA)
    return uri


def test_an_object_is_read_whole_in_part_and_with_its_version(s3, uri):
    (listed,) = storage.list_objects(uri.rpartition("/")[0])
    assert storage.read_bytes(uri, etag=listed.etag, size=listed.size) == DATA
    assert storage.read_range(uri, 7, 100, etag=listed.etag) == DATA[7:107]
    assert storage.read_versioned(uri) == (DATA, listed.etag)
    with pytest.raises(ObjectMissingError, match="404 NoSuchKey"):
        storage.read_bytes(f"{uri}-not-there")


@pytest.mark.parametrize("name", ["a b", "a+b", "ü☃", "%41", "x?y=1&z#2", "~[1]{2}", "'\"<>", "new\nline", "\x01"])
def test_names_that_addresses_must_quote(s3, name):
    prefix = s3.prefix()
    storage.put_atomic(f"{prefix}/{name}", name.encode())
    assert [item.uri for item in storage.list_objects(prefix)] == [f"{prefix}/{name}"]
    assert storage.read_bytes(f"{prefix}/{name}") == name.encode()


@pytest.mark.parametrize("option", ["FSSPEC_S3_REQUESTER_PAYS", "FSSPEC_S3_VERSION_AWARE"])
def test_options_of_s3fs_hold(s3, uri, monkeypatch, option):
    monkeypatch.setenv(option, "true")
    monkeypatch.setattr(fsspec.config, "conf", {"s3": {option.removeprefix("FSSPEC_S3_").lower(): True}})
    assert storage.read_bytes(uri) == DATA


def test_without_a_signature(s3, uri, monkeypatch):
    monkeypatch.setenv("FSSPEC_S3_ANON", "true")
    monkeypatch.setattr(fsspec.config, "conf", {"s3": {"anon": True}})
    with pytest.raises(TransientStorageError, match="403"):  # the test server knows no anonymous reader
        storage.read_bytes(uri, retry=Retry(attempts=1))


def test_a_profile_of_the_users_own_files(s3, uri, tmp_path, monkeypatch):
    (tmp_path / "credentials").write_text("[lake]\naws_access_key_id=itestkey\naws_secret_access_key=itestsecret\n")
    (tmp_path / "config").write_text(
        f"[profile lake]\nregion=eu-west-1\nendpoint_url={s3.endpoint}\ns3 =\n  addressing_style = path\n"
    )
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "ENDPOINT_URL", "DEFAULT_REGION", "REGION"):
        monkeypatch.delenv(f"AWS_{name}")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "lake")
    assert storage.read_bytes(uri) == DATA


def test_a_reader_who_may_not_read_is_refused(s3, uri, monkeypatch):
    for name, value in s3.reader_env.items():
        monkeypatch.setenv(name, value)
    assert storage.read_bytes(uri) == DATA
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    with pytest.raises(TransientStorageError, match="403 SignatureDoesNotMatch") as caught:
        storage.read_bytes(uri, retry=Retry(attempts=1))
    assert caught.value.reason == "forbidden"


def test_no_credentials_at_all_is_one_line(s3, uri, monkeypatch, tmp_path):
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"AWS_{name}")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(TransientStorageError, match="credentials") as caught:
        storage.read_bytes(uri, retry=Retry(attempts=1))
    assert caught.value.reason == "credentials"


def test_a_body_without_its_checksum_is_noticed(s3, monkeypatch):
    uri = f"{s3.prefix()}/object.bin"
    storage.put_atomic(uri, DATA)  # the client sends a checksum, and the store keeps it
    with FaultProxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.fail("short_length", times=2, method="GET", path="object.bin")
        retry = Retry(first_delay=0.01)
        assert storage.read_bytes(uri, retry=retry) == DATA
    assert retry.counts == {"corrupt body": 2}
