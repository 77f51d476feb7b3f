"""The dequeuer's side of its network namespace's outgoing network.

Whoever started us has put slirp4netns behind a socket: one byte tells it that the namespace is there, one byte from it
that the network is. The socket then stays open for as long as we live, and no process of ours inherits it: its closing
ends slirp4netns. What it says is in `uplink.log` in the worker's directory; `resolv.conf` there names its name server.
"""

import asyncio
import contextlib
import socket
from pathlib import Path

from cortex.batch.v1.worker_spec_pb2 import LocalRuntime

_READY_SECONDS = 10.0


class Uplink:
    """Outgoing network, or the reason why there is none."""

    def __init__(self, local: LocalRuntime) -> None:
        self._log = Path(local.directory, "uplink.log")
        self.resolv_conf = Path(local.directory, "resolv.conf")
        """What containers need as /etc/resolv.conf when there is outgoing network."""
        self._socket = socket.socket(fileno=local.uplink_fd) if local.HasField("uplink_fd") else None
        self.missing = "slirp4netns is not installed"
        """Empty when there is outgoing network."""
        if self._socket is not None:
            self._socket.setblocking(False)
            self._socket.set_inheritable(False)

    async def connect(self) -> None:
        """Wait, within bounds, until the network is there; see `missing`."""
        if self._socket is None:
            return
        loop = asyncio.get_running_loop()
        answer = b""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_READY_SECONDS):
                await loop.sock_sendall(self._socket, b"\n")
                answer = await loop.sock_recv(self._socket, 1)
        self.missing = "" if answer else f"slirp4netns failed: {self._last_words() or 'it does not say why'}"
        if self.missing:
            self.close()

    def close(self) -> None:
        """End it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self._log.read_text(errors="replace").splitlines()
            return lines[-1] if lines else ""
        return ""
