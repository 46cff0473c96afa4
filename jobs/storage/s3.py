"""S3, and other stores with the same protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fsspec.asyn import sync

from jobs.storage.errors import ObjectChangedError, RetryableError
from jobs.storage.store import ObjectInfo, Page

Result = TypeVar("Result")

#: the most keys that one deletion request takes
_DELETE_BATCH = 1000
_DELETIONS_AT_ONCE = 8


class S3Store:
    """Operations through s3fs's client, each cut off after `timeout` seconds."""

    def __init__(self, filesystem: Any, timeout: float) -> None:
        self.filesystem = filesystem
        self.timeout = timeout

    def info(self, path: str) -> ObjectInfo:
        if not self._split(path)[1]:  # a bucket is a folder
            raise FileNotFoundError(path)
        head = self._call("head_object", path)
        return ObjectInfo(f"s3://{path}", head["ContentLength"], _unquoted(head["ETag"]))

    def read(self, path: str, offset: int, length: int | None, etag: str | None) -> bytes:
        return self._get(path, offset, length, etag)[0]

    def read_versioned(self, path: str) -> tuple[bytes, str]:
        return self._get(path, 0, None, None)

    def put(self, path: str, data: bytes) -> None:
        self._wait(lambda: self.filesystem._pipe_file(path, data))

    def put_if_absent(self, path: str, data: bytes) -> bool:
        return self._put_if(path, data, {"IfNoneMatch": "*"})

    def replace_if_unchanged(self, path: str, data: bytes, version: str) -> bool:
        return self._put_if(path, data, {"IfMatch": f'"{version}"'})

    def upload(self, local: Path, path: str) -> None:
        self._wait(lambda: self.filesystem._put_file(str(local), path))

    def list_page(self, folder: str, name_prefix: str, recursive: bool, token: str | None) -> Page:
        bucket, key = self._split(folder)
        top = f"{key.rstrip('/')}/" if key.strip("/") else ""
        arguments = {"Prefix": top + name_prefix}
        if not recursive:
            arguments["Delimiter"] = "/"
        if token is not None:
            arguments["ContinuationToken"] = token
        page = self._call("list_objects_v2", f"{bucket}/", **arguments)
        following = page.get("NextContinuationToken") if page.get("IsTruncated") else None
        contents = page.get("Contents", ())
        keys = [entry["Key"] for entry in contents]
        folders = (
            {key[: key.find("/", len(top + name_prefix)) + 1] for key in keys if following is not None} - {""}
            if recursive
            else [found["Prefix"] for found in page.get("CommonPrefixes", ())]
        )
        objects = [
            ObjectInfo(f"s3://{bucket}/{entry['Key']}", entry["Size"], _unquoted(entry["ETag"]))
            for entry in contents
            if not entry["Key"].endswith("/")  # zero-byte markers that stand for folders
        ]
        return Page(objects, following, tuple(sorted(found[len(top) :] for found in folders)))

    def has_folder(self, path: str) -> bool:
        bucket, key = self._split(path)
        prefix = f"{key.rstrip('/')}/" if key.strip("/") else ""
        return bool(self._call("list_objects_v2", f"{bucket}/", Prefix=prefix, MaxKeys=1).get("KeyCount"))

    def delete(self, paths: Sequence[str]) -> None:
        by_bucket: dict[str, list[str]] = {}
        for path in paths:
            bucket, key = self._split(path)
            by_bucket.setdefault(bucket, []).append(key)
        batches = [
            (bucket, keys[start : start + _DELETE_BATCH])
            for bucket, keys in by_bucket.items()
            for start in range(0, len(keys), _DELETE_BATCH)
        ]
        self._wait(lambda: self._delete_batches(batches))

    async def _delete_batches(self, batches: Sequence[tuple[str, list[str]]]) -> None:
        """One request a batch, several at the same time."""
        places = asyncio.Semaphore(_DELETIONS_AT_ONCE)

        async def delete(bucket: str, keys: list[str]) -> list[dict[str, Any]]:
            request = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
            async with places:
                answer = await self.filesystem._call_s3("delete_objects", Bucket=bucket, Delete=request)
            errors: list[dict[str, Any]] = answer.get("Errors", [])
            return errors

        errors = [error for found in await asyncio.gather(*(delete(*batch) for batch in batches)) for error in found]
        if errors:
            total = sum(len(keys) for _, keys in batches)
            detail = f"{len(errors)} of {total} objects not deleted: {errors[0].get('Message')}"
            raise RetryableError("partial deletion", detail)

    def _put_if(self, path: str, data: bytes, condition: dict[str, str]) -> bool:
        try:
            self._call("put_object", path, Body=data, **condition)
        except Exception as error:
            if _response_status(error) == 412 or (_response_status(error) == 404 and "IfMatch" in condition):
                return False
            raise
        return True

    def _get(self, path: str, offset: int, length: int | None, etag: str | None) -> tuple[bytes, str]:
        arguments: dict[str, str] = {} if etag is None else {"IfMatch": f'"{etag}"'}
        if offset or length is not None:
            arguments["Range"] = f"bytes={offset}-" if length is None else f"bytes={offset}-{offset + length - 1}"

        async def get() -> tuple[bytes, dict[str, Any]]:
            bucket, key = self._split(path)
            response = await self.filesystem._call_s3("get_object", Bucket=bucket, Key=key, **arguments)
            async with response["Body"] as body:
                return await body.read(), response

        data, response = self._wait(get)
        total = str(response.get("ContentRange", "")).rpartition("/")[2]
        if length is not None and total.isdigit() and int(total) < offset + length:
            raise ObjectChangedError(f"s3://{path} has only {total} of the {offset + length} bytes it was listed with")
        expected = response["ContentLength"] if length is None else length
        if len(data) != expected:
            raise RetryableError("short body", f"{len(data)} bytes arrived instead of {expected}")
        return data, _unquoted(response["ETag"])

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        bucket, key = self._split(path)
        target = {"Bucket": bucket, "Key": key} if key else {"Bucket": bucket}
        return self._wait(lambda: self.filesystem._call_s3(method, **target, **arguments))

    def _split(self, path: str) -> tuple[str, str]:
        bucket, key = self.filesystem._find_bucket_key(path)
        return str(bucket), str(key)

    def _wait(self, coroutine: Callable[[], Awaitable[Result]]) -> Result:
        async def bounded() -> Result:
            return await asyncio.wait_for(coroutine(), self.timeout)

        result: Result = sync(self.filesystem.loop, bounded)
        return result


def _unquoted(etag: str) -> str:
    return etag.strip('"')


def _response_status(error: BaseException) -> object:
    for link in (error, error.__cause__):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return None
