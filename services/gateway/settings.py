"""What the gateway is told by its environment."""

import ipaddress
import re
from dataclasses import dataclass

from services.common.settings import Environment, SettingsError

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
"""Hosts that mean this machine, whoever resolves them."""
_AWS_SETTINGS = ("CORTEX_AWS_ACCOUNT_ID", "CORTEX_AWS_ALLOWED_ARNS", "CORTEX_STS_ENDPOINT")


@dataclass(frozen=True)
class Address:
    """A TCP address to listen on."""

    host: str
    port: int
    """0 picks a free one."""

    @property
    def is_loopback(self) -> bool:
        """True when only this machine reaches it."""
        if self.host in LOOPBACK_NAMES:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def url(self) -> str:
        """`http://HOST:PORT`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@dataclass(frozen=True)
class AwsAuth:
    """CORTEX_AUTH=aws-iam: whom the operator's routes serve."""

    accounts: frozenset[str]
    """CORTEX_AWS_ACCOUNT_ID: AWS accounts, twelve digits each, separated by commas."""
    arns: tuple[str, ...]
    """CORTEX_AWS_ALLOWED_ARNS: patterns (`*`, `?`), one of which a client's ARN matches; none: the whole account."""
    endpoint: str | None
    """CORTEX_STS_ENDPOINT: base URL of the STS that clients' requests are signed for; None for Amazon's own."""


@dataclass(frozen=True)
class Settings:
    """The gateway's settings."""

    address: Address
    """CORTEX_HTTP_ADDRESS: where to listen, unless `fd` is given."""
    fd: int | None
    """CORTEX_HTTP_FD: an inherited socket that already listens, so that a restart keeps port and backlog."""
    unix_socket: str | None
    """CORTEX_HTTP_SOCKET: a unix socket to listen on as well."""
    scheduler: str
    """CORTEX_SCHEDULER_ADDRESS: gRPC target of the scheduler."""
    collector: str | None
    """CORTEX_COLLECTOR_ADDRESS: gRPC target of the collector that keeps traces; None where none does."""
    public_url: str | None
    """CORTEX_PUBLIC_URL: the base of URLs in answers; None for the address that is listened on."""
    insecure: bool
    """CORTEX_INSECURE: serve everyone who reaches the address, under any Host."""
    aws_auth: AwsAuth | None
    """None: nobody is asked who they are, and the header that would say it is ignored."""
    log_level: str
    """CORTEX_LOG_LEVEL."""
    lifeline_fd: int | None
    """CORTEX_LIFELINE_FD: its end of file means that the system is gone."""


def read(environment: Environment) -> Settings:
    """The settings. Raises `SettingsError`."""
    public_url = environment.optional("CORTEX_PUBLIC_URL")
    settings = Settings(
        address=_address(environment.text("CORTEX_HTTP_ADDRESS", "127.0.0.1:8888")),
        fd=_descriptor(environment, "CORTEX_HTTP_FD"),
        unix_socket=environment.optional("CORTEX_HTTP_SOCKET"),
        scheduler=environment.text("CORTEX_SCHEDULER_ADDRESS"),
        collector=environment.optional("CORTEX_COLLECTOR_ADDRESS"),
        public_url=public_url.rstrip("/") if public_url else None,
        insecure=environment.flag("CORTEX_INSECURE"),
        aws_auth=_aws_auth(environment),
        log_level=environment.text("CORTEX_LOG_LEVEL", "INFO"),
        lifeline_fd=_descriptor(environment, "CORTEX_LIFELINE_FD"),
    )
    if settings.fd is None:
        refuse_strangers(settings.address, settings.insecure)
    return settings


def refuse_strangers(address: Address, insecure: bool) -> None:
    """Raise `SettingsError` for an address that other machines reach, unless that is wanted."""
    if not address.is_loopback and not insecure:
        raise SettingsError(
            f"{address.host} can be reached from other machines, and whoever reaches it may run jobs: listen on "
            "127.0.0.1, or set CORTEX_INSECURE=true to serve everyone"
        )


def _aws_auth(environment: Environment) -> AwsAuth | None:
    wanted = environment.optional("CORTEX_AUTH")
    accounts, arns, endpoint = (environment.optional(name) for name in _AWS_SETTINGS)
    if wanted is None:
        if stray := [name for name in _AWS_SETTINGS if environment.optional(name)]:
            raise SettingsError(
                f"{stray[0]} is set, but CORTEX_AUTH is not aws-iam: nobody would be asked who they are"
            )
        return None
    if wanted != "aws-iam":
        raise SettingsError(f"CORTEX_AUTH must be aws-iam or not set, not {wanted!r}")
    ids = _list(accounts)
    if not ids or not all(re.fullmatch("[0-9]{12}", account) for account in ids):
        raise SettingsError(f"with CORTEX_AUTH=aws-iam, CORTEX_AWS_ACCOUNT_ID must be 12 digits, not {accounts!r}")
    if endpoint is not None and not re.fullmatch(r"https?://[^/?#@\s]+/?", endpoint):
        raise SettingsError(f"CORTEX_STS_ENDPOINT must be a URL such as https://sts.example.org, not {endpoint!r}")
    return AwsAuth(frozenset(ids), _list(arns), endpoint)


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _address(text: str) -> Address:
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise SettingsError(f"CORTEX_HTTP_ADDRESS must be HOST:PORT such as 127.0.0.1:8888, not {text!r}")
    return Address(host, int(port))


def _descriptor(environment: Environment, name: str) -> int | None:
    return environment.integer(name, 0) if environment.optional(name) else None
