"""Sending a request's body while it is made, in constant memory.

The caller's thread makes the pieces, a thread of its own sends them, and they meet at a `_Gap` of bounded size. The
sender takes all that is there at once: what is made fast travels together, what is made slowly travels at once.

    caller:  piece, piece, piece -> _Gap -> sender:  one chunk of HTTP

A server that refuses a line answers in the middle of the body. The sender looks for an answer before each chunk; it
stops when there is one, and so does the caller. A caller that breaks off (Ctrl-C, a generator that raises) breaks the
connection without the body's end, so that nobody takes a part for the whole.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPException
from types import TracebackType
from typing import Self

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import wait_for_read

GAP_BYTES = 1 << 20
"""Made and not sent yet: at most this and one piece."""


class Upload:
    """One request whose body is being made. To be used in a `with` statement, at whose end its thread is gone."""

    def __init__(
        self,
        connection: HTTPConnection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        answer_timeout_s: float,
    ) -> None:
        self._connection = connection
        self._method = method
        self._target = target
        self._headers = headers
        self._answer_timeout_s = answer_timeout_s
        self._gap = _Gap()
        self._thread = ThreadPoolExecutor(1, "upload")
        self._answer: Future[urllib3.BaseHTTPResponse]

    def __enter__(self) -> Self:
        self._answer = self._thread.submit(self._send)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._gap.abandon()
        if kind is not None and self._connection.sock is not None:
            with contextlib.suppress(OSError):
                self._connection.sock.shutdown(socket.SHUT_RDWR)  # wakes the sender, wherever it waits
        self._thread.shutdown()
        self._connection.close()

    def feed(self, pieces: Iterable[bytes]) -> None:
        """Make the body and end it; stops early when the server has answered or is gone."""
        for piece in pieces:
            if not self._gap.put(piece):
                return
        self._gap.end()

    def answer(self) -> urllib3.BaseHTTPResponse:
        """Wait for the answer, which is read whole. Raises `urllib3.exceptions.HTTPError`."""
        try:
            return self._answer.result()
        except TimeoutError as error:
            raise urllib3.exceptions.TimeoutError from error
        except ssl.SSLCertVerificationError as error:
            raise urllib3.exceptions.SSLError(error) from error
        except (OSError, HTTPException) as error:
            raise urllib3.exceptions.ProtocolError("Connection aborted.", error) from error

    def _send(self) -> urllib3.BaseHTTPResponse:
        connection = self._connection
        try:
            connection.connect()
            connection.timeout = self._answer_timeout_s
            try:
                connection.request(self._method, self._target, self._chunks(), self._headers, chunked=True)
            except TimeoutError:
                raise
            except (_AnsweredEarly, OSError):
                pass  # who has answered and reads no more breaks the connection: the answer is there all the same
            return connection.getresponse()
        finally:
            self._gap.abandon()

    def _chunks(self) -> Iterator[bytes]:
        while chunk := self._gap.take():
            if self._has_answer():
                raise _AnsweredEarly
            yield chunk

    def _has_answer(self) -> bool:
        """Whether the server says something. Under TLS that may be the protocol's own, and is not looked at."""
        connection = self._connection
        return not isinstance(connection, HTTPSConnection) and wait_for_read(connection.sock, timeout=0)


class _AnsweredEarly(Exception):  # noqa: N818  # nothing went wrong here
    """The server answered before the body's end."""


class _Abandoned(Exception):  # noqa: N818  # says what happened
    """The body breaks off."""


class _Gap:
    """Where pieces wait for the sender."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pieces: list[bytes] = []
        self._size = 0
        self._ended = False
        self._abandoned = False

    def put(self, piece: bytes) -> bool:
        """Add a piece as soon as there is room. False when nobody takes any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._size < GAP_BYTES or self._abandoned)
            self._pieces.append(piece)
            self._size += len(piece)
            self._changed.notify_all()
            return not self._abandoned

    def end(self) -> None:
        """That was all."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Nobody puts or takes any more."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def take(self) -> bytes:
        """All that is there, as soon as there is something; nothing at the end. Raises `_Abandoned`."""
        with self._changed:
            self._changed.wait_for(lambda: self._size or self._ended or self._abandoned)
            if self._abandoned:
                raise _Abandoned
            taken, self._pieces, self._size = b"".join(self._pieces), [], 0
            self._changed.notify_all()
            return taken
