"""Objects of S3, or of a store that is compatible with it.

A URI is `s3://`, the bucket, `/` and the key as it is: nothing in it is escaped. An object is known by its entity tag:
a read says which one it means (`If-Match`), so that bytes of two contents never come together.

What is smaller than a part is written by one request. Anything else is uploaded in parts, of which nobody sees anything
until the last request puts them together; parts grow, so that an object may be larger than memory and the limit of
10,000 parts is far away. An upload that is given up is aborted; what a killed process leaves behind is invisible, and
the bucket's lifecycle rules may clean it up.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from typing import Any

from services.common.errors import CortexError
from services.scheduler.adapters.aws.errors import code_of, explained
from services.scheduler.adapters.aws.session import AwsSession
from services.scheduler.domain.errors import object_changed
from services.scheduler.domain.model.item_stream import StoredObject

SCHEME = "s3://"

PART_BYTES = 8 * 1024 * 1024
"""Of the first parts; S3 takes no smaller ones than 5 MiB."""

PARTS_OF_ONE_SIZE = 2000
"""After so many a part is twice as long as before."""

READ_ATTEMPTS = 3
"""A connection may break while an answer comes in, which the client's own retries do not cover."""

CHUNK_BYTES = 256 * 1024
"""Of an answer, at most: about what there is at once."""

PAGE_OBJECTS = 1000
"""S3 gives no more at once."""

_GONE_CODES = frozenset({"NoSuchKey", "PreconditionFailed", "InvalidRange"})


class S3Store:
    """The port `ObjectStore` for `s3://`."""

    def __init__(self, session: AwsSession) -> None:
        self._session = session

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Sequence[StoredObject]]:
        """A page for each request: up to 1000 objects. See the port."""
        bucket, key = split(prefix)
        client = await self._session.client("s3")
        asked: dict[str, str | int] = {"Bucket": bucket, "Prefix": key, "MaxKeys": PAGE_OBJECTS}
        if after:
            asked["StartAfter"] = split(after)[1]
        while True:
            with explained(f"listing {prefix}"):
                answer = await client.list_objects_v2(**asked)
            page = [
                StoredObject(f"{SCHEME}{bucket}/{found['Key']}", found["Size"], found["ETag"])
                for found in answer.get("Contents", ())
                if not found["Key"].endswith("/")
            ]
            if page:
                yield page
            if not answer.get("IsTruncated"):
                return
            asked["ContinuationToken"] = answer["NextContinuationToken"]

    async def read(self, stored: StoredObject, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """One ranged request, and another from where an answer breaks off. See the port."""
        attempt = 1
        while start < end:
            try:
                async with aclosing(self._read(stored, start, end)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                        start += len(chunk)
                        attempt = 1
            except CortexError as error:
                if error.kind != "aws.unreachable" or attempt == READ_ATTEMPTS:
                    raise
                attempt += 1

    async def _read(self, stored: StoredObject, start: int, end: int) -> AsyncGenerator[bytes, None]:
        bucket, key = split(stored.uri)
        client = await self._session.client("s3")
        with explained(f"reading {stored.uri}"):
            try:
                answer = await client.get_object(
                    Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}", IfMatch=stored.tag
                )
            except Exception as error:
                if code_of(error)[0] not in _GONE_CODES:
                    raise
                raise object_changed(stored) from error
            body = answer["Body"]
            async with body:  # its connection is kept, unless there is more to come
                # A store may not know If-Match, or give less than was asked for.
                if answer["ETag"] != stored.tag or answer["ContentLength"] != end - start:
                    raise object_changed(stored)
                while chunk := await body.read(CHUNK_BYTES):
                    yield chunk

    async def write(self, uri: str, chunks: AsyncIterator[bytes]) -> None:
        """See the port."""
        bucket, key = split(uri)
        if not key or key.endswith("/"):
            raise CortexError("aws.invalid_s3_path", f"{uri} names no object: s3://BUCKET/KEY is expected")
        client = await self._session.client("s3")
        parts = _in_parts(chunks)
        first = await anext(parts)
        second = await anext(parts, None)
        if second is None:
            with explained(f"writing {uri}"):
                await client.put_object(Bucket=bucket, Key=key, Body=first)
            return
        with explained(f"writing {uri}"):
            upload = _Upload(client, {"Bucket": bucket, "Key": key})
            await upload.begin()
        try:
            with explained(f"writing {uri}"):
                await upload.add(first)
                await upload.add(second)
                del first, second
                async for part in parts:
                    await upload.add(part)
                await upload.complete()
        except BaseException:
            await asyncio.shield(upload.abort())
            raise

    async def check_writable(self, uri_prefix: str) -> None:
        """Begins an upload and gives it up, which shows the permission and leaves no object. See the port."""
        bucket, key = split(uri_prefix)
        client = await self._session.client("s3")
        with explained(f"writing to {uri_prefix}"):
            upload = _Upload(client, {"Bucket": bucket, "Key": f"{key}.cortex-write-check"})
            await upload.begin()
            await upload.abort()


class _Upload:
    """An object that is written in parts."""

    def __init__(self, client: Any, target: dict[str, str]) -> None:
        self._client = client
        self._target = target
        self._parts: list[dict[str, Any]] = []

    async def begin(self) -> None:
        answer = await self._client.create_multipart_upload(**self._target)
        self._target = self._target | {"UploadId": answer["UploadId"]}

    async def add(self, data: bytes) -> None:
        number = len(self._parts) + 1
        answer = await self._client.upload_part(**self._target, PartNumber=number, Body=data)
        self._parts.append({"PartNumber": number, "ETag": answer["ETag"]})

    async def complete(self) -> None:
        await self._client.complete_multipart_upload(**self._target, MultipartUpload={"Parts": self._parts})

    async def abort(self) -> None:
        """Best effort: whoever called has something more important to tell."""
        with suppress(Exception):
            await self._client.abort_multipart_upload(**self._target)


async def _in_parts(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in parts of the sizes that are uploaded; at least one, which may be empty."""
    gathered = bytearray()
    number = 0
    async for chunk in chunks:
        gathered += chunk
        while len(gathered) >= (size := PART_BYTES << (number // PARTS_OF_ONE_SIZE)):
            yield bytes(memoryview(gathered)[:size])
            del gathered[:size]
            number += 1
    if gathered or number == 0:
        yield bytes(gathered)


def split(uri: str) -> tuple[str, str]:
    """Bucket and key. Raises `CortexError` (`aws.invalid_s3_path`)."""
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    if not uri.startswith(SCHEME) or not bucket:
        raise CortexError("aws.invalid_s3_path", f"{uri!r} is not an S3 path: s3://BUCKET/KEY is expected")
    return bucket, key
