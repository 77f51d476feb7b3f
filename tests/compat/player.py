"""Exchanges between the Cortex command line 0.42 (or a script) and an operator, and how they are replayed.

Each file in `exchanges/` holds a list of them: what is `given`, the request as it is sent, and what the answer must be
like. `$job`, `$api_id` and `$old_id` stand for ids; in an answer `<int>`, `<number>`, `<time>`, `<text>`, `<any>` stand
for values of that sort. An answer may have more keys than are listed: Go ignores those. `go` names the struct of
`go_schema.py` that it is decoded into. In a request's body `$repeat(x,n)` is n times x.
"""

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from services.gateway.settings import Address

FOLDER = Path(__file__).with_name("exchanges")
BOUNDARY = "8d7a6c5b4f3e2d1c0b9a8f7e6d5c4b3a2f1e0d9c8b7a6f5e4d3c2b1a0f9e"
"""Go makes them of 60 hex digits."""

_VALUES = {
    "<int>": r"-?\d+",
    "<number>": r"-?\d+(\.\d+)?([eE][+-]?\d+)?",
    "<time>": r'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"',
    "<text>": r'".+"',
    "<any>": r"(?s:.*)",
}
_REPEAT = re.compile(r"\$repeat\((.*?),(\d+)\)")


class Exchange(msgspec.Struct, forbid_unknown_fields=True):
    """One of them."""

    about: str
    request: str
    """Method and target."""
    status: int
    given: str = "api"
    sender: str = "cli"
    """`cli`, or `curl` for a script: which headers are sent."""
    headers: dict[str, str] = {}
    body: str | None = None
    config: str | None = None
    """The file of a deployment."""
    go: str | None = None
    answer: Any = None
    text: str | None = None
    """The answer itself, where it is none in JSON."""


def exchanges() -> Iterator[tuple[str, Exchange]]:
    """All of them, each with an id for people."""
    for file in sorted(FOLDER.glob("*.json")):
        for exchange in msgspec.json.decode(file.read_bytes(), type=list[Exchange]):
            yield f"{file.stem}: {exchange.about}", exchange


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def send(address: Address, exchange: Exchange, names: Mapping[str, str]) -> Answer:
    """Send the request with the headers of its sender and no others."""
    method, target = filled(exchange.request, names).split(" ")
    body = None if exchange.body is None else filled(exchange.body, names).encode()
    headers = dict(HEADERS[exchange.sender])
    if exchange.config is not None:
        body, headers["Content-Type"] = _form(exchange.config), f"multipart/form-data; boundary={BOUNDARY}"
    elif exchange.sender == "curl" and body is not None:
        headers["Content-Type"] = "application/json"
    if body is not None:
        headers["Content-Length"] = str(len(body))
    connection = http.client.HTTPConnection(address.host, address.port, timeout=60)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in ({"Host": f"{address.host}:{address.port}"} | headers | exchange.headers).items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read())
    finally:
        connection.close()


HEADERS: Mapping[str, Mapping[str, str]] = {
    "cli": {
        "User-Agent": "Go-http-client/1.1",
        "Cortexapiversion": "0.42.1",
        # A signed request to STS, in base64url.
        "X-Cortex-Authorization": "eyJIZWFkZXIiOnt9LCJVUkwiOiJodHRwczovL3N0cy5hbWF6b25hd3MuY29tLyJ9",
        "Accept-Encoding": "gzip",
    },
    "curl": {"User-Agent": "curl/7.88.1", "Accept": "*/*"},
}
"""What each sender puts into every request."""


def _form(config: str) -> bytes:
    return (
        f"--{BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="config"; filename="config"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
        f"{config}\r\n"
        f"--{BOUNDARY}--\r\n"
    ).encode()


def filled(text: str, names: Mapping[str, str]) -> str:
    """With names and repetitions put in."""
    text = _REPEAT.sub(lambda found: found[1] * int(found[2]), text)
    return re.sub(r"\$(\w+)", lambda found: names[found[1]], text)


def differences(expected: Any, found: Any, names: Mapping[str, str], place: str = "") -> Iterator[str]:
    """Where an answer is not like what it should be."""
    if isinstance(expected, str) and expected in _VALUES:
        if not re.fullmatch(_VALUES[expected], json.dumps(found)):
            yield f"{place}: {found!r} is not {expected}"
    elif isinstance(expected, str) and isinstance(found, str):
        if filled(expected, names) != found:
            yield f"{place}: {found!r} is not {filled(expected, names)!r}"
    elif isinstance(expected, dict) and isinstance(found, dict):
        for name, value in expected.items():
            if name in found:
                yield from differences(value, found[name], names, f"{place}.{name}")
            else:
                yield f"{place}.{name} is missing"
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from differences(one, other, names, f"{place}[{index}]")
    elif json.dumps(expected) != json.dumps(found):  # true is not 1, and 1.0 is not 1
        yield f"{place}: {found!r} is not {expected!r}"
