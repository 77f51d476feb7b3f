"""A deployed API."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ApiVersion:
    """One version of a deployed API."""

    name: str
    api_id: str
    endpoint: str
    spec_json: str
    """The configuration with its defaults and the ids derived from it, as a JSON object."""
    deployed_ns: int
