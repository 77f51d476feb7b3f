"""What can be said about an edge: a YAML document, one key a setting. Closed unless it says otherwise.

Secrets stay where they are: certificates, keys and key sets are named by their paths, which Envoy reads.
"""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
import yaml
from msgspec import Meta

from services.common.settings import SettingsError
from services.gateway.envoy.address import Address

Text = Annotated[str, Meta(min_length=1)]
Addresses = Annotated[tuple[Address, ...], Meta(min_length=1)]


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The edge's certificate."""

    certificate: Text
    """PEM file with the certificate and its chain."""
    key: Text
    """PEM file with the private key."""


class Jwt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose tokens are good. A token must also say when it expires."""

    issuer: Text
    """The `iss` of every token."""
    audiences: Annotated[tuple[Text, ...], Meta(min_length=1)]
    """One of them is in the `aud` of every token; without it, a token that was made for another service would do."""
    jwks: Text
    """The issuer's keys: a file, or an https URL, which is asked again every five minutes."""
    ca: Text = "/etc/ssl/certs/ca-certificates.crt"
    """PEM file with the authorities that vouch for that URL's server."""

    @property
    def remote(self) -> bool:
        """Whether the keys are fetched."""
        return "://" in self.jwks

    @property
    def server(self) -> Address:
        """Where the keys are fetched. Raises `ValueError` for a URL that makes no sense."""
        url = urlsplit(self.jwks)
        if url.scheme != "https" or not url.hostname:
            raise ValueError(
                f"{self.jwks!r} is neither a file nor an https URL; keys that come unprotected prove nothing"
            )
        return Address(url.hostname, url.port or 443)


class RateLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many requests a client's address may make. Beyond that they are answered 429."""

    per_second: Annotated[int, Meta(ge=1)]
    """On the average."""
    burst: Annotated[int, Meta(ge=1)] | None = None
    """At once; twice `per_second` if it is not given."""


class InCluster(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A second port, plain HTTP and without tokens, for pods of the same cluster. The network says who reaches it.

    It always takes the work stream, whose messages carry the worker's own token.
    """

    listen: Address
    """Such as 0.0.0.0:8080."""
    allow: Literal["submissions", "everything"] = "submissions"
    """`submissions`: only POST /batch/<api_name>, so that a container can submit the next job of a chain; `everything`:
    all that the edge serves, so that the `cortex` command works in containers too."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An edge."""

    listen: Address = Address("127.0.0.1", 8443)
    """Where clients connect: HTTP and gRPC on one port."""
    gateway: Addresses = (Address("127.0.0.1", 8888),)
    """The gateway: names (all addresses that DNS gives), addresses, unix sockets."""
    scheduler: Addresses = (Address("127.0.0.1", 8889),)
    """The scheduler's replicas, such as the name of a headless service. Calls go to the one that says it leads."""
    tls: Tls | None = None
    """None: see `plaintext`."""
    plaintext: bool = False
    """Serve other machines without TLS, because something in front has ended it already."""
    jwt: Jwt | None = None
    """None: see `open`."""
    open: bool = False
    """Serve everyone who reaches the edge."""
    in_cluster: InCluster | None = None
    """None: there is no such port."""
    work_stream: bool = False
    """Serve workers from elsewhere, on `listen`. They show their own token, to the scheduler, and no user's."""
    rate_limit: RateLimit | None = None
    """None: there is none. Not for `in_cluster`."""
    trusted_hops: Annotated[int, Meta(ge=0)] = 0
    """How many proxies in front of the edge append to `X-Forwarded-For`; 0: what it says is not believed."""
    otlp: Address | None = None
    """The OTLP collector (gRPC) that spans are sent to; None: none are."""
    admin: Address = Address("127.0.0.1", 9901)
    """Envoy's own pages. They can end it, so they are served on loopback alone."""
    observe: Address | None = None
    """A port for probes and Prometheus: `/ready` and `/stats/prometheus` of the pages above, and nothing else."""


def parse(text: str) -> Settings:
    """The settings of a document. Raises `SettingsError` with a sentence for what is wrong."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"the edge's settings are not YAML: {error}") from error
    try:
        settings = msgspec.convert(document or {}, Settings, dec_hook=_address)
    except msgspec.ValidationError as error:
        raise SettingsError(_sentence(str(error))) from error
    _check(settings)
    return settings


def _address(kind: type, value: Any) -> Any:
    if kind is not Address or not isinstance(value, str):
        raise ValueError(f"{value!r} is not an address such as 127.0.0.1:8888")
    return Address.parse(value)


def _sentence(error: str) -> str:
    what, _, where = error.partition(" - at ")
    path = where.strip("`").removeprefix("$.") or "the document"
    return f"the edge's settings, at {path}: {what[:1].lower()}{what[1:]}"


def _check(settings: Settings) -> None:
    """Refuse what would be open by mistake, and what Envoy would only stumble over."""
    if settings.jwt is None and not settings.open:
        raise SettingsError(
            "the edge would serve everyone who reaches it: say whose tokens are good (`jwt`, with issuer, audiences "
            "and jwks; `--jwt-issuer`, `--jwt-audience`, `--jwt-jwks`), or `open: true` (`--open`) if everyone is meant"
        )
    if settings.jwt is not None and settings.open:
        raise SettingsError("`jwt` and `open: true` contradict each other: leave out one")
    if settings.tls is None and not settings.plaintext and not settings.listen.is_loopback:
        raise SettingsError(
            f"{settings.listen.host} can be reached from other machines, and tokens would travel in the clear: give "
            "`tls` (certificate and key), or `plaintext: true` where something in front of the edge ends TLS"
        )
    if settings.tls is not None and settings.plaintext:
        raise SettingsError("`tls` and `plaintext: true` contradict each other: leave out one")
    if not settings.admin.is_loopback:
        raise SettingsError(
            f"`admin` must be on loopback, not {settings.admin.host}: whoever reaches it can end the edge"
        )
    if settings.jwt is not None and settings.jwt.remote:
        try:
            _ = settings.jwt.server
        except ValueError as error:
            raise SettingsError(f"the edge's settings, at jwt.jwks: {error}") from error
