"""The two requests that S3 gets by the million, with less work for each: GET of an object, and listings.

aiobotocore spends 2 to 6 ms of CPU on a GET and some 150 µs on each listed key, mostly in models of requests and
answers. Here botocore signs a GET and aiobotocore's session sends it, so that credentials, proxies, certificates and
time-outs are those of the client. A listing goes through the client, but its keys are parsed here.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, unquote_plus
from weakref import WeakKeyDictionary
from xml.etree import ElementTree

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError

from jobs.storage.errors import RetryableError

#: under this name the answer to a listing holds its keys, as (key, size, etag)
LISTED = "yolact_listed"

#: answers to a request that went to another region or address than the bucket's: the client knows what to do then
_ELSEWHERE_STATUSES = (301, 302, 307, 308)
_ELSEWHERE_CODES = ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect")
_CHECKSUMS: dict[str, Callable[[bytes], bytes]] = {
    "x-amz-checksum-crc32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "x-amz-checksum-sha256": lambda data: hashlib.sha256(data).digest(),
}


class ElsewhereError(Exception):
    """The bucket is not where the request was sent. The client's own GET finds it."""


class DirectReads:
    """GET requests through the session of one aiobotocore client."""

    def __init__(self, client: Any) -> None:
        self._client = client
        region = client.meta.region_name
        # a client without a region signs for this one
        self._region = "us-east-1" if region in (None, "aws-global") else region
        self._places: dict[str, str] = {}
        self._elsewhere: set[str] = set()
        validates = client.meta.config.response_checksum_validation == "when_supported"
        self._headers = {"x-amz-checksum-mode": "ENABLED"} if validates else {}

    def take(self, bucket: str) -> bool:
        """Whether objects of this bucket can be read here; else the client's own GET must be used.

        Not taken: anonymous clients and other signatures, access points, directory buckets (S3 Express), and buckets
        that were found elsewhere.
        """
        usual = self._client.meta.config.signature_version == "s3v4"
        return usual and not bucket.startswith("arn:") and "--" not in bucket and bucket not in self._elsewhere

    async def get(self, bucket: str, key: str, headers: Mapping[str, str]) -> tuple[bytes, Mapping[str, str]]:
        """The body, and the headers of the answer by names in lower case.

        Raises ElsewhereError, botocore's ClientError with the store's own code, and what aiohttp raises.
        """
        request = AWSRequest("GET", await self._place(bucket) + quote(key), {**self._headers, **headers})
        request.stream_output = True
        credentials = await self._client._request_signer._credentials.get_frozen_credentials()
        S3SigV4Auth(credentials, "s3", self._region).add_auth(request)
        response = await self._client._endpoint.http_session.send(request.prepare())
        async with response.raw:
            data: bytes = await response.raw.read()
        if response.status_code >= 300:
            raise self._refusal(response.status_code, data, bucket)
        if response.status_code == 200:
            _check(data, response.headers)
        return data, response.headers

    async def _place(self, bucket: str) -> str:
        """The address of a bucket, with a slash at its end, as the client makes it from all its settings."""
        if bucket not in self._places:
            signed = await self._client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
            self._places[bucket] = signed.partition("?")[0][:-1]
        return self._places[bucket]

    def _refusal(self, status: int, body: bytes, bucket: str) -> Exception:
        code, message = _error_of(body)
        if status in _ELSEWHERE_STATUSES or code in _ELSEWHERE_CODES:
            self._elsewhere.add(bucket)
            return ElsewhereError(code)
        answer = {
            "Error": {"Code": code or str(status), "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": status},
        }
        return ClientError(answer, "GetObject")


_reads: WeakKeyDictionary[Any, DirectReads] = WeakKeyDictionary()


async def direct_reads(filesystem: Any, bucket: str) -> DirectReads | None:
    """The reads through the client of an s3fs filesystem; None where the client's own GET must be used.

    Options of the user that change each request (requester pays, keys of encryption) are known to s3fs only.
    """
    if filesystem.req_kw or filesystem.s3_additional_kwargs or filesystem.version_aware:
        return None
    client = await _client_of(filesystem, bucket)
    if client not in _reads:
        _reads[client] = DirectReads(client)
    return _reads[client] if _reads[client].take(bucket) else None


async def parse_listings_fast(filesystem: Any, bucket: str) -> None:
    """Make the answers of `list_objects_v2` hold their keys under `LISTED`, and nothing under "Contents"."""
    client = await _client_of(filesystem, bucket)
    client.meta.events.register_last("before-parse.s3.ListObjectsV2", _take_keys_out, unique_id="yolact-listing")


async def _client_of(filesystem: Any, bucket: str) -> Any:
    await filesystem.set_session()
    return await filesystem.get_s3(bucket)


def _take_keys_out(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """botocore calls this before it parses an answer: its own parser then sees an answer without keys."""
    if response_dict["status_code"] != 200:
        return
    root = ElementTree.fromstring(response_dict["body"])
    space = root.tag.rpartition("}")[0] + "}" if root.tag.startswith("{") else ""
    decode = unquote_plus if root.findtext(f"{space}EncodingType") == "url" else str
    names = f"{space}Key", f"{space}Size", f"{space}ETag"
    entries = root.findall(f"{space}Contents")
    found = ([entry.findtext(name, "") for name in names] for entry in entries)
    customized_response_dict[LISTED] = [(decode(key), int(size), etag.strip('"')) for key, size, etag in found]
    rest = [child for child in root if child.tag != f"{space}Contents"]
    root[:] = rest
    response_dict["body"] = ElementTree.tostring(root)


def _check(data: bytes, headers: Mapping[str, str]) -> None:
    """Hold a whole body against the checksum that the store sent along, if it is one of the usual kinds."""
    for name, checksum_of in _CHECKSUMS.items():
        expected = headers.get(name)
        # "…-3" is a checksum of the checksums of three parts
        if expected and "-" not in expected and base64.b64decode(expected) != checksum_of(data):
            raise RetryableError("corrupt body", f"the body does not have the checksum that came with it ({name})")


def _error_of(body: bytes) -> tuple[str, str]:
    """Code and message of the store's answer; empty where it is none of S3."""
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        return "", ""
    found = {child.tag.rpartition("}")[2]: child.text or "" for child in root}
    return found.get("Code", ""), found.get("Message", "")
