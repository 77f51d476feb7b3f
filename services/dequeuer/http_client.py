"""A small HTTP/1.1 client for one thing: asking a container over a kept connection, many thousand times a second.

An `HttpConnection` carries one exchange at a time. `send` writes a whole request and later calls `done` with a `Reply`,
on the event loop and exactly once; no task, no future and, without a time limit, no timer is made for an exchange. A
reply's body is counted and dropped, unless the connection was given a `ReplyRoom` to keep it in; of one that is not a
200 the beginning is kept, for messages. After the reply the connection is `usable` again if both sides agree
(keep-alive); otherwise it is closed, and the owner opens another.

A request may be sent twice only if it cannot have been read. So a connection that breaks before any byte of the reply
is `STALE` when it had carried an exchange before and its end was not an orderly one behind the request: it was closed
by a server tired of waiting, at the moment of sending. A server that takes the request and then closes in order
(its handler crashed) is `CLOSED`: the request was read, and is not to be sent again.
"""

import asyncio
import math
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import NamedTuple, cast

import httptools

from services.dequeuer.replies import KeptReply, ReplyRoom

MAX_HEAD_BYTES = 64 * 1024
"""A reply's status line and headers are at most this long."""

MAX_REPLY_BYTES = 64 * 1024 * 1024
"""A reply is at most this long, also one that is dropped unread: one that never ends must not hold a batch forever."""

EXCERPT_BYTES = 200
"""How much of a refusal's body is kept."""

_SWITCHING_PROTOCOLS = 101  # the one status below 200 after which no other comes
_TCP_CLOSE_WAIT = 8  # tcpi_state: the peer has ended its side, in order
_TCP_INFO_BYTES = 104
_TCP_INFO_UNACKED = 24  # offset of tcpi_unacked
_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux's own


class Broken(Enum):
    """Why there is no whole reply."""

    STALE = "stale"  # the request cannot have been read: it may be sent again on a fresh connection
    CLOSED = "closed"  # the connection ended too early
    TIMED_OUT = "timed out"
    MALFORMED = "malformed"  # not HTTP, or without end
    TOO_LARGE = "too large"  # status 200, but more than is kept
    ABORTED = "aborted"  # by this side


class Reply(NamedTuple):
    """How an exchange ended."""

    status: int
    """The HTTP status; 0 when no whole reply came."""
    excerpt: bytes = b""
    """The body's first bytes, where the status is not 200."""
    broken: Broken | None = None
    reason: str = ""
    """What went wrong, for people; empty after a whole reply."""
    kept: KeptReply | None = None
    """The body, where it is wanted and the status is 200. Whoever takes it gives its room back."""


_OK = Reply(200)


class HttpConnection(asyncio.Protocol):
    """One connection to a server; see the module's text."""

    __slots__ = (
        "_complete",
        "_deadline",
        "_done",
        "_excerpt",
        "_exchanges",
        "_framed",
        "_headed",
        "_keep",
        "_kept",
        "_loop",
        "_orderly_end",
        "_parser",
        "_paused_at",
        "_replies",
        "_room",
        "_status",
        "_timer",
        "_transport",
        "usable",
    )

    def __init__(self, replies: ReplyRoom | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._replies = replies
        self._kept: KeptReply | None = None
        self._paused_at: float | None = None
        self._parser = httptools.HttpResponseParser(self)
        # Bare line feeds are in use among hand-written servers; RFC 9112 section 2.2 lets a recipient take them.
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True)
        self._done: Callable[[Reply], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._exchanges = 0
        self.usable = False
        """True when `send` may be called."""

    @classmethod
    async def open(
        cls, port: int, timeout: float, host: str = "127.0.0.1", *, replies: ReplyRoom | None = None
    ) -> "HttpConnection":
        """Connect. Raises OSError when nobody listens, TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout):
            _, connection = await asyncio.get_running_loop().create_connection(partial(cls, replies), host, port)
        return connection

    def send(self, request: bytes, done: Callable[[Reply], None], timeout: float | None = None) -> None:
        """Send a request; `done` gets the reply, or learns within `timeout` seconds that there is none."""
        self._done = done
        self.usable = False
        self._complete = self._headed = self._keep = self._framed = self._orderly_end = False
        self._status = 0
        self._excerpt = b""
        self._room = MAX_HEAD_BYTES
        self._deadline = math.inf
        if timeout is not None:
            self._limit(timeout)
        self._transport.write(request)

    def abort(self) -> None:
        """Close at once. An exchange in progress ends as ABORTED."""
        self._break(Broken.ABORTED, "the request was cancelled")

    # Held by a ReplyRoom

    def pause_reading(self) -> None:
        """Leave the rest of the reply with the server for a while, which does not count as its time."""
        if self._paused_at is None:
            self._paused_at = self._loop.time()
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on."""
        if self._paused_at is not None:
            self._deadline += self._loop.time() - self._paused_at
            self._paused_at = None
            self._transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = cast("asyncio.Transport", transport)
        self.usable = True

    def data_received(self, data: bytes) -> None:
        """Bytes of a reply, or of nothing that was asked for."""
        if self._done is None:
            self._close()  # such as a 408 to a connection at rest
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                self._break(Broken.MALFORMED, f"the container's answer is not HTTP: {error}")
                return
            self._keep = False
        if self._kept is not None and self._kept.too_large:
            self._break(Broken.TOO_LARGE, self._kept.too_large)
            return
        if self._complete:
            self._finish(self._keep)
            return
        self._room -= len(data)
        if self._room < 0:
            what = "answer" if self._headed else "answer's header"
            limit = MAX_REPLY_BYTES if self._headed else MAX_HEAD_BYTES
            self._break(Broken.MALFORMED, f"the container's {what} is longer than {limit // 1024} KiB")
            return
        self._ask_for_the_rest()

    def _ask_for_the_rest(self) -> None:
        """Acknowledge at once what came of a reply. Many a server writes its head and its body apart, and its kernel
        (Nagle's algorithm) holds the second back until the first is acknowledged: by itself ours takes 40 ms for that.
        """
        connection = self._transport.get_extra_info("socket")
        if _QUICK_ACK is not None and connection is not None:
            with suppress(OSError):  # such as a socket that is no TCP
                connection.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)

    def eof_received(self) -> None:
        """The server sends nothing more."""
        self._orderly_end = True
        if self._done is None:
            self._close()
        elif self._headed and not self._framed:
            self._finish(False)  # a reply without length ends with the connection
        else:
            self._ended_early()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self.usable = False
        if self._done is not None:
            self._ended_early()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # httptools

    def on_message_begin(self) -> None:
        """A reply starts: the one asked for, one behind an interim one, or one that nobody asked for."""
        if self._complete:
            self._keep = False  # two replies to one request: which one would answer the next?

    def on_header(self, name: bytes, value: bytes) -> None:
        """Find out whether the reply's end will be seen without the connection's end."""
        length = len(name)
        if (length == 14 and name.lower() == b"content-length") or (
            length == 17 and name.lower() == b"transfer-encoding" and value.lower().endswith(b"chunked")
        ):
            self._framed = True

    def on_headers_complete(self) -> None:
        """The status is known."""
        if self._complete:
            return  # the first reply counts
        self._status = status = self._parser.get_status_code()
        if status >= 200 or status == _SWITCHING_PROTOCOLS:
            self._headed = True
            self._room = MAX_REPLY_BYTES
            if status in (204, 304):
                self._framed = True  # never have a body: RFC 9112 section 6.3
            elif status == 200 and self._replies is not None:
                self._kept = self._replies.begin(self)

    def on_body(self, body: bytes) -> None:
        """Keep the beginning of a refusal, and of the rest what is wanted."""
        if self._status != 200:
            if len(self._excerpt) < EXCERPT_BYTES:
                self._excerpt += body[: EXCERPT_BYTES - len(self._excerpt)]
        elif self._kept is not None and not self._complete:
            self._kept.add(body)

    def on_message_complete(self) -> None:
        """The reply is whole, unless it was an interim one. Acting on it waits until the parser has returned."""
        if self._headed and not self._complete:
            self._complete = True
            self._keep = self._parser.should_keep_alive()

    # Ends of an exchange

    def _finish(self, keep: bool) -> None:
        status = self._status
        done, self._done = self._done, None
        kept, self._kept = self._kept, None
        self._exchanges += 1
        if kept is not None:
            self.resume_reading()
            kept.end()
        if keep and not self._transport.get_write_buffer_size():
            self.usable = True
        else:
            self._close()
        if done is not None:
            if status != 200:
                done(Reply(status, self._excerpt))
            else:
                done(_OK if kept is None else Reply(200, kept=kept))

    def _ended_early(self) -> None:
        if self._headed or self._status or self._room < MAX_HEAD_BYTES:
            self._break(Broken.CLOSED, "the container closed the connection in the middle of its answer")
        elif self._exchanges and not (self._orderly_end and self._request_was_taken()):
            self._break(Broken.STALE, "the container closed the connection before it took the request")
        else:
            self._break(Broken.CLOSED, "the container closed the connection before it answered")

    def _request_was_taken(self) -> bool:
        """True when the server's end was open while the whole request arrived; False where that is not known."""
        connection = self._transport.get_extra_info("socket")
        try:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        except (AttributeError, OSError):  # not Linux, or closed already
            return False
        (unacked,) = struct.unpack_from("=I", info, _TCP_INFO_UNACKED)
        return bool(info[0] == _TCP_CLOSE_WAIT and unacked == 0)

    def _break(self, broken: Broken, reason: str) -> None:
        done, self._done = self._done, None
        self.usable = False
        self._transport.abort()
        if self._kept is not None:
            self._kept.forget()
            self._kept = None
        if done is not None:
            done(Reply(0, b"", broken, reason))

    def _close(self) -> None:
        self.usable = False
        if self._transport.get_write_buffer_size():
            self._transport.abort()  # nobody reads the rest
        else:
            self._transport.close()

    # The time limit: one timer a connection, moved on when it fires, so that a fast exchange costs none.

    def _limit(self, timeout: float) -> None:
        self._deadline = self._loop.time() + timeout
        if self._timer is not None and self._timer.when() > self._deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._done is None or self._deadline == math.inf:
            return
        paused_s = 0.0 if self._paused_at is None else self._loop.time() - self._paused_at
        if self._loop.time() < self._deadline + paused_s:
            self._timer = self._loop.call_at(self._deadline + paused_s, self._on_timer)
        else:
            self._break(Broken.TIMED_OUT, "no answer in time")


def unreachable(port: int, error: OSError | TimeoutError) -> str:
    """Why `HttpConnection.open` failed, for people."""
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens on port {port}"
    if isinstance(error, TimeoutError):
        return f"port {port} accepts no connection"
    return f"port {port} cannot be reached ({error.strerror or error})"


async def exchange(connection: HttpConnection, request: bytes, timeout: float | None = None) -> Reply:
    """One exchange, awaited; the connection is closed after it."""
    answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def done(reply: Reply) -> None:
        if not answer.done():  # cancelled: the reply is that of our own abort
            answer.set_result(reply)

    connection.send(request, done, timeout)
    try:
        return await answer
    finally:
        connection.abort()
