"""What every store of objects promises: files, and S3 as three servers understand it."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from services.common.errors import Category, CortexError
from services.scheduler.adapters import file_store
from services.scheduler.adapters.aws import s3
from services.scheduler.adapters.aws.s3 import S3Store
from services.scheduler.adapters.aws.session import CONNECTIONS, AwsSession
from services.scheduler.adapters.file_store import FileStore
from services.scheduler.domain.model.item_stream import StoredObject
from services.scheduler.usecases.ports.objects import ObjectStore, whole
from tests.contract.breaking_proxy import breaking_proxy
from tests.contract.object_servers import AwsServer

PLACES = count(1)

STORES = ["file", "ministack", "moto", "seaweedfs"]
S3_SERVERS = STORES[1:]


@dataclass(frozen=True)
class Place:
    """A store that works, and an empty place in it."""

    store: ObjectStore
    base: str
    """An address that ends with a slash."""
    faithful: bool = True
    """Whether keys are as in S3. Seaweedfs lists directory by directory, and takes a backslash for a slash."""

    async def put(self, *keys: str, content: bytes = b"content") -> None:
        for key in keys:
            await self.store.write(self.base + key, once(content))

    async def pages(self, prefix: str = "", after: str = "") -> list[Sequence[StoredObject]]:
        found = self.store.list(self.base + prefix, self.base + after if after else "")
        return [page async for page in found]

    async def keys(self, prefix: str = "", after: str = "") -> list[str]:
        return [stored.uri.removeprefix(self.base) for page in await self.pages(prefix, after) for stored in page]

    async def one(self, key: str) -> StoredObject:
        return next(stored for page in await self.pages(key) for stored in page if stored.uri == self.base + key)


async def once(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@asynccontextmanager
async def s3_session(environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AwsSession]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)  # the libraries read it themselves
    session = AwsSession(os.environ)
    try:
        yield session
    finally:
        await session.close()


@asynccontextmanager
async def s3_place(server: AwsServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    async with s3_session(server.environ, monkeypatch) as session:
        client = await session.client("s3")
        with suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
            await client.create_bucket(Bucket="bucket")
        yield Place(S3Store(session), f"s3://bucket/place {next(PLACES)}/", server.name != "seaweedfs")


@pytest.fixture(params=STORES)
async def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Place]:
    if request.param == "file":
        yield Place(FileStore([tmp_path]), f"file://{tmp_path}/")
        return
    async with s3_place(request.getfixturevalue(request.param), monkeypatch) as place:
        yield place


@pytest.fixture(params=S3_SERVERS)
async def s3_only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    async with s3_place(request.getfixturevalue(request.param), monkeypatch) as place:
        yield place


async def test_lists_recursively_in_the_order_of_the_keys_bytes(place: Place) -> None:
    keys = ["B", "a/b/c", "a/b-", "a-", "a/b0", "a0", ".hidden/.x", "é", "z", "😀", "ﬀ", "a/b/d"]
    await place.put(*keys)
    listed = await place.keys()
    assert sorted(listed) == sorted(keys)
    assert listed == await place.keys()
    if place.faithful:
        assert listed == sorted(keys, key=str.encode)


async def test_a_prefix_is_a_beginning_of_the_text(place: Place) -> None:
    await place.put("dir/file1", "dir/file2", "dir/file10", "dir2/a", "di")
    assert await place.keys("dir/fi") == await place.keys("dir/")
    assert await place.keys("dir/file2") == ["dir/file2"]
    assert await place.keys("dir2") == ["dir2/a"]
    assert await place.keys("di") == ["di", "dir/file1", "dir/file10", "dir/file2", "dir2/a"]
    assert await place.keys("nothing/here") == []
    assert await place.keys("dir/file2/below") == []


async def test_goes_on_behind_any_address(place: Place) -> None:
    keys = ["a-", "a/b-", "a/b/c", "a/b/d/e", "a/b0", "a0", "z"]
    await place.put(*keys)
    listed = await place.keys()
    for position, after in enumerate(listed):
        assert await place.keys(after=after) == listed[position + 1 :], after
    if place.faithful:
        for after in ["a", "a/", "a/b", "a/b/", "0", "zz", "a/b/d/e/f"]:
            assert await place.keys(after=after) == [key for key in keys if key > after], after
        assert await place.keys("a/", after="a/b-") == ["a/b/c", "a/b/d/e", "a/b0"]


async def test_many_objects_come_in_pages(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PAGE_OBJECTS", 10)
    monkeypatch.setattr(file_store, "PAGE_OBJECTS", 10)
    monkeypatch.setattr(file_store, "NAMES_AT_ONCE", 3)
    keys = [f"many/{number:02}" for number in range(23)]
    await place.put(*keys)
    pages = await place.pages("many/")
    assert [stored.uri.removeprefix(place.base) for page in pages for stored in page] == keys
    assert [len(page) for page in pages] == [10, 10, 3]


ODD = ["with space", "100%25", "a+b", "q?x=1", "a#b", "é/ü 😀", "a&b=<c>", "quo'te\"", "~!@$^*(){}[]|;:,"]


async def test_a_key_may_hold_any_character(place: Place) -> None:
    odd = ODD + ["back\\slash"] * place.faithful
    await place.put(*odd)
    assert sorted(await place.keys()) == sorted(odd)
    for key in odd:
        stored = await place.one(key)
        assert stored.uri == place.base + key
        assert await whole(place.store.read(stored, 0, stored.size)) == b"content"


async def test_reads_a_range(place: Place) -> None:
    await place.put("x", content=b"0123456789")
    stored = await place.one("x")
    assert stored.size == 10
    assert await whole(place.store.read(stored, 0, 10)) == b"0123456789"
    assert await whole(place.store.read(stored, 3, 7)) == b"3456"
    assert await whole(place.store.read(stored, 9, 10)) == b"9"
    assert await whole(place.store.read(stored, 4, 4)) == b""


async def test_an_object_that_was_changed_is_not_read(place: Place) -> None:
    await place.put("x", "y", content=b"0123456789")
    before = await place.one("x")
    assert await place.one("x") == before
    await place.put("x", content=b"abcdefghij")
    with pytest.raises(CortexError, match="was changed or removed after it was listed") as caught:
        await whole(place.store.read(before, 0, 5))
    assert (caught.value.kind, caught.value.category) == ("objects.changed", Category.CONFLICT)
    gone = StoredObject(place.base + "gone", 3, before.tag)
    shorter = StoredObject(before.uri, 20, (await place.one("x")).tag)
    for stored, end in ((gone, 3), (shorter, 20), (shorter, 11)):
        with pytest.raises(CortexError) as caught:
            await whole(place.store.read(stored, 0, end))
        assert caught.value.kind == "objects.changed"
    with pytest.raises(CortexError) as caught:
        await whole(place.store.read(shorter, 15, 20))
    assert caught.value.kind == "objects.changed"


async def test_an_answer_that_breaks_off_is_gone_on_with(seaweedfs: AwsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(3_000_000)
    async with breaking_proxy(seaweedfs) as (server, proxy), s3_place(server, monkeypatch) as place:
        await place.put("x", content=content)
        stored = await place.one("x")
    async with breaking_proxy(seaweedfs) as (server, proxy), s3_session(server.environ, monkeypatch) as session:
        proxy.limits = [1_000_000, 5_000, 700_000, 400_000, 200_000]
        assert await whole(S3Store(session).read(stored, 10, 2_900_000)) == content[10:2_900_000]
        assert proxy.connections == 6, "each went on where the one before had ended"


async def test_a_read_that_is_given_up_leaves_no_connection(
    seaweedfs: AwsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with s3_place(seaweedfs, monkeypatch) as place:
        await place.put("x", content=bytes(20_000_000))
        stored = await place.one("x")
        for _ in range(CONNECTIONS + 1):
            async with aclosing(place.store.read(stored, 0, stored.size)) as chunks:
                assert set(await anext(chunks)) == {0}


async def test_writes_the_whole_or_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 * 1024 * 1024)

    async def chunks(number: int, mistake: bool) -> AsyncIterator[bytes]:
        for index in range(number):
            yield bytes([index]) * 1024 * 1024
        if mistake:
            raise ZeroDivisionError

    for size in (1, 12):
        with pytest.raises(ZeroDivisionError):
            await place.store.write(place.base + "a/b/x", chunks(size, mistake=True))
        assert await place.keys() == []
    for size in (12, 5, 1, 0):
        await place.store.write(place.base + "a/b/x", chunks(size, mistake=False))
        stored = await place.one("a/b/x")
        assert stored.size == size * 1024 * 1024
        content = await whole(place.store.read(stored, 0, stored.size))
        assert content == b"".join([chunk async for chunk in chunks(size, mistake=False)])


async def test_an_upload_that_is_given_up_leaves_no_parts(s3_only: Place) -> None:
    assert isinstance(s3_only.store, S3Store)

    going = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        for number in count():
            yield bytes(4 * 1024 * 1024)
            if number == 10:
                going.set()

    task = asyncio.create_task(s3_only.store.write(s3_only.base + "x", endless()))
    await going.wait()
    client = await s3_only.store._session.client("s3")
    bucket = s3.split(s3_only.base)[0]
    assert (await client.list_multipart_uploads(Bucket=bucket))["Uploads"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not (await client.list_multipart_uploads(Bucket=bucket)).get("Uploads")
    assert await s3_only.keys() == []


async def test_says_whether_results_can_be_written(place: Place) -> None:
    await place.store.check_writable(place.base + "results/of/a/job")
    assert await place.keys() == []


USES: list[Callable[[ObjectStore, str], Any]] = [
    lambda store, uri: anext(aiter(store.list(uri))),
    lambda store, uri: whole(store.read(StoredObject(uri, 5, '"x"'), 0, 5)),
    lambda store, uri: store.write(uri, once(b"x")),
    lambda store, uri: store.check_writable(uri),
]


@pytest.mark.parametrize("use", [USES[0], *USES[2:]])  # seaweedfs does not tell a missing bucket from a missing object
async def test_a_missing_bucket_is_told(s3_only: Place, use: Callable[[ObjectStore, str], Any]) -> None:
    with pytest.raises(CortexError, match="s3://no-such-bucket/x: there is no such bucket") as caught:
        await use(s3_only.store, "s3://no-such-bucket/x")
    assert caught.value.kind == "aws.no_such_bucket"


@pytest.mark.parametrize("use", USES)
async def test_denied_access_is_told(
    seaweedfs: AwsServer, monkeypatch: pytest.MonkeyPatch, use: Callable[[ObjectStore, str], Any]
) -> None:
    async with s3_place(seaweedfs, monkeypatch) as place:
        await place.put("x")
    async with s3_session(seaweedfs.environ_of_nobody, monkeypatch) as session:
        with pytest.raises(CortexError, match="access is denied; the scheduler's AWS credentials need") as caught:
            await use(S3Store(session), place.base + "x")
    assert caught.value.kind == "aws.access_denied"
    assert place.base + "x" in caught.value.message


async def test_wrong_credentials_are_told(seaweedfs: AwsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for changed in ({"AWS_SECRET_ACCESS_KEY": "wrong"}, {"AWS_ACCESS_KEY_ID": "stranger"}):
        async with s3_session({**seaweedfs.environ, **changed}, monkeypatch) as session:
            with pytest.raises(CortexError, match="AWS_ACCESS_KEY_ID") as caught:
                await USES[0](S3Store(session), "s3://bucket/x")
        assert caught.value.kind == "aws.invalid_credentials"


async def test_missing_credentials_are_told(ministack: AwsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {name: value for name, value in ministack.environ.items() if "KEY" not in name}
    async with s3_session(environ, monkeypatch) as session:
        with pytest.raises(CortexError, match="AWS_ACCESS_KEY_ID") as caught:
            await USES[0](S3Store(session), "s3://bucket/x")
    assert caught.value.kind == "aws.credentials_not_found"


async def test_a_store_that_does_not_answer_may_do_so_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.scheduler.adapters.aws.session.ATTEMPTS", 1)  # each after a longer pause
    async with s3_session(AwsServer("nobody", "http://127.0.0.1:1").environ, monkeypatch) as session:
        with pytest.raises(CortexError, match="AWS_ENDPOINT_URL") as caught:
            await USES[0](S3Store(session), "s3://bucket/x")
    assert (caught.value.kind, caught.value.category) == ("aws.unreachable", Category.UNAVAILABLE)


@pytest.mark.parametrize("uri", ["s3://", "s3:///key", "s3:/b/c", "S3://b/c", "b/c", ""])
async def test_what_is_no_s3_path_is_told(uri: str) -> None:
    for use in USES:
        with pytest.raises(CortexError, match="s3://BUCKET/KEY is expected") as caught:
            await use(S3Store(AwsSession({})), uri)
        assert caught.value.kind == "aws.invalid_s3_path"
