"""Listening, and stopping: no new connections, requests finish within `DRAIN_S`, streams are ended.

A socket that was inherited goes on listening in its owner while no gateway runs, so that a restart costs waiting
clients a moment and not their connection.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from services.common.lifecycle import Stop
from services.common.settings import SettingsError
from services.gateway.http_protocol import HttpProtocol
from services.gateway.settings import Address, Settings, refuse_strangers
from services.gateway.websocket_protocol import WebSocketProtocol

DRAIN_S = 2
"""Requests under way get so long: `cortex up` stops the scheduler after that, and nobody would answer them any more."""
KEEP_ALIVE_S = 75
BACKLOG = 1024
PING_S = 20.0
"""Between two pings on a websocket: proxies give up connections on which nothing happens, many after a minute."""
PONG_S = 600.0
"""A websocket's client may stand still for so long: one that is piped into a pager answers no ping meanwhile."""
MAX_CLIENT_MESSAGE_BYTES = 8192
"""On a websocket. Clients have nothing to say there."""
_DEAD_PEER_S = 60


@contextmanager
def listening(settings: Settings) -> Iterator[tuple[list[socket.socket], Address]]:
    """The sockets to serve, and the TCP address as it really is. Raises `SettingsError`."""
    tcp = _inherited(settings) if settings.fd is not None else _tcp(settings.address)
    host, port = tcp.getsockname()[:2]
    address = Address(host, port)
    refuse_strangers(address, settings.insecure)
    _notice_dead_peers(tcp)
    if settings.unix_socket is None:
        yield [tcp], address
        return
    path = Path(settings.unix_socket)
    unix = _unix(path)
    inode = path.stat().st_ino
    try:
        yield [tcp, unix], address
    finally:
        with suppress(FileNotFoundError):
            if path.stat().st_ino == inode:  # a successor may have put its own there
                path.unlink()


async def serve(app: ASGIApp, sockets: list[socket.socket], stop: Stop) -> None:
    """Answer requests until the process is to stop."""
    config = uvicorn.Config(
        app,
        http=HttpProtocol,
        ws=WebSocketProtocol,
        ws_max_size=MAX_CLIENT_MESSAGE_BYTES,
        ws_ping_interval=PING_S,
        ws_ping_timeout=PONG_S,
        ws_per_message_deflate=False,  # costs 300 KiB a connection
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    # Not `server.serve`: it takes over the signals, and wakes up ten times a second to look whether to stop.
    await server.startup(sockets)
    await stop.wait()
    if stop.at_once:
        for listener in server.servers:
            listener.close()
    else:
        await server.shutdown(sockets)


def _tcp(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    tcp = socket.socket(family)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        tcp.bind((address.host, address.port))
        tcp.listen(BACKLOG)
    except OSError as error:
        tcp.close()
        raise SettingsError(f"cannot listen on {address.host} port {address.port}: {error.strerror}") from error
    return tcp


def _inherited(settings: Settings) -> socket.socket:
    try:
        return socket.socket(fileno=settings.fd)
    except OSError as error:
        raise SettingsError(f"CORTEX_HTTP_FD={settings.fd} is not an open socket: {error.strerror}") from error


def _unix(path: Path) -> socket.socket:
    """Listen on a path that only this user may connect to, in place of what a dead gateway left there."""
    unix = socket.socket(socket.AF_UNIX)
    try:
        if _is_served(path):
            raise SettingsError(f"another process listens on CORTEX_HTTP_SOCKET={path}")
        path.unlink(missing_ok=True)
        unix.bind(str(path))
        path.chmod(0o600)  # before it listens: until then nobody can connect
        unix.listen(BACKLOG)
    except OSError as error:
        unix.close()
        raise SettingsError(f"cannot listen on CORTEX_HTTP_SOCKET={path}: {error.strerror or error}") from error
    return unix


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, suppress(ConnectionRefusedError, FileNotFoundError):
        probe.settimeout(1)
        probe.connect(str(path))
        return True
    return False


def _notice_dead_peers(tcp: socket.socket) -> None:
    """Connections inherit this: a peer that vanished ends a stream that is being sent to it."""
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name in ("TCP_KEEPIDLE", "TCP_USER_TIMEOUT"):
        if option := getattr(socket, name, None):
            tcp.setsockopt(socket.IPPROTO_TCP, option, _DEAD_PEER_S * (1000 if name == "TCP_USER_TIMEOUT" else 1))


def default_public_url(address: Address) -> str:
    """The URL under which this machine reaches an address."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared, not bound
    return Address(everywhere.get(address.host, address.host), address.port).url
