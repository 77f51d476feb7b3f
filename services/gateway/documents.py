"""The OpenAPI document and the page that shows it.

The document is kept by hand in `openapi.yaml`. The page, `docs.html`, carries its style and its script, so that it
works without any other server, and reads the document from the gateway.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Page:
    """A page and what its browser may run."""

    html: bytes
    policy: str


class Documents:
    """Read at first use."""

    def __init__(self, public_url: str, version: str) -> None:
        self._public_url = public_url
        self._version = version

    def openapi(self) -> bytes:
        """The document as JSON, with this deployment's URL."""
        return self._openapi

    def page(self) -> Page:
        """The page."""
        return self._page

    @cached_property
    def _openapi(self) -> bytes:
        document = yaml.safe_load((_FOLDER / "openapi.yaml").read_bytes())
        document["servers"] = [{"url": self._public_url}]
        document["info"]["version"] = self._version
        return json.dumps(document, ensure_ascii=False).encode()

    @cached_property
    def _page(self) -> Page:
        html = (_FOLDER / "docs.html").read_bytes()
        style, script = (_hash(html, tag) for tag in (b"style", b"script"))
        policy = f"default-src 'none'; connect-src 'self'; style-src {style}; script-src {script}; base-uri 'none'"
        return Page(html, policy)


def _hash(html: bytes, tag: bytes) -> str:
    """The Content-Security-Policy source of the page's only element of a kind."""
    [content] = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), html, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"
