"""W3C trace context as one string: `VERSION-TRACE_ID-PARENT_ID-FLAGS`, all hex (https://www.w3.org/TR/trace-context).

A traceparent comes from clients, so it may be anything: what the recommendation calls invalid counts as absent. What
these functions return is always either valid and of version 00, or empty.
"""

import random
import re

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

_SAMPLED = 0x01
_RANDOM = 0x02
_KNOWN_FLAGS = _SAMPLED | _RANDOM
_LONGEST = 512
# Later versions may append fields behind another dash; version ff is forbidden, and so are ids of zeros alone.
_FORMAT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
)


def traceparent(source: Span | Context) -> str:
    """The context of a span, or of the span that a context holds; empty when there is none."""
    span = source if isinstance(source, Span) else get_current_span(source)
    context = span.get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & _KNOWN_FLAGS:02x}"


def context_of(traceparent: str) -> Context:
    """A context whose current span is the remote one that the string names; an empty context when it is invalid."""
    parsed = _parse(traceparent)
    if parsed is None:
        return Context()
    trace, parent, flags = parsed
    remote = SpanContext(int(trace, 16), int(parent, 16), is_remote=True, trace_flags=TraceFlags(flags))
    return set_span_in_context(NonRecordingSpan(remote), Context())


def sampled(traceparent: str) -> bool:
    """True when it is valid and spans are wanted."""
    parsed = _parse(traceparent)
    return parsed is not None and bool(parsed[2] & _SAMPLED)


def trace_id(traceparent: str) -> str:
    """The 32 hex digits of the trace; empty when the string is invalid."""
    parsed = _parse(traceparent)
    return parsed[0] if parsed else ""


def child_traceparent(traceparent: str, span_id: int, sampled: bool) -> str:
    """The same trace with another span in it. Cheap: for contexts that are made by the thousand.

    `traceparent` is one that a function of this module returned (or empty, and then the result is empty too).
    """
    if not traceparent:
        return ""
    flags = int(traceparent[53:55], 16) & _RANDOM | (_SAMPLED if sampled else 0)
    return f"{traceparent[:36]}{span_id & 0xFFFF_FFFF_FFFF_FFFF:016x}-{flags:02x}"


def new_traceparent(sampled: bool = True) -> str:
    """A context that begins a trace of its own."""
    flags = _RANDOM | (_SAMPLED if sampled else 0)
    return f"00-{_random_id(128):032x}-{new_span_id():016x}-{flags:02x}"


def new_span_id() -> int:
    """A span id for `child_traceparent` and `Telemetry.record`."""
    return _random_id(64)


def _random_id(bits: int) -> int:
    return random.getrandbits(bits) or 1  # an id, not a secret; zero alone is not allowed


def _parse(traceparent: str) -> tuple[str, str, int] | None:
    if len(traceparent) > _LONGEST:
        return None
    match = _FORMAT.fullmatch(traceparent.strip(" \t"))
    if match is None or (match[1] == "00" and match[5]):
        return None
    return match[2], match[3], int(match[4], 16) & _KNOWN_FLAGS
