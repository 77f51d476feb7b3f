"""Submitting a job whose items come one after the other: it is accepted, and works, before the first of them has come.

A request's id makes repeating safe here too. While the stream is open it stands for that stream alone. When all items
have come it stands for the job and the whole content: a repetition is read and compared, and nothing of it is stored.
After a stream that broke off it is free again.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from services.common import json_text
from services.common.errors import CortexError
from services.scheduler.domain.errors import idempotency_key_reused
from services.scheduler.domain.model.job import RequestKey
from services.scheduler.domain.ndjson import SplitPiece, Splitter
from services.scheduler.domain.submission import Submission
from services.scheduler.usecases.input.stream_source import StreamSource
from services.scheduler.usecases.ports.ledger import Ledger
from services.scheduler.usecases.running.job_view import JobView
from services.scheduler.usecases.running.jobs import Jobs
from services.scheduler.usecases.submitting.submit import Submit

STEP_BYTES = 256 * 1024
"""Split at once: by a thread, unless it is small."""
SMALL_STEP_BYTES = 16 * 1024

OPEN = b""
"""The digest of a request that is not complete."""

_PLACE = "the stream of items"


class _Sink(Protocol):
    """Where the items of a stream go."""

    durable: int
    complete: bool
    stores: bool

    async def put(self, data: bytes, lengths: list[int]) -> None: ...
    def finish(self, digest: bytes) -> None: ...
    def break_off(self, why: str) -> None: ...
    async def progress(self, beyond: int) -> None: ...


class ItemStream:
    """One client's stream of items into one job."""

    def __init__(self, view: JobView, sink: _Sink, asked: bytes, first_line: int) -> None:
        """`asked` is what else the client asked for: the stream's digest begins with it."""
        self.view = view
        """The job as it was at the beginning."""
        self._sink = sink
        self._digest = hashlib.sha256(asked)
        self._splitter = Splitter(_PLACE, is_stream=True, line=max(1, first_line))

    @property
    def durable(self) -> int:
        """Items that are on disk."""
        return self._sink.durable

    @property
    def complete(self) -> bool:
        """Whether all items have come and are on disk."""
        return self._sink.complete

    @property
    def is_new(self) -> bool:
        """Whether the job is made of this stream, and ends with it; not for a repetition of an earlier one."""
        return self._sink.stores

    async def progress(self, beyond: int) -> None:
        """Wait until more items than this are on disk, or all. Raises `CortexError` when the job takes no more."""
        await self._sink.progress(beyond)

    async def take_lines(self, text: bytes) -> None:
        """Items as lines of text, cut anywhere. Waits while too much is not on disk.

        Raises `CortexError` as `Splitter.feed` does, and when the job takes no more.
        """
        for start in range(0, len(text), STEP_BYTES):
            await self._put(await self._step(text[start : start + STEP_BYTES]))

    async def take_items(self, items: Sequence[str]) -> None:
        """Items one by one. As `take_lines`."""
        texts = [item.encode(errors="surrogatepass").strip(json_text.WHITE_SPACE) for item in items]
        pieces = await self._step(b"\n".join((*texts, b"")))
        lengths = [length for piece in pieces for length in piece.lengths]
        if lengths != [len(text) + 1 for text in texts]:
            raise CortexError(json_text.MALFORMED, "items_json: each entry must be exactly one JSON value")
        await self._put(pieces)

    async def finish(self) -> None:
        """These were all items. Raises as `take_lines` does."""
        await self._put(self._splitter.finish())
        self._sink.finish(self._digest.digest())

    def break_off(self, why: str) -> None:
        """There is more, but it will not come. After `finish` it changes nothing."""
        self._sink.break_off(why)

    async def _step(self, text: bytes) -> list[SplitPiece]:
        if len(text) <= SMALL_STEP_BYTES:
            return self._splitter.feed(text)
        return await asyncio.to_thread(self._splitter.feed, text)

    async def _put(self, pieces: Sequence[SplitPiece]) -> None:
        for piece in pieces:
            self._digest.update(piece.data)
            await self._sink.put(piece.data, piece.lengths)


@dataclass(frozen=True, slots=True)
class SubmitStream:
    """Takes streams."""

    submit: Submit
    ledger: Ledger
    jobs: Jobs

    async def __call__(
        self, api_name: str, submission: Submission, request_id: str, asked: bytes, first_line: int
    ) -> ItemStream:
        """Accept a job for a stream, or find the one that it may have become. It is on disk when this returns.

        `asked` is all that was asked for beside the items, as bytes.
        """
        earlier = await self.ledger.request(api_name, request_id) if request_id else None
        if earlier is not None and earlier[1].digest != OPEN:
            job_id, complete = earlier
            return ItemStream(await self.jobs.view(api_name, job_id), _Comparison(complete, job_id), asked, first_line)
        source = StreamSource()
        request = RequestKey(request_id, OPEN) if request_id else None
        try:
            view = await self.submit(api_name, submission, request, source)
        except BaseException:
            source.break_off("its client went away")  # the job may have been accepted nevertheless
            raise
        return ItemStream(view, source, asked, first_line)


class _Comparison:
    """Takes a stream that came before."""

    stores = False

    def __init__(self, request: RequestKey, job_id: str) -> None:
        self._request = request
        self._job_id = job_id
        self.durable = 0
        self.complete = False

    async def put(self, data: bytes, lengths: list[int]) -> None:
        self.durable += len(lengths)  # all of it is if it is the same

    def finish(self, digest: bytes) -> None:
        if digest != self._request.digest:
            raise idempotency_key_reused(self._job_id)
        self.complete = True

    def break_off(self, why: str) -> None:
        """Nothing was stored."""

    async def progress(self, beyond: int) -> None:
        """Nothing is written, so nothing happens."""
        await asyncio.get_running_loop().create_future()
