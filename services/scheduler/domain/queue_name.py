"""The name of a Kueue queue: a LocalQueue in the workers' namespace, given by an API or by a submission."""

import re

from services.common.errors import CortexError

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")


def check_queue_name(place: str, name: str) -> str:
    """The name. Raises `CortexError` (category INVALID) that begins with `place` when it cannot be one."""
    if not _NAME.fullmatch(name):
        rule = "up to 63 lower-case letters, digits, dashes and dots, a letter or digit at both ends"
        raise CortexError("spec.invalid_queue_name", f"{place}: {name[:100]!r} is not the name of a queue: {rule}")
    return name
