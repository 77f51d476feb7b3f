"""The dequeuer keeps what containers answer: over HTTP, in bounded memory, until it is recorded."""

import asyncio
from pathlib import Path

import pytest

from cortex.batch.v1 import worker_service_pb2 as pb
from services.common.replies import MAX_KEPT_REPLY_BYTES
from services.dequeuer.http_client import Broken, HttpConnection, Reply
from services.dequeuer.replies import BUDGET_BYTES, ReplyRoom
from services.dequeuer.requests import PostRequests
from tests.integration.dequeuer_kit import Kit, surroundings
from tests.integration.test_http_client import Behaviour, answering, answering_once, read_request, server

MIB = 1024 * 1024
HEAD = b"HTTP/1.1 200 OK\r\n"


async def kept(behaviour: Behaviour, room: ReplyRoom | None = None, timeout: float | None = None) -> Reply:
    """One exchange whose reply is wanted."""
    answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    async with server(behaviour) as port:
        connection = await HttpConnection.open(port, 5, replies=room or ReplyRoom(lambda: None))
        connection.send(PostRequests("/", 8080, "job1").build(b"[1]", ""), answer.set_result, timeout)
        try:
            async with asyncio.timeout(20):
                return await answer
        finally:
            connection.abort()


def body(reply: Reply) -> bytes:
    assert reply.kept is not None, reply
    return reply.kept.body


def chunked(*chunks: bytes) -> list[bytes]:
    return [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks] + [b"0\r\n\r\n"]


class TestOverHttp:
    async def test_a_body_with_a_length_is_kept(self) -> None:
        assert body(await kept(answering(HEAD + b"Content-Length: 5\r\n\r\nhello"))) == b"hello"

    async def test_a_body_in_many_pieces_is_put_together(self) -> None:
        text = HEAD + b"Content-Length: 5\r\n\r\nhello"
        assert body(await kept(answering(*(text[i : i + 1] for i in range(len(text)))))) == b"hello"

    async def test_a_chunked_body_is_kept_without_its_framing(self) -> None:
        chunks = chunked(b"hel", b"lo", b"x" * 100_000)
        reply = await kept(answering(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *chunks))
        assert body(reply) == b"hello" + b"x" * 100_000

    async def test_a_body_that_ends_with_the_connection_is_kept(self) -> None:
        assert body(await kept(answering_once(b"HTTP/1.0 200 OK\r\n\r\n", b"until ", b"the end"))) == b"until the end"

    async def test_an_empty_body_is_a_reply_too(self) -> None:
        assert body(await kept(answering(HEAD + b"Content-Length: 0\r\n\r\n"))) == b""

    async def test_what_is_behind_an_interim_reply_is_kept(self) -> None:
        assert body(
            await kept(answering(b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Content-Length: 2\r\n\r\nok"))
        ) == (b"ok")

    async def test_of_a_second_reply_to_one_request_nothing_is_kept(self) -> None:
        once = HEAD + b"Content-Length: 2\r\n\r\nok"
        assert body(await kept(answering(once + once))) == b"ok"

    async def test_a_refusal_is_not_kept(self) -> None:
        reply = await kept(answering(b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno"))
        assert reply == Reply(500, b"no")

    async def test_the_largest_reply_is_kept_and_one_byte_more_is_too_much(self) -> None:
        head = HEAD + b"Content-Length: %d\r\n\r\n"
        room = ReplyRoom(lambda: None)
        reply = await kept(answering(head % MAX_KEPT_REPLY_BYTES, b"x" * MAX_KEPT_REPLY_BYTES), room)
        assert body(reply) == b"x" * MAX_KEPT_REPLY_BYTES
        assert reply.kept is not None
        reply.kept.forget()
        reply = await kept(answering(head % (MAX_KEPT_REPLY_BYTES + 1), b"x" * (MAX_KEPT_REPLY_BYTES + 1)), room)
        assert reply.broken is Broken.TOO_LARGE
        assert "larger than 4 MB" in reply.reason

    async def test_a_chunked_reply_without_end_is_too_much(self) -> None:
        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(chunked(b"x" * 65536)[0])
                await writer.drain()

        assert (await kept(babble)).broken is Broken.TOO_LARGE

    async def test_a_reply_that_breaks_off_gives_its_room_back(self) -> None:
        told = []
        room = ReplyRoom(lambda: told.append(True), budget_bytes=10)
        reply = await kept(answering_once(HEAD + b"Content-Length: 100\r\n\r\n" + b"x" * 50), room)
        assert reply.broken is Broken.CLOSED
        assert not room.full
        assert told

    async def test_while_there_is_no_room_a_reply_waits_and_that_is_not_its_servers_time(self) -> None:
        room = ReplyRoom(lambda: None, budget_bytes=1000)
        large = HEAD + b"Content-Length: 2000\r\n\r\n" + b"x" * 2000
        first = await kept(answering(large), room)
        assert room.full
        slow = HEAD + b"Content-Length: %d\r\n\r\n" % MAX_KEPT_REPLY_BYTES
        second = asyncio.create_task(kept(answering(slow, b"y" * MAX_KEPT_REPLY_BYTES), room, timeout=0.2))
        done, _ = await asyncio.wait((second,), timeout=0.6)
        assert not done  # it is held, and has not run out of time
        assert first.kept is not None
        first.kept.forget()
        assert body(await second) == b"y" * MAX_KEPT_REPLY_BYTES


async def ready(kit: Kit) -> None:
    kit.scheduler.keeps_replies = True
    kit.start()
    await kit.scheduler.until_ready()


class TestUntilRecorded:
    async def test_replies_go_with_their_results_where_they_are_wanted(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path) as kit:
            kit.container.reply = lambda asked: b"answer to " + asked.body
            await ready(kit)
            kit.scheduler.lease(1, 2)
            await kit.scheduler.until(lambda: len(kit.scheduler.results) == 2)
        assert {(result.batch_index, result.reply) for result in kit.scheduler.results} == {
            *((1, b"answer to [1]"), (2, b"answer to [2]")),
        }

    async def test_replies_stay_where_they_are_not_wanted(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path) as kit:
            kit.start()
            await kit.scheduler.until_ready()
            kit.scheduler.lease(1)
            await kit.scheduler.until(lambda: kit.scheduler.results)
        assert [result.reply for result in kit.scheduler.results] == [b""]

    async def test_a_refusals_body_is_no_reply(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path) as kit:

            async def refuse(asked: object) -> int:
                return 500

            kit.container.answer = refuse
            await ready(kit)
            kit.scheduler.lease(1)
            await kit.scheduler.until(lambda: kit.scheduler.results)
        assert [(result.outcome, result.reply) for result in kit.scheduler.results] == [(pb.Result.OUTCOME_FAILED, b"")]

    async def test_unrecorded_replies_are_sent_again_on_a_new_stream(self, tmp_path: Path) -> None:
        async with surroundings(tmp_path) as kit:
            kit.container.reply = lambda asked: b"answer to " + asked.body
            kit.scheduler.records = False
            await ready(kit)
            kit.scheduler.lease(1, 2)
            await kit.scheduler.until(lambda: len(kit.scheduler.results) == 2)
            await kit.scheduler.close()
            kit.scheduler.records = True
            await kit.scheduler.open()
            await kit.scheduler.until(lambda: len(kit.scheduler.results) == 4)
        first, again = kit.scheduler.results[:2], kit.scheduler.results[2:]
        assert sorted(result.reply for result in again) == sorted(result.reply for result in first)
        assert [asked.path for asked in kit.container.asked].count("/") == 2

    @pytest.mark.parametrize(
        ("reply", "error"),
        [
            (b'"' + b"x" * MAX_KEPT_REPLY_BYTES + b'"', "is to be kept and larger than 4 MB"),
            (b"\x00" * 2 * MIB, "is no JSON, and as a JSON string larger than 4 MB"),
        ],
        ids=["as it is", "as a string"],
    )
    async def test_a_reply_that_is_too_large_fails_the_attempt_and_says_what_to_do(
        self, tmp_path: Path, reply: bytes, error: str
    ) -> None:
        async with surroundings(tmp_path) as kit:
            kit.container.reply = lambda _: reply
            await ready(kit)
            kit.scheduler.lease(1)
            await kit.scheduler.until(lambda: kit.scheduler.results)
        (result,) = kit.scheduler.results
        assert (result.outcome, result.http_status, result.reply) == (pb.Result.OUTCOME_FAILED, 200, b"")
        assert error in result.error
        assert "submit without `results`" in result.error

    async def test_a_scheduler_that_records_nothing_stops_deliveries_before_memory_grows(self, tmp_path: Path) -> None:
        batches, concurrency = 64, 2
        async with surroundings(tmp_path, concurrency=concurrency) as kit:
            kit.container.reply = lambda _: b'"%b"' % (b"x" * (MIB - 2))
            kit.scheduler.records = False
            await ready(kit)
            kit.scheduler.lease(*range(batches))
            await kit.scheduler.until(lambda: len(kit.scheduler.results) * MIB > BUDGET_BYTES)
            beats = kit.scheduler.heartbeats
            await kit.scheduler.until(lambda: kit.scheduler.heartbeats >= beats + 5)  # it lives, and delivers nothing
            assert len(kit.container.asked) <= BUDGET_BYTES // MIB + 1 + concurrency
            kit.scheduler.records = True
            kit.scheduler.say(recorded_epochs=[result.epoch for result in kit.scheduler.results])
            await kit.scheduler.until(lambda: len(kit.scheduler.results) == batches)
        assert kit.scheduler.result_messages >= batches  # none of these fits a message together with another
        assert kit.scheduler.done == list(range(batches))
