"""When the system counts as ready: each of these checks held once.

Nobody tells `cortex up` that a part has begun to listen, so the parts are asked, every few milliseconds and only until
the first yes.
"""

import asyncio
from dataclasses import dataclass
from typing import Protocol

INTERVAL_S = 0.02


class Check(Protocol):
    """A question to a part."""

    async def holds(self) -> bool:
        """Ask once."""


@dataclass(frozen=True)
class Accepts:
    """Something listens there: a unix socket's path, or host and port."""

    where: str | tuple[str, int]

    async def holds(self) -> bool:
        """Connect."""
        try:
            if isinstance(self.where, str):
                _, writer = await asyncio.open_unix_connection(self.where)
            else:
                _, writer = await asyncio.open_connection(*self.where)
        except OSError:
            return False
        writer.close()
        return True


@dataclass(frozen=True)
class AnswersOk:
    """An HTTP GET is answered with status 200."""

    host: str
    port: int
    path: str

    async def holds(self) -> bool:
        """Ask. While nobody accepts, the connection waits in the backlog, and with it this call."""
        try:
            reader, writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            return False
        try:
            host = f"[{self.host}]" if ":" in self.host else self.host
            writer.write(f"GET {self.path} HTTP/1.1\r\nHost: {host}:{self.port}\r\nConnection: close\r\n\r\n".encode())
            status_line = await reader.readline()
            return status_line.split(b" ")[1:2] == [b"200"]
        except OSError:
            return False
        finally:
            writer.close()


async def until_ready(checks: tuple[Check, ...]) -> None:
    """Return when every check has held."""
    async with asyncio.TaskGroup() as group:
        for check in checks:
            group.create_task(_until_holds(check))


async def _until_holds(check: Check) -> None:
    while not await check.holds():  # noqa: ASYNC110  # another process's state has no event here
        await asyncio.sleep(INTERVAL_S)
