"""Envoy's extension points take messages of any type, which therefore name theirs."""

from typing import Any

Config = dict[str, Any]
"""A part of Envoy's configuration, in the JSON form of its protobuf messages."""


def typed(message: str, **fields: Any) -> Config:
    """A message with its type, such as `envoy.extensions.filters.http.router.v3.Router`."""
    return {"@type": f"type.googleapis.com/{message}", **fields}


def extension(name: str, message: str, **fields: Any) -> Config:
    """A named extension."""
    return {"name": name, "typed_config": typed(message, **fields)}
