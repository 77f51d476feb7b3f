"""SubmitJobStream: one task takes the client's messages while answers tell what is on disk.

gRPC ends the messages of a client that is gone as it ends those of one that has said all: what it does not do then is
to send an answer. So the stream counts as ended only when an answer has been sent after its last message.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Any

import grpc

from cortex.batch.v1 import batch_service_pb2 as pb
from services.common.errors import CortexError
from services.scheduler.api import from_proto, to_proto
from services.scheduler.usecases.running.jobs import Jobs
from services.scheduler.usecases.submitting.submit_stream import ItemStream, SubmitStream

END_SECONDS = 5.0
"""How long a refusal waits for the end of the job that it causes, so that a repetition finds it over."""

_GONE = "its client went away"


async def serve(
    requests: AsyncIterator[pb.SubmitJobStreamRequest],
    context: grpc.aio.ServicerContext[Any, Any],
    submit: SubmitStream,
    jobs: Jobs,
) -> AsyncGenerator[pb.SubmitJobStreamResponse, None]:
    """Answer one stream: the job, how many items are on disk (for many at once), the job. Raises `CortexError`."""
    first = await anext(requests, pb.SubmitJobStreamRequest())
    asked, request_id = from_proto.stream_submission(first), from_proto.request_id(first.job)
    stream = await submit(first.job.api_name, asked, request_id, from_proto.asked_with_stream(first), first.first_line)
    # At once, whatever becomes of this generator.
    context.add_done_callback(lambda _: stream.break_off(_GONE))  # type: ignore[arg-type]  # the stub wants a class
    job = stream.view.job.spec
    reading = asyncio.create_task(_read(first, requests, stream), name=f"items of job {job.job_id}")
    try:
        yield pb.SubmitJobStreamResponse(job=to_proto.job(stream.view))
        while not reading.done():
            told = stream.durable
            await _progress(stream, told, reading)
            if stream.durable > told and not reading.done():
                yield pb.SubmitJobStreamResponse(items=stream.durable)
        reading.result()
        yield pb.SubmitJobStreamResponse(items=stream.durable)  # see above
        await stream.finish()
        while not stream.complete:
            await stream.progress(stream.durable)
        view = await jobs.view(job.api_name, job.job_id)
        yield pb.SubmitJobStreamResponse(job=to_proto.job(view), items=stream.durable)
    except CortexError as error:
        stream.break_off(error.message)
        end = await _end(jobs, job.job_id)
        if not stream.is_new or job.job_id in error.message:
            raise
        raise CortexError(error.kind, f"{error.message}; job {job.job_id} {end}", error.category) from error
    finally:
        stream.break_off(_GONE)
        reading.cancel()
        await asyncio.wait([reading])


async def _progress(stream: ItemStream, told: int, reading: "asyncio.Task[None]") -> None:
    """Wait until more items are on disk than were told, or all messages have come."""
    progress = asyncio.create_task(stream.progress(told))
    try:
        await asyncio.wait({progress, reading}, return_when=asyncio.FIRST_COMPLETED)
        if progress.done():
            progress.result()
    finally:
        progress.cancel()
        await asyncio.wait([progress])


async def _read(
    first: pb.SubmitJobStreamRequest, requests: AsyncIterator[pb.SubmitJobStreamRequest], stream: ItemStream
) -> None:
    await _take(first, stream)
    async for request in requests:
        await _take(request, stream)


async def _take(request: pb.SubmitJobStreamRequest, stream: ItemStream) -> None:
    if request.items_json:
        await stream.take_items(request.items_json)
    if request.ndjson:
        await stream.take_lines(request.ndjson)


async def _end(jobs: Jobs, job_id: str) -> str:
    """What becomes of a job whose stream is refused; waits until it has, for a while."""
    run = jobs.run(job_id)
    if run is None:
        return "is over"
    with suppress(TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            await run.over.wait()
    return f"ended as {run.record.state.status.value}" if run.over.is_set() else "ends as enqueue_failed"
