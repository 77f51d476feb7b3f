"""What a worker does first whose dequeuer was started in a network namespace of its own.

Such a namespace has a loopback interface that is down, and nothing else. `prepare` brings it up and carries the
loopback ports that containers need to reach (the gateway's, the collector's) over unix sockets, which cross network
namespaces. An ordinary user's namespace came with a user namespace in which we hold every capability, for this one
purpose: they are given up, because bubblewrap refuses to run with them.
"""

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import socket
import struct

from cortex.batch.v1.worker_spec_pb2 import LocalRuntime, Relay
from services.common.errors import Category, CortexError
from services.dequeuer.pod.uplink import Uplink

log = logging.getLogger(__name__)

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CHUNK_BYTES = 64 * 1024


class Network:
    """The relays and the uplink of a worker's network namespace; none where it has no namespace."""

    def __init__(self, uplink: Uplink) -> None:
        self._servers: list[asyncio.Server] = []
        self.uplink = uplink

    async def add(self, relay: Relay) -> None:
        """Carry one port. Raises OSError when the port is taken."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _carry(relay, reader, writer)

        self._servers.append(await asyncio.start_server(connected, "127.0.0.1", relay.port))

    def close(self) -> None:
        """Take no more connections."""
        for server in self._servers:
            server.close()
        self.uplink.close()


async def prepare(local: LocalRuntime) -> Network:
    """Make this process's network namespace usable, if it has one of its own.

    Raises `CortexError` with a sentence for people when the machine does not allow it.
    """
    network = Network(Uplink(local))
    if not local.network_namespace:
        return network
    try:
        bring_loopback_up()
        give_up_capabilities()
        for relay in local.relays:
            await network.add(relay)
        await network.uplink.connect()
    except OSError as error:
        message = f"the worker's network namespace could not be set up: {error}"
        raise CortexError("worker.no_network_namespace", message, Category.UNSUPPORTED) from error
    return network


def bring_loopback_up() -> None:
    """Set the loopback interface up, as `ip link set lo up` does. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH22x", b"lo", 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)
        if not flags & _IFF_UP:
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | _IFF_UP))


def give_up_capabilities() -> None:
    """Let no process that we start inherit capabilities; root's come with being root and stay. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        if number != errno.EINVAL:  # a kernel without ambient capabilities has given us none
            raise OSError(number, os.strerror(number))


async def _carry(relay: Relay, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, both ways, until both ends have finished."""
    try:
        far_reader, far_writer = await asyncio.open_unix_connection(relay.unix_socket)
    except OSError as error:
        log.warning("port %d leads nowhere: %s: %s", relay.port, relay.unix_socket, error)
        writer.close()
        return
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(reader, far_writer))
            group.create_task(_copy(far_reader, writer))
    finally:
        writer.close()
        far_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
