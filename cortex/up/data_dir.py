"""The directories of a running system, claimed for one `cortex up` at a time.

The *data directory* holds what must last. Its file `lock` is locked (flock) for as long as its `cortex up` lives and
names that process.

The *run directory* holds the sockets. Paths of sockets must be short, so it is elsewhere: below $XDG_RUNTIME_DIR or the
temporary directory, under a name made from the data directory's. Its file `parts.lock` is locked for as long as any
part lives: after kill -9 of `cortex up` the next one waits there until the parts of the last one have seen it too.
"""

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cortex.up.errors import UpError

MAX_SOCKET_PATH = 99
"""Bytes. The kernel takes 107; some libraries add a few of their own."""

PREDECESSOR_PATIENCE_S = 5.0
"""How long the parts of a killed `cortex up` may take to end; two seconds are what they need at worst."""


@dataclass(frozen=True)
class Directories:
    """The claimed directories."""

    data: Path
    run: Path
    parts_lock_fd: int
    """Inherited by every part, and locked while one of them lives."""

    @property
    def logs(self) -> Path:
        """Where the parts' own logs go."""
        return self.data / "logs" / "system"

    def socket(self, name: str) -> Path:
        """Where a part's unix socket is."""
        return self.run / f"{name}.sock"


@contextmanager
def claim(data_dir: Path) -> Iterator[Directories]:
    """Make the directories where needed and keep them claimed. Raises `UpError`."""
    try:
        data = data_dir.expanduser().resolve()
        (data / "logs" / "system").mkdir(parents=True, exist_ok=True)
        lock_fd = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except (OSError, RuntimeError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise UpError(f"cannot use {data_dir} as data directory: {said}; name another with --data-dir") from error
    try:
        _lock(lock_fd, data)
        run = _make_run_directory(data)
        parts_lock_fd = _await_predecessor(run, data)
        try:
            yield Directories(data, run, parts_lock_fd)
        finally:
            os.close(parts_lock_fd)
            shutil.rmtree(run, ignore_errors=True)
    finally:
        os.close(lock_fd)  # and with it the lock


def _lock(fd: int, data: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 20, 0).decode(errors="replace").strip() or "unknown"
        raise UpError(
            f"`cortex up` (process {holder}) already runs on {data}; stop it, or choose another --data-dir"
        ) from None
    except OSError as error:
        raise UpError(f"cannot lock {data / 'lock'}: {error.strerror}; put --data-dir on a local disk") from error
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        raise UpError(f"cannot write to the data directory {data}: {error.strerror}") from error


def _make_run_directory(data: Path) -> Path:
    name = "cortex-" + hashlib.sha256(f"{os.getuid()}:{data}".encode()).hexdigest()[:16]
    bases = [os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"]  # noqa: S108  # owner and mode are checked
    for base in bases:
        run = Path(base or "", name)
        if base and Path(base).is_dir() and len(os.fsencode(run / "scheduler.sock")) <= MAX_SOCKET_PATH:
            break
    else:
        raise UpError(
            f"no directory for sockets has a path of at most {MAX_SOCKET_PATH} bytes; set TMPDIR to a short one"
        )
    try:
        run.mkdir(mode=0o700, exist_ok=True)
        found = run.lstat()
    except OSError as error:
        raise UpError(f"cannot make the directory for sockets {run}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UpError(f"{run} is not a directory that is yours alone; remove it, it holds nothing that lasts")
    return run


def _await_predecessor(run: Path, data: Path) -> int:
    fd = os.open(run / "parts.lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + PREDECESSOR_PATIENCE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                raise UpError(f"parts of an earlier `cortex up` on {data} are still running and do not end") from None
            time.sleep(0.02)  # flock has no timeout of its own
        else:
            return fd
