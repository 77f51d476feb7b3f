"""Unpacking gzip as it comes, in steps of bounded size, whatever it was packed from."""

import zlib
from collections.abc import Iterator

from services.common.errors import CortexError

STEP_BYTES = 256 * 1024
_GZIP = 16 + zlib.MAX_WBITS


class Gunzip:
    """One file: gzip members one after the other. Feed it the file's bytes in order, and finish."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._member = zlib.decompressobj(_GZIP)
        self._begun = False  # the member under way
        self._first = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What this unpacks to, in steps. Raises `CortexError` (`files.malformed_gzip`)."""
        while data:
            if not self._begun and not self._first:
                data = data.lstrip(b"\0")  # padding is allowed behind a member
                if not data:
                    return
            yield from self._inflate(data)
            data = self._member.unused_data
            if self._member.eof:
                self._member, self._begun, self._first = zlib.decompressobj(_GZIP), False, False

    def finish(self) -> None:
        """The file has ended. Raises `CortexError` when it should not have."""
        if self._begun:
            raise self._malformed("it ends in the middle")

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        self._begun = True
        step = b""
        while (data or len(step) == STEP_BYTES) and not self._member.eof:
            try:
                step = self._member.decompress(data, STEP_BYTES)
            except zlib.error as error:
                raise self._malformed(str(error)) from error
            data = self._member.unconsumed_tail
            if step:
                yield step

    def _malformed(self, why: str) -> CortexError:
        text = f"{self._uri} is named .gz but cannot be unpacked ({why}): pack it with gzip, or give it another name"
        return CortexError("files.malformed_gzip", text)
