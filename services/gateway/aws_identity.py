"""Who a client is, by AWS: the header `X-Cortex-Authorization` of the Cortex command line.

It carries a request that the client has signed and not sent: STS GetCallerIdentity, as JSON in base64url. Whoever sends
it to STS learns whose credentials signed it, and nothing else can be done with it. So it is sent, once, and the account
that STS names must be the operator's.

The request comes from a stranger. It goes to STS or nowhere: only hosts of STS are accepted, only the one operation,
only the headers that this needs, and no redirect is followed. What STS said of a header is remembered for `TTL_S`.
"""

import asyncio
import base64
import binascii
import fnmatch
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit
from xml.etree import ElementTree

import msgspec

from services.common.errors import Category, CortexError
from services.gateway.problems import HttpError, Problem
from services.gateway.settings import AwsAuth

HEADER = "X-Cortex-Authorization"
TTL_S = 60.0
MAX_REMEMBERED = 1024
MAX_ASKED_AT_ONCE = 8
"""Each takes a thread."""
CONNECT_S, READ_S = 3.0, 5.0
PATIENCE_S = 20.0
"""From a client's request to the answer of STS, waiting for others included."""
MAX_ANSWER_BYTES = 64 * 1024

# The region's name keeps out what else may be called sts: a bucket, say, at sts.s3.amazonaws.com.
_STS_HOST = re.compile(r"sts\.(?:[a-z]{2,3}(?:-[a-z]+)+-[0-9]{1,2}\.)?amazonaws\.com")
_FORM = {"Action": ["GetCallerIdentity"], "Version": ["2011-06-15"]}
_FORWARDED = frozenset({"authorization", "content-type", "user-agent", "x-amz-content-sha256", "x-amz-date"})
_FORWARDED_OPTIONAL = "x-amz-security-token"


class _Sent(msgspec.Struct):
    """The header's JSON."""

    header: dict[str, list[str]] = msgspec.field(name="Header")
    url: str = msgspec.field(name="URL")
    method: str = msgspec.field(name="Method")
    body: str = msgspec.field(name="Body")
    host: str = msgspec.field(name="Host", default="")


@dataclass(frozen=True)
class SignedRequest:
    """A GetCallerIdentity that is fit to be sent."""

    url: str
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True)
class Identity:
    """Whose credentials signed a request."""

    account: str
    arn: str


def signed_request(header: str, endpoint: str | None = None) -> SignedRequest:
    """What the header carries. Raises `CortexError` for anything but a GetCallerIdentity for STS itself.

    `endpoint` is the base URL of an STS that takes the place of Amazon's.
    """
    try:
        sent = msgspec.json.decode(_base64url(header), type=_Sent)
    except (ValueError, RecursionError):  # what msgspec raises is a ValueError too
        raise _malformed("it is not a signed request as JSON in base64url") from None
    url = _url(sent, endpoint)
    if sent.method != "POST" or parse_qs(sent.body, keep_blank_values=True) != _FORM:
        raise _malformed("it is not a POST of GetCallerIdentity")
    headers = {}
    for name, values in sent.header.items():
        if name.lower() in _FORWARDED or name.lower() == _FORWARDED_OPTIONAL:
            if len(values) != 1 or not values[0].isprintable() or not values[0].isascii():
                raise _malformed(f"its header {name!r} is not one line of ASCII")
            headers[name] = values[0]
    if "authorization" not in {name.lower() for name in headers}:
        raise _malformed("it is not signed")
    return SignedRequest(url, headers, sent.body)


class AwsIdentities:
    """Lets in who belongs to the operator's AWS accounts."""

    def __init__(self, settings: AwsAuth) -> None:
        self._settings = settings
        self._remembered: OrderedDict[bytes, tuple[float, Identity | None]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[Identity | None]] = {}
        self._turns = asyncio.Semaphore(MAX_ASKED_AT_ONCE)
        self._pool: Any = None

    async def check(self, headers: Mapping[str, str]) -> Identity:
        """Whose credentials signed the header. Raises `CortexError`, or `HttpError` 403 for the wrong ones."""
        header = headers.get(HEADER)
        if not header:
            text = f"the header {HEADER} is missing: this operator asks for AWS credentials, which the client must find"
            raise CortexError("endpoints.header_missing", text)
        identity = await self._identity(header)
        if identity is None:
            raise _refused("endpoints.auth_invalid", "AWS does not know the credentials that this client has used")
        if identity.account not in self._settings.accounts:
            text = f"the client's AWS account {identity.account} is not this operator's"
            raise _refused("endpoints.auth_other_account", text)
        patterns = self._settings.arns
        if patterns and not any(fnmatch.fnmatchcase(identity.arn, pattern) for pattern in patterns):
            raise _refused("endpoints.auth_not_allowed", f"{identity.arn} is not among those whom this operator allows")
        return identity

    async def _identity(self, header: str) -> Identity | None:
        key = hashlib.sha256(header.encode()).digest()
        if (found := self._remembered.get(key)) is not None and found[0] > time.monotonic():
            return found[1]
        if (asking := self._asking.get(key)) is None:
            request = signed_request(header, self._settings.endpoint)
            asking = self._asking[key] = asyncio.create_task(self._find_out(key, request), name="asking STS")
            asking.add_done_callback(partial(self._asked, key))
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await asyncio.shield(asking)  # others may be waiting for it
        except TimeoutError:
            raise _unavailable("too many clients are asking at once") from None

    async def _find_out(self, key: bytes, request: SignedRequest) -> Identity | None:
        async with self._turns:
            identity = await asyncio.to_thread(self._ask, request)
        self._remembered[key] = (time.monotonic() + TTL_S, identity)
        self._remembered.move_to_end(key)
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return identity

    def _asked(self, key: bytes, task: asyncio.Task[Identity | None]) -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # nobody may have waited for it

    def _ask(self, request: SignedRequest) -> Identity | None:
        """What STS says; None when it refuses. Runs in a thread."""
        import urllib3  # nobody needs it where identities are not asked for

        if self._pool is None:
            timeout = urllib3.Timeout(connect=CONNECT_S, read=READ_S)
            self._pool = urllib3.PoolManager(retries=False, timeout=timeout, maxsize=MAX_ASKED_AT_ONCE)
        try:
            answer = self._pool.urlopen(
                "POST",
                request.url,
                headers=request.headers,
                body=request.body,
                redirect=False,
                preload_content=False,
            )
            try:
                text = answer.read(MAX_ANSWER_BYTES)
            finally:
                answer.close()
        except urllib3.exceptions.HTTPError as error:
            raise _unavailable(f"STS cannot be reached: {error}") from error
        if answer.status in (400, 401, 403):
            return None
        if answer.status != 200:
            raise _unavailable(f"STS answered with status {answer.status}")
        return _identity(text)


def _identity(xml: bytes) -> Identity:
    try:
        found = ElementTree.fromstring(xml)  # noqa: S314  # short, and from STS over TLS
    except ElementTree.ParseError as error:
        raise _unavailable("STS answered with something else than XML") from error
    account, arn = (found.findtext(f".//{{*}}{name}") for name in ("Account", "Arn"))
    if not account or not arn:
        raise _unavailable("the answer of STS names no account")
    return Identity(account, arn)


def _base64url(text: str) -> bytes:
    try:
        raw = text.rstrip("=").encode("ascii")
        return base64.b64decode(raw + b"=" * (-len(raw) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError from error


def _url(sent: _Sent, endpoint: str | None) -> str:
    try:
        url = urlsplit(sent.url)
        at = _origin(url)
    except ValueError:
        raise _malformed("its URL makes no sense") from None
    known = _origin(urlsplit(endpoint)) if endpoint else at if _STS_HOST.fullmatch(at[1]) else None
    if known is None or at != known or (not endpoint and at != ("https", at[1], 443)):
        raise _malformed(f"it is addressed to {url.hostname!r}, which is not STS")
    if url.path not in ("", "/") or url.query or url.fragment or url.username is not None:
        raise _malformed("its URL has more than a host")
    if sent.host and sent.host.lower() != url.netloc.lower():
        raise _malformed("it names two hosts")
    return f"{url.scheme}://{url.netloc}/"


def _origin(url: SplitResult) -> tuple[str, str, int]:
    port = url.port if url.port is not None else {"https": 443, "http": 80}.get(url.scheme, 0)
    return url.scheme, url.hostname or "", port


def _malformed(what: str) -> CortexError:
    return CortexError("endpoints.header_malformed", f"the header {HEADER} cannot be used: {what}")


def _refused(kind: str, message: str) -> HttpError:
    hint = "run `aws sts get-caller-identity` to see which credentials the client uses"
    return HttpError(Problem(403, kind, f"{message}; {hint}"))


def _unavailable(what: str) -> CortexError:
    message = f"the client's AWS identity cannot be verified just now: {what}"
    return CortexError("endpoints.auth_api_error", message, Category.UNAVAILABLE)
