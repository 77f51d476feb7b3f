"""The ports, taken before anything is started and held until the end, so that a restarted part keeps its own.

- HTTP: this process listens, and the gateway inherits the socket. While the gateway is being restarted, connections
  wait in the backlog and are not refused.
- gRPC and spans: the parts listen themselves. A socket that is bound with SO_REUSEPORT but never listens keeps the port
  from everyone who does not set that option too (the parts do).
"""

import errno
import ipaddress
import socket
from dataclasses import dataclass, replace

from cortex.up.errors import UpError

BACKLOG = 1024
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # recognised, not bound
"""Addresses that mean every interface, and where this machine reaches itself then."""


@dataclass(frozen=True)
class Address:
    """A resolved address and port."""

    family: socket.AddressFamily
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach it."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def reachable_host(self) -> str:
        """Where this machine reaches it."""
        return WILDCARDS.get(self.host, self.host)

    def at_port_of(self, bound: socket.socket) -> "Address":
        """The same address with the port that a socket got."""
        return replace(self, port=bound_port(bound))

    def __str__(self) -> str:
        return _join(self.host, self.port)

    @property
    def reachable(self) -> str:
        """HOST:PORT for this machine."""
        return _join(self.reachable_host, self.port)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def resolve(host: str, port: int) -> Address:
    """The first address of a host. Raises `UpError`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UpError(f"--host {host}: no such address ({said})") from error
    family, _, _, _, name = found[0]
    return Address(socket.AddressFamily(family), str(name[0]), port)


def listen(address: Address, option: str) -> socket.socket:
    """A listening socket. `option` is the command line's, for messages."""
    return _bind(address, option, listening=True)


def reserve(address: Address, option: str) -> socket.socket:
    """A socket that keeps a port for a part. `option` is the command line's, for messages.

    Bound once without SO_REUSEPORT, because with it a port that another of our systems uses would look free.
    """
    with _bind(address, option, listening=True) as probe:
        found = address.at_port_of(probe)
    return _bind(found, option, reuse_port=True)


def bound_port(bound: socket.socket) -> int:
    """The port a socket got."""
    return int(bound.getsockname()[1])


def _bind(address: Address, option: str, *, listening: bool = False, reuse_port: bool = False) -> socket.socket:
    bound = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((address.host, address.port))
        if listening:
            bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise UpError(_why(error, address, option)) from error
    return bound


def _why(error: OSError, address: Address, option: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {address.port} on {address.host} is in use; choose another with {option} (0 picks a free one)"
    if error.errno == errno.EACCES:
        return f"this user may not use port {address.port}; choose one from 1024 up with {option}"
    return f"cannot use {address} ({option}): {error.strerror}"
