"""Files below chosen directories, as if they were objects: `file:///path`.

What is meant by a path is decided by the kernel, once, and asked afterwards: a path is opened without access
(`O_PATH`), `/proc/self/fd` tells where that really is, and only if that is below the root is it opened for use, by the
same descriptor. So neither `..` nor a link leads out of a root, not even one that is put there meanwhile; and nothing
but files and directories is ever opened.

A listing is in the order of the paths' bytes, as a bucket's would be. A directory of many files is looked through
several times, so that memory stays small. A link counts as what it leads to, as long as that is below the root.

A file is written under another name, which no listing shows, and renamed once it is on disk.
"""

import asyncio
import errno
import fcntl
import hashlib
import heapq
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path

from services.common.errors import Category, CortexError
from services.scheduler.domain.errors import object_changed
from services.scheduler.domain.model.item_stream import StoredObject

SCHEME = "file://"

PAGE_OBJECTS = 1000
NAMES_AT_ONCE = 65_536
"""Of one directory, kept in memory."""

CHUNK_BYTES = 1024 * 1024
"""Read at once."""

PARTIAL = ".cortex-partial-"
"""How the names of files begin that are being written."""

_SEARCHABLE = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class FileStore:
    """The port `ObjectStore` for `file://`."""

    def __init__(self, roots: Iterable[Path]) -> None:
        """`roots` are absolute. Nothing outside of them is read or written."""
        self._roots = sorted((os.fsencode(root).rstrip(b"/") or b"/" for root in roots), key=len, reverse=True)

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Sequence[StoredObject]]:
        """See the port."""
        path = self._path(prefix)
        root = self._root(path, prefix)
        pages = _pages(_Walk(root, path, _bytes(after.removeprefix(SCHEME))).files())
        while (page := await asyncio.to_thread(next, pages, None)) is not None:
            yield page

    async def read(self, stored: StoredObject, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Each chunk is of the file as it was listed. See the port."""
        path = self._path(stored.uri)
        root = self._root(path, stored.uri)
        for place in range(start, end, CHUNK_BYTES):
            yield await asyncio.to_thread(_read, root, path, stored, place, min(place + CHUNK_BYTES, end))

    async def write(self, uri: str, chunks: AsyncIterator[bytes]) -> None:
        """Directories that are missing are made. See the port."""
        path = self._path(uri)
        root = self._root(path, uri)
        if path.endswith(b"/") or path == root:
            raise CortexError("files.invalid_path", f"{uri} names no file: a directory cannot be written")
        with _explained("writing", uri):
            target = _Target(root, path)
            try:
                await _finished(target.open)
                async for chunk in chunks:
                    await _finished(partial(target.add, chunk))
                await _finished(target.complete)
            finally:
                await _finished(target.close)

    async def check_writable(self, uri_prefix: str) -> None:
        """Writes an empty file where the first directory on the way exists, and removes it. See the port."""
        path = self._path(uri_prefix)
        root = self._root(path, uri_prefix)
        with _explained("writing to", uri_prefix):
            await asyncio.to_thread(_try_writing, root, path[: path.rindex(b"/")] if path != root else root)

    def _path(self, uri: str) -> bytes:
        path = uri.removeprefix(SCHEME)
        if not uri.startswith(SCHEME) or not path.startswith("/"):
            raise CortexError("files.invalid_path", f"{uri!r} is not a file's address: file:///PATH is expected")
        if (
            "\0" in path
            or any(part in ("", ".", "..") for part in path[1:].split("/")[:-1])
            or path.endswith(("/.", "/.."))
        ):
            what = "it must be written plainly, without `..`, `.` and doubled slashes"
            raise CortexError("files.invalid_path", f"{uri!r} is not a path that is allowed: {what}")
        return _bytes(path)

    def _root(self, path: bytes, uri: str) -> bytes:
        for root in self._roots:
            if path == root or path.startswith(root.rstrip(b"/") + b"/"):
                return root
        if not self._roots:
            what = "no directory is open to jobs; start the system with `cortex up --input-root DIR`"
        else:
            roots = ", ".join(os.fsdecode(root) for root in self._roots)
            what = f"only {roots} and what is below is open to jobs; `cortex up --input-root DIR` opens another"
        raise CortexError("files.outside_roots", f"{uri} cannot be used: {what}")


class _Walk:
    """One listing: the files below a directory whose paths start with a prefix and come after another."""

    def __init__(self, root: bytes, prefix: bytes, after: bytes) -> None:
        self._root = root
        self._prefix = prefix
        self._after = after

    def files(self) -> Iterator[StoredObject]:
        """In the order of their paths."""
        above = self._root if self._prefix == self._root else self._prefix[: self._prefix.rindex(b"/")]
        with _explained("listing", _uri(self._prefix)):
            yield from self._below(above or b"/", ())

    def _below(self, directory: bytes, way: tuple[tuple[int, int], ...]) -> Iterator[StoredObject]:
        """`way` identifies the directories above, so that links cannot lead around in a circle."""
        with ExitStack() as opened:
            try:
                fd, found = opened.enter_context(_opened(self._root, directory, _SEARCHABLE))
            except (FileNotFoundError, NotADirectoryError):
                return  # nothing of that name, or removed meanwhile: nothing is below
            here = (found.st_dev, found.st_ino)
            if here in way:
                raise CortexError("files.link_in_circle", f"{_uri(directory)} is a link to a directory that it is in")
            inside, last = directory.rstrip(b"/") + b"/", b""
            while names := self._names(fd, inside, last):
                for name in names:
                    if name.endswith(b"/"):
                        yield from self._below(inside + name[:-1], (*way, here))
                    elif stored := self._stored(fd, inside, name):
                        yield stored
                last = names[-1]

    def _names(self, fd: int, directory: bytes, last: bytes) -> Sequence[bytes]:
        """The names that come next and may lead to something that is asked for; directories with a slash behind."""

        def names() -> Iterator[bytes]:
            with os.scandir(fd) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    if entry.is_dir():
                        name += b"/"
                    if name > last and not name.startswith(PARTIAL.encode()) and self._wanted(directory + name):
                        yield name

        return heapq.nsmallest(NAMES_AT_ONCE, names())

    def _wanted(self, path: bytes) -> bool:
        """Whether this file, or anything in this directory, is asked for."""
        if path.endswith(b"/"):
            below = path.startswith(self._prefix) or self._prefix.startswith(path)
            return below and (path > self._after or self._after.startswith(path))
        return path.startswith(self._prefix) and path > self._after

    def _stored(self, fd: int, inside: bytes, name: bytes) -> StoredObject | None:
        """The file of this name; None for what is none."""
        try:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None  # removed meanwhile
        if stat.S_ISLNK(found.st_mode):
            found = self._target(fd, inside, name)
        return StoredObject(_uri(inside + name), found.st_size, _tag(found)) if stat.S_ISREG(found.st_mode) else None

    def _target(self, fd: int, inside: bytes, name: bytes) -> os.stat_result:
        """What a link leads to."""
        try:
            with _opened(self._root, inside + name, None) as (_, found):
                return found
        except FileNotFoundError as error:
            target = os.fsdecode(os.readlink(name, dir_fd=fd))
            what = (
                f"{_uri(inside + name)} is a link to {target}, where nothing is: remove it, or ask for paths beside it"
            )
            raise CortexError("files.not_found", what) from error


@contextmanager
def _opened(root: bytes, path: bytes, flags: int | None) -> Iterator[tuple[int, os.stat_result]]:
    """A descriptor of what is at the path, opened with these flags if it is a file or a directory; and what it is.

    Raises `CortexError` (`files.outside_roots`) when that is not below the root.
    """
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        itself = Path(f"/proc/self/fd/{place}")
        real, real_root = os.fsencode(itself.readlink()), os.path.realpath(root)
        if real != real_root and not real.startswith(real_root.rstrip(b"/") + b"/"):
            what = f"it is a link that leads out of {os.fsdecode(root)}, to {os.fsdecode(real)}"
            raise CortexError("files.outside_roots", f"{_uri(path)} cannot be used: {what}")
        found = os.fstat(place)
        if flags is None or not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            yield place, found
            return
        fd = os.open(itself, flags)
        try:
            yield fd, os.fstat(fd)
        finally:
            os.close(fd)
    finally:
        os.close(place)


class _Target:
    """A file that is being written."""

    def __init__(self, root: bytes, path: bytes) -> None:
        self._root = root
        self._parent, _, self._name = path.rpartition(b"/")
        self._partial = PARTIAL + hashlib.sha256(self._name).hexdigest()[:16]
        self._directory = self._fd = -1
        self._complete = False

    def open(self) -> None:
        self._directory = _made(self._root, self._parent)
        while not self._is_there():  # its last writer may just have taken it away
            if self._fd >= 0:
                os.close(self._fd)
            # It may be there, left by a writer that was killed; or be a pipe, whose opening must not wait.
            flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self._partial, flags, 0o666, dir_fd=self._directory)
            self._lock()
        os.ftruncate(self._fd, 0)

    def _lock(self) -> None:
        """Make this the file's only writer; the lock ends with the descriptor, however that ends."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._fd)
            self._fd = -1  # not ours to remove
            what = f"{os.fsdecode(self._name)} is being written by somebody else too"
            raise CortexError("files.written_twice", what, Category.CONFLICT) from error

    def _is_there(self) -> bool:
        """Whether the name still stands for what was opened."""
        try:
            found = os.stat(self._partial, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return self._fd >= 0 and found.st_ino == os.fstat(self._fd).st_ino

    def add(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def complete(self) -> None:
        os.fsync(self._fd)
        os.rename(self._partial, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._complete = True
        os.fsync(self._directory)

    def close(self) -> None:
        if self._fd >= 0:
            if not self._complete:  # while it is locked, so that it is nobody else's
                with suppress(OSError):
                    os.unlink(self._partial, dir_fd=self._directory)
            os.close(self._fd)
        if self._directory >= 0:
            os.close(self._directory)


async def _finished(step: Callable[[], None]) -> None:
    """Do this in a thread and wait until it is done, even when nobody wants it any more: the files are still in use."""
    doing = asyncio.ensure_future(asyncio.to_thread(step))
    try:
        await asyncio.shield(doing)
    except asyncio.CancelledError:
        while not doing.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait((doing,))
        raise


def _made(root: bytes, directory: bytes) -> int:
    """A descriptor of the directory; what is missing on the way is made."""
    try:
        with _opened(root, directory, _SEARCHABLE) as (fd, _):
            return os.dup(fd)
    except FileNotFoundError:
        if directory == root:
            raise
    outer, _, name = directory.rpartition(b"/")
    above = _made(root, outer)
    try:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=above)
        os.fsync(above)
    finally:
        os.close(above)
    return _made(root, directory)


def _try_writing(root: bytes, directory: bytes) -> None:
    while True:
        try:
            with _opened(root, directory, _SEARCHABLE) as (fd, _):
                name = f"{PARTIAL}check-{os.getpid()}"
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=fd))
                os.unlink(name, dir_fd=fd)
                return
        except FileNotFoundError:
            if directory == root:
                raise
            directory = directory[: directory.rindex(b"/")]


def _read(root: bytes, path: bytes, stored: StoredObject, start: int, end: int) -> bytes:
    with _explained("reading", stored.uri):
        try:
            with _opened(root, path, os.O_RDONLY | os.O_CLOEXEC) as (fd, found):
                if not stat.S_ISREG(found.st_mode) or _tag(found) != stored.tag:
                    raise object_changed(stored)
                data = os.pread(fd, end - start, start)
                if len(data) != end - start or _tag(os.fstat(fd)) != stored.tag:
                    raise object_changed(stored)
                return data
        except (FileNotFoundError, NotADirectoryError) as error:
            raise object_changed(stored) from error


def _tag(found: os.stat_result) -> str:
    return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ino}"


def _pages(files: Iterator[StoredObject]) -> Iterator[list[StoredObject]]:
    while page := list(islice(files, PAGE_OBJECTS)):
        yield page


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise CortexError("files.invalid_path", f"{text!r} is not a path: it cannot be written in UTF-8") from error


def _uri(path: bytes) -> str:
    try:
        return SCHEME + path.decode()
    except UnicodeDecodeError as error:
        what = f"the name of {path!r} is not UTF-8, so that no address can be given for it; rename the file"
        raise CortexError("files.invalid_name", what) from error


@contextmanager
def _explained(doing: str, uri: str) -> Iterator[None]:
    """Turn what the system raises into `CortexError`."""
    try:
        yield
    except OSError as error:
        name = error.filename if isinstance(error.filename, bytes | str) else b""
        place = os.fsdecode(name)
        what = f"{doing} {uri}: {error.strerror}{f': {place}' if place.startswith('/') else ''}"
        raise _told(error, what) from error


def _told(error: OSError, what: str) -> CortexError:
    if isinstance(error, PermissionError):
        return CortexError("files.access_denied", f"{what}; the scheduler runs as user {os.geteuid()}")
    if isinstance(error, FileNotFoundError):
        return CortexError("files.not_found", what)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CortexError("files.storage_full", what, Category.STORAGE_FULL)
    if error.errno in (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT):
        return CortexError("files.unavailable", what, Category.UNAVAILABLE)
    return CortexError("files.not_usable", what)
