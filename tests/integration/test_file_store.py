"""Files as objects: what is only true of files."""

import asyncio
import os
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.common.errors import Category, CortexError
from services.scheduler.adapters.file_store import PARTIAL, FileStore
from services.scheduler.domain.model.item_stream import StoredObject
from services.scheduler.usecases.ports.objects import whole


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    outside = tmp_path / "root-of-others"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    return outside


async def listed(store: FileStore, prefix: str, after: str = "") -> list[StoredObject]:
    return [stored async for page in store.list(prefix, after) for stored in page]


async def uris(store: FileStore, prefix: str) -> list[str]:
    return [stored.uri for stored in await listed(store, prefix)]


async def once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def test_without_roots_the_error_says_how_to_open_one() -> None:
    store = FileStore([])
    for use in (
        listed(store, "file:///etc/passwd"),
        store.write("file:///tmp/x", once(b"")),
        store.check_writable("file:///"),
    ):
        with pytest.raises(CortexError, match=re.escape("cortex up --input-root DIR")) as caught:
            await use
        assert caught.value.kind == "files.outside_roots"


@pytest.mark.parametrize("path", ["/etc/passwd", "{root}-of-others/secret", "{above}", "/", "{above}/roo"])
async def test_nothing_outside_of_the_roots_is_listed(root: Path, outside: Path, path: str) -> None:
    uri = "file://" + path.format(root=root, above=root.parent)
    with pytest.raises(CortexError, match=f"only {root} and what is below is open to jobs") as caught:
        await listed(FileStore([root]), uri)
    assert caught.value.kind == "files.outside_roots"


@pytest.mark.parametrize(
    "path", ["{root}/../root-of-others/secret", "{root}/..", "{root}/.", "{root}//x", "{root}/./x", "{root}/a\0b"]
)
async def test_a_path_is_written_plainly(root: Path, outside: Path, path: str) -> None:
    with pytest.raises(CortexError, match="written plainly") as caught:
        await listed(FileStore([root]), "file://" + path.format(root=root))
    assert caught.value.kind == "files.invalid_path"


@pytest.mark.parametrize("uri", ["file:", "file://", "file://host/x", "file:x", "/x"])
async def test_what_is_no_address_of_a_file_is_told(root: Path, uri: str) -> None:
    with pytest.raises(CortexError, match="file:///PATH is expected"):
        await listed(FileStore([root]), uri)


async def test_the_root_itself_is_a_prefix_of_what_is_below(root: Path, outside: Path) -> None:
    (root / "x").write_text("x")
    for prefix in (f"file://{root}", f"file://{root}/"):
        assert await uris(FileStore([root]), prefix) == [f"file://{root}/x"]
    assert await uris(FileStore([root, outside]), f"file://{outside}") == [f"file://{outside}/secret"]


async def test_links_may_lead_below_the_root(root: Path) -> None:
    (root / "a").mkdir()
    (root / "a" / "x").write_text("content")
    (root / "b").symlink_to("a")
    (root / "c").symlink_to(root / "a" / "x")
    store = FileStore([root])
    found = await listed(store, f"file://{root}/")
    assert [stored.uri.removeprefix(f"file://{root}/") for stored in found] == ["a/x", "b/x", "c"]
    for stored in found:
        assert await whole(store.read(stored, 0, stored.size)) == b"content"


async def test_a_root_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (root / "x").write_text("content")
    (tmp_path / "link").symlink_to(root)
    store = FileStore([tmp_path / "link"])
    (stored,) = await listed(store, f"file://{tmp_path}/link/")
    assert await whole(store.read(stored, 0, 7)) == b"content"


async def test_links_out_of_the_root_are_refused(root: Path, outside: Path) -> None:
    (root / "directory").symlink_to(outside)
    (root / "file").symlink_to("../root-of-others/secret")
    (root / "plain").write_text("x")
    store, base = FileStore([root]), f"file://{root}/"
    for use in (
        listed(store, base + "directory"),
        listed(store, base + "directory/"),
        listed(store, base + "file"),
        whole(store.read(StoredObject(base + "file", 6, ""), 0, 6)),
        whole(store.read(StoredObject(base + "directory/secret", 6, ""), 0, 6)),
        store.write(base + "directory/x", once(b"x")),
        store.check_writable(base + "directory/x"),
    ):
        with pytest.raises(CortexError, match="leads out of") as caught:
            await use
        assert caught.value.kind == "files.outside_roots"
    assert await uris(store, base + "p") == [base + "plain"]
    assert [path.name for path in outside.iterdir()] == ["secret"]


async def test_a_link_that_is_put_there_meanwhile_leads_nowhere(root: Path, outside: Path) -> None:
    """A thread exchanges a directory for a link all the time; what is outside is never read."""
    (root / "real").mkdir()
    (root / "real" / "secret").write_text("public")
    (root / "evil").symlink_to(outside)
    stop = threading.Event()

    def exchange() -> None:
        (root / "way").symlink_to("real")
        while not stop.is_set():
            for target in ("evil", "real"):
                (root / "next").symlink_to(target)
                (root / "next").rename(root / "way")

    thread = threading.Thread(target=exchange)
    store = FileStore([root])
    tag = (await listed(store, f"file://{root}/real/"))[0].tag
    stored = StoredObject(f"file://{root}/way/secret", 6, tag)
    thread.start()
    try:
        kinds = set()
        for _ in range(300):
            try:
                assert await whole(store.read(stored, 0, 6)) == b"public"
                kinds.add("read")
            except CortexError as error:
                kinds.add(error.kind)
        assert kinds <= {"read", "files.outside_roots", "objects.changed"}
        assert "read" in kinds
    finally:
        stop.set()
        thread.join()


async def test_links_in_a_circle_are_told(root: Path) -> None:
    (root / "a").mkdir()
    (root / "a" / "again").symlink_to("..")
    with pytest.raises(CortexError, match="is a link to a directory that it is in"):
        await listed(FileStore([root]), f"file://{root}/")


async def test_a_link_to_nothing_is_told(root: Path) -> None:
    (root / "link").symlink_to("nothing")
    with pytest.raises(CortexError, match=r"file://.*/link is a link to nothing, where nothing is") as caught:
        await listed(FileStore([root]), f"file://{root}/")
    assert caught.value.kind == "files.not_found"


async def test_special_files_are_no_objects_and_never_opened(root: Path) -> None:
    os.mkfifo(root / "fifo")  # to open it would wait for a writer for ever
    (root / "link").symlink_to("fifo")
    (root / "x").write_text("x")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "socket"))
        store = FileStore([root])
        assert await uris(store, f"file://{root}/") == [f"file://{root}/x"]
        for name in ("fifo", "link", "socket"):
            with pytest.raises(CortexError) as caught:
                await whole(store.read(StoredObject(f"file://{root}/{name}", 0, ""), 0, 1))
            assert caught.value.kind == "objects.changed"


@pytest.fixture
def another_users() -> Iterator[Path]:
    """A directory of root's, entered by somebody who is not root."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    (root / "x").write_text("x")
    (root / "x").chmod(0o600)
    (root / "closed").mkdir(0o700)
    os.seteuid(65534)
    try:
        yield root
    finally:
        os.seteuid(0)
        shutil.rmtree(root)


async def test_what_may_not_be_read_or_written_is_told(another_users: Path) -> None:
    store, base = FileStore([another_users]), f"file://{another_users}/"
    (stored,) = await listed(store, base + "x")
    for use in (
        whole(store.read(stored, 0, 1)),
        listed(store, base + "closed/"),
        store.write(base + "y", once(b"y")),
        store.check_writable(base + "results/of/job"),
    ):
        with pytest.raises(CortexError, match=r"Permission denied.*; the scheduler runs as user 65534") as caught:
            await use
        assert caught.value.kind == "files.access_denied"


async def test_a_name_that_is_not_utf8_is_told(root: Path) -> None:
    (Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9"))).write_text("x")
    with pytest.raises(CortexError, match="is not UTF-8"):
        await listed(FileStore([root]), f"file://{root}/")


@pytest.mark.parametrize("change", ["content", "replaced", "grown", "shrunk", "removed", "directory"])
async def test_a_file_that_was_changed_is_not_read(root: Path, change: str) -> None:
    path = root / "x"
    path.write_bytes(b"0123456789")
    store = FileStore([root])
    (stored,) = await listed(store, f"file://{root}/")
    before = path.stat()
    match change:
        case "content":
            path.write_bytes(b"abcdefghij")
            os.utime(
                path, ns=(before.st_atime_ns, before.st_mtime_ns + 1)
            )  # the clock may stand still for milliseconds
        case "replaced":
            (root / "y").write_bytes(b"abcdefghij")
            os.utime(root / "y", ns=(before.st_atime_ns, before.st_mtime_ns))
            (root / "y").rename(path)
        case "grown" | "shrunk":
            path.write_bytes(b"0123456789a" if change == "grown" else b"0")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        case "removed":
            path.unlink()
        case "directory":
            path.unlink()
            path.mkdir()
    with pytest.raises(CortexError) as caught:
        await whole(store.read(stored, 0, 10))
    assert (caught.value.kind, caught.value.category) == ("objects.changed", Category.CONFLICT)


async def test_a_file_that_is_being_written_is_not_listed_and_one_left_behind_is_replaced(root: Path) -> None:
    store = FileStore([root])
    seen = []

    async def chunks() -> AsyncIterator[bytes]:
        yield b"1"
        seen.append(([path.name for path in (root / "new").iterdir()], await uris(store, f"file://{root}/")))
        yield b"2"

    await store.write(f"file://{root}/new/x", chunks())
    ((names, found),) = seen
    assert len(names) == 1
    assert names[0].startswith(PARTIAL)
    assert found == []
    assert (root / "new" / "x").read_bytes() == b"12"
    (root / "new" / names[0]).write_bytes(b"left by a writer that was killed")
    await store.write(f"file://{root}/new/x", once(b"3"))
    assert {path.name: path.read_bytes() for path in (root / "new").iterdir()} == {"x": b"3"}


async def test_a_write_that_is_given_up_leaves_nothing(root: Path) -> None:
    store = FileStore([root])
    before = len(list(Path("/proc/self/fd").iterdir()))

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1024 * 1024)

    for turns in range(20):
        task = asyncio.create_task(store.write(f"file://{root}/x", endless()))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert list(root.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_a_second_writer_of_a_file_is_refused_and_the_first_goes_on(root: Path) -> None:
    store = FileStore([root])
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"a" * 1000
        begun.set()
        await go_on.wait()
        yield b"a" * 1000

    first = asyncio.create_task(store.write(f"file://{root}/x", chunks()))
    await begun.wait()
    with pytest.raises(CortexError, match="written by somebody else too"):
        await store.write(f"file://{root}/x", once(b"b" * 1000))
    go_on.set()
    await first
    assert (root / "x").read_bytes() == b"a" * 2000
    assert [path.name for path in root.iterdir()] == ["x"]
    await store.write(f"file://{root}/x", once(b"c"))
    assert (root / "x").read_bytes() == b"c"


async def test_many_writers_of_a_file_leave_what_one_of_them_wrote(root: Path) -> None:
    store = FileStore([root])
    contents = [bytes([65 + number]) * 100_000 for number in range(20)]
    await asyncio.gather(
        *(store.write(f"file://{root}/x", once(content)) for content in contents), return_exceptions=True
    )
    assert (root / "x").read_bytes() in contents
    assert [path.name for path in root.iterdir()] == ["x"]


@pytest.mark.parametrize("uri", ["file://{root}", "file://{root}/", "file://{root}/x/"])
async def test_a_directory_is_not_written(root: Path, uri: str) -> None:
    with pytest.raises(CortexError, match="names no file"):
        await FileStore([root]).write(uri.format(root=root), once(b"x"))
