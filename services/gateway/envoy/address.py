"""Addresses to listen on and to connect to."""

import ipaddress

from services.gateway.envoy.any_type import Config

_UNIX = "unix://"
LOOPBACK = "localhost"


class Address:
    """A host and a port, or the path of a unix socket. No dataclass: msgspec would read one as a mapping."""

    def __init__(self, host: str = "", port: int = 0, path: str = "") -> None:
        self.host = host
        self.port = port
        self.path = path

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `HOST:PORT`, `[::1]:PORT` or `unix:///PATH`. Raises `ValueError` with a sentence."""
        if text.startswith(_UNIX):
            return cls(path=text.removeprefix(_UNIX))
        host, separator, port = text.rpartition(":")
        if not separator or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError(f"{text!r} is not an address such as 127.0.0.1:8888 or unix:///run/cortex.sock")
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            raise ValueError(f"{text!r}: an IPv6 address stands in brackets, such as [::1]:8888")
        return cls(host.removeprefix("[").removesuffix("]"), int(port))

    @property
    def is_name(self) -> bool:
        """Whether DNS is asked where this is."""
        return not self.path and self._ip is None

    @property
    def is_loopback(self) -> bool:
        """Whether this machine alone reaches it."""
        if self.path or self.host == LOOPBACK:
            return True
        return self._ip is not None and self._ip.is_loopback

    @property
    def config(self) -> Config:
        """As Envoy writes it."""
        if self.path:
            return {"pipe": {"path": self.path}}
        return {"socket_address": {"address": self.host, "port_value": self.port}}

    @property
    def _ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None
