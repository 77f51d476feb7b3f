"""Headers that several routes take."""

import re

from starlette.requests import Request

from services.common.errors import CortexError

_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")


def idempotency_key(request: Request) -> str:
    """The key that makes repeating the request safe; empty for none. Raises `endpoints.invalid_header`.

    A header without a value is a mistake too: whoever sends it believes that the request may be repeated.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        return ""
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise CortexError(
            "endpoints.invalid_header", "the header Idempotency-Key takes 1 to 255 visible ASCII characters"
        )
    return key
