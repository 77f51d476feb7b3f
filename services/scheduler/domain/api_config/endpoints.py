"""The paths that APIs take their jobs under."""

import re
from collections.abc import Collection

from services.scheduler.domain.api_config.reader import Place, show

RESERVED_ENDPOINTS = frozenset(
    (
        "/batch",
        "/dashboard",
        "/delete",
        "/deploy",
        "/describe",
        "/docs",
        "/favicon.ico",
        "/get",
        "/healthz",
        "/info",
        "/logs",
        "/metrics",
        "/openapi.json",
        "/readyz",
        "/refresh",
        "/streamlogs",
        "/verifycortex",
    )
)
"""Routes of our own. No API may have one of them, or a path below one, as its endpoint."""

MAX_LENGTH = 1000
_CHARACTERS = re.compile(r"[a-zA-Z0-9_\-./]+")


def normalize_endpoint(place: Place, value: str, reserved: Collection[str]) -> str:
    """The endpoint with one slash in front and none behind.

    Raises `CortexError`: `urls.endpoint` for characters or segments that a path may not have,
    `urls.endpoint_double_slash`, `urls.endpoint_empty_path` for `/`, `configreader.too_long`, and
    `spec.endpoint_is_reserved` for one that would shadow a route of our own.
    """
    if len(value) > MAX_LENGTH:
        raise place.error(
            "configreader.too_long", f"the endpoint has {len(value)} characters; {MAX_LENGTH} is the most"
        )
    if not _CHARACTERS.fullmatch(value):
        raise place.error("urls.endpoint", f"{show(value)} may hold letters, digits, and the characters / - _ . only")
    if "//" in value:
        raise place.error("urls.endpoint_double_slash", f"{show(value)} may not hold two slashes in a row")
    endpoint = "/" + value.strip("/")
    if endpoint == "/":
        raise place.error("urls.endpoint_empty_path", f"{show(value)} is not allowed: name a path, such as /my-api")
    if {".", ".."} & set(endpoint.split("/")):
        raise place.error("urls.endpoint", f"{show(value)} may not hold the segments . and ..")
    for route in sorted(reserved):
        if endpoint == route or endpoint.startswith(route + "/"):
            text = f"{show(endpoint)} is taken by a route of this server ({route}); set networking.endpoint to another"
            raise place.error("spec.endpoint_is_reserved", f"{text} path, such as /my{endpoint}")
    return endpoint
