"""Reads and listings of S3 past aiobotocore's models: which ones go that way, and that the others still work."""

from __future__ import annotations

import fsspec.config
import pytest
from fsspec.asyn import sync
from support.fault_proxy import FaultProxy

from jobs import storage
from jobs.storage import ObjectMissingError, Retry, TransientStorageError
from jobs.storage.filesystems import open_filesystem

DATA = bytes(range(256)) * 100


@pytest.fixture
def uri(s3):
    uri = f"{s3.prefix()}/object.bin"
    s3.filesystem().pipe_file(uri, DATA)
    return uri


def client_gets(uri: str) -> list[str]:
    """A list that grows with each GET that the client itself makes."""
    filesystem, _ = open_filesystem(uri)
    found: list[str] = []

    async def watch() -> None:
        client = await filesystem.set_session()
        client.meta.events.register("before-call.s3.GetObject", lambda model, **_: found.append(model.name))

    sync(filesystem.loop, watch)
    return found


def test_objects_are_read_without_the_models_of_the_client(s3, uri):
    slow = client_gets(uri)
    (listed,) = storage.list_objects(uri.rpartition("/")[0])
    assert storage.read_bytes(uri, etag=listed.etag, size=listed.size) == DATA
    assert storage.read_range(uri, 7, 100, etag=listed.etag) == DATA[7:107]
    assert storage.read_versioned(uri) == (DATA, listed.etag)
    with pytest.raises(ObjectMissingError, match="404 NoSuchKey"):
        storage.read_bytes(f"{uri}-not-there")
    assert slow == []


@pytest.mark.parametrize("name", ["a b", "a+b", "ü☃", "%41", "x?y=1&z#2", "~[1]{2}", "'\"<>", "new\nline", "\x01"])
def test_names_that_addresses_must_quote(s3, name):
    prefix = s3.prefix()
    storage.put_atomic(f"{prefix}/{name}", name.encode())
    assert [item.uri for item in storage.list_objects(prefix)] == [f"{prefix}/{name}"]
    assert storage.read_bytes(f"{prefix}/{name}") == name.encode()


def test_a_bucket_that_is_elsewhere_is_read_by_the_client(s3, uri, monkeypatch):
    with FaultProxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        slow = client_gets(uri)
        rule = proxy.fail("moved", times=1, path="object.bin")
        retry = Retry(first_delay=0.01)
        assert storage.read_bytes(uri, retry=retry) == DATA
        assert (rule.hits, retry.counts) == (1, {})
        assert storage.read_range(uri, 5, 5) == DATA[5:10]
    assert slow == ["GetObject"] * 2


@pytest.mark.parametrize("option", ["FSSPEC_S3_REQUESTER_PAYS", "FSSPEC_S3_VERSION_AWARE"])
def test_options_that_only_s3fs_knows_are_left_to_it(s3, uri, monkeypatch, option):
    monkeypatch.setenv(option, "true")
    monkeypatch.setattr(fsspec.config, "conf", {"s3": {option.removeprefix("FSSPEC_S3_").lower(): True}})
    slow = client_gets(uri)
    assert storage.read_bytes(uri) == DATA
    assert slow == ["GetObject"]


def test_without_a_signature(s3, uri, monkeypatch):
    monkeypatch.setenv("FSSPEC_S3_ANON", "true")
    monkeypatch.setattr(fsspec.config, "conf", {"s3": {"anon": True}})
    slow = client_gets(uri)
    with pytest.raises(TransientStorageError, match="403"):  # the test server knows no anonymous reader
        storage.read_bytes(uri, retry=Retry(attempts=1))
    assert slow == ["GetObject"]


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
    slow = client_gets(uri)
    assert storage.read_bytes(uri) == DATA
    assert slow == []


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
