"""The container client against real servers that misbehave on purpose."""

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop

from services.dequeuer import http_client
from services.dequeuer.http_client import Broken, HttpConnection, Reply
from services.dequeuer.requests import PostRequests

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

# The hook that replaces this fixture works for whole directories only.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy:pytest.PytestDeprecationWarning")


@pytest.fixture(params=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """Production runs on uvloop; asyncio's own loop keeps the client honest about what a transport promises."""
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def server(behaviour: Behaviour) -> AsyncIterator[int]:
    """A server whose connections behave like this; closes each when its behaviour is over."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await behaviour(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            tasks.discard(task)
            writer.close()

    running = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield running.sockets[0].getsockname()[1]
    finally:
        running.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return head, await reader.readexactly(length)


def answering(*chunks: bytes) -> Behaviour:
    """Reads requests and answers each with these chunks, in separate writes."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            for chunk in chunks:
                writer.write(chunk)
                await writer.drain()
                await asyncio.sleep(0)

    return behave


def answering_once(*chunks: bytes) -> Behaviour:
    """Reads one request, answers, and closes."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.writelines(chunks)
        await writer.drain()

    return behave


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def post(connection: HttpConnection, body: bytes = b"[1]", timeout: float | None = None) -> Reply:
    answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    connection.send(PostRequests("/", 8080, "job1").build(body, ""), answer.set_result, timeout)
    async with asyncio.timeout(10):
        return await answer


async def post_once(behaviour: Behaviour, body: bytes = b"[1]", timeout: float | None = None) -> tuple[Reply, bool]:
    """One exchange; the reply, and whether the connection could be used again."""
    async with server(behaviour) as port:
        connection = await HttpConnection.open(port, 5)
        reply = await post(connection, body, timeout)
        usable = connection.usable
        connection.abort()
        return reply, usable


class TestRequest:
    async def test_it_carries_the_headers_and_the_body_that_the_contract_promises(self) -> None:
        seen: list[tuple[bytes, bytes]] = []

        async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await read_request(reader))
            writer.write(OK)
            await writer.drain()

        async with server(keep) as port:
            connection = await HttpConnection.open(port, 5)
            answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            connection.send(PostRequests("/", 8080, "00ff").build(b"[1.0,1e400]", trace), answer.set_result)
            await answer
        head, body = seen[0]
        assert head.startswith(b"POST / HTTP/1.1\r\nHost: localhost:8080\r\n")
        lines = head.split(b"\r\n")
        assert b"Content-Type: application/json" in lines
        assert b"X-Cortex-Job-ID: 00ff" in lines
        assert b"Accept: */*" in lines
        assert f"traceparent: {trace}".encode() in lines
        assert body == b"[1.0,1e400]"

    async def test_without_a_trace_there_is_no_trace_header(self) -> None:
        assert b"traceparent" not in PostRequests("/", 8080, "00ff").build(b"[]", "")


class TestWholeReplies:
    async def test_a_connection_is_kept_for_the_next_request(self) -> None:
        connections = 0

        async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await answering(OK)(reader, writer)

        async with server(count) as port:
            connection = await HttpConnection.open(port, 5)
            for _ in range(3):
                assert await post(connection) == Reply(200)
                assert connection.usable
            connection.abort()
        assert connections == 1

    async def test_a_reply_may_come_one_byte_at_a_time(self) -> None:
        reply, usable = await post_once(answering(*(OK[i : i + 1] for i in range(len(OK)))))
        assert reply.status == 200
        assert usable

    async def test_a_chunked_reply_is_read_to_its_last_chunk(self) -> None:
        reply, usable = await post_once(
            answering(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nhi\r\n", b"0\r\nTrailer: x\r\n\r\n"
            )
        )
        assert reply.status == 200
        assert usable

    async def test_connection_close_is_obeyed(self) -> None:
        reply, usable = await post_once(answering(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"))
        assert reply.status == 200
        assert not usable

    async def test_an_http_1_0_server_gets_a_new_connection_for_each_request(self) -> None:
        reply, usable = await post_once(answering(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"))
        assert reply.status == 200
        assert not usable

    async def test_an_http_1_0_server_that_asks_to_keep_the_connection_is_obeyed(self) -> None:
        reply, usable = await post_once(
            answering(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n")
        )
        assert reply.status == 200
        assert usable

    async def test_a_reply_without_length_ends_with_the_connection(self) -> None:
        reply, usable = await post_once(answering_once(b"HTTP/1.0 200 OK\r\n\r\n", b"until the end"))
        assert reply.status == 200
        assert not usable

    async def test_a_reply_without_a_body_needs_no_length(self) -> None:
        reply, usable = await post_once(answering(b"HTTP/1.1 204 No Content\r\n\r\n"))
        assert reply.status == 204
        assert usable

    async def test_interim_replies_are_passed_over(self) -> None:
        interim = b"HTTP/1.1 102 Processing\r\n\r\n"
        reply, usable = await post_once(answering(b"HTTP/1.1 100 Continue\r\n\r\n" + interim, interim + OK))
        assert reply.status == 200
        assert usable

    async def test_a_switch_of_protocols_is_a_status_like_any_other_that_is_not_200(self) -> None:
        reply, usable = await post_once(
            answering(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nxyz")
        )
        assert reply.status == 101
        assert not usable

    async def test_bare_line_feeds_are_understood(self) -> None:
        reply, usable = await post_once(answering(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"))
        assert reply.status == 200
        assert usable

    async def test_the_beginning_of_a_refusal_is_kept_for_messages(self) -> None:
        reply, _ = await post_once(
            answering(b"HTTP/1.1 500 Oh\r\nContent-Length: 1000\r\n\r\n", b"x" * 150, b"y" * 850)
        )
        assert reply == Reply(500, b"x" * 150 + b"y" * 50)

    async def test_a_large_reply_is_dropped_unread_and_the_connection_kept(self) -> None:
        size = 8 * 1024 * 1024
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode()
        reply, usable = await post_once(answering(head, b"x" * size))
        assert reply == Reply(200)
        assert usable

    async def test_two_replies_to_one_request_spoil_the_connection(self) -> None:
        reply, usable = await post_once(answering(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n" + OK))
        assert reply.status == 500
        assert not usable

    async def test_bytes_that_nobody_asked_for_close_the_connection_between_requests(self) -> None:
        spoken = asyncio.Event()

        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(OK)
            await spoken.wait()
            writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
            await reader.read()  # until this side's end: the client has closed

        async with server(speak) as port:
            connection = await HttpConnection.open(port, 5)
            assert (await post(connection)).status == 200
            spoken.set()
            while connection.usable:
                await asyncio.sleep(0.001)

    async def test_an_answer_before_the_body_was_read_is_seen_and_ends_the_connection(self) -> None:
        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
            await writer.drain()

        reply, usable = await post_once(refuse, body=b"x" * 16 * 1024 * 1024)
        assert reply == Reply(413, b"big")
        assert not usable

    async def test_an_answer_while_the_body_is_still_being_sent_does_not_let_the_connection_be_used_again(self) -> None:
        sent = asyncio.Event()

        async def hurry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            await sent.wait()

        reply, usable = await post_once(hurry, body=b"x" * 16 * 1024 * 1024)
        assert reply.status == 200
        assert not usable


class TestBrokenReplies:
    async def test_nobody_listens(self) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            with pytest.raises(ConnectionRefusedError):
                await HttpConnection.open(closed.getsockname()[1], 5)

    async def test_a_connection_closed_without_an_answer_is_not_sent_again(self) -> None:
        reply, usable = await post_once(answering_once())
        assert reply.broken is Broken.CLOSED
        assert reply.reason == "the container closed the connection before it answered"
        assert not usable

    async def test_a_connection_reset_without_an_answer_is_not_sent_again_when_it_was_new(self) -> None:
        async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            reset(writer)

        reply, _ = await post_once(break_off)
        assert reply.broken is Broken.CLOSED

    @pytest.mark.parametrize(
        "part",
        [
            b"HTT",
            b"HTTP/1.1 200 OK\r\nContent-",
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
        ],
    )
    async def test_a_connection_closed_in_the_middle_of_the_answer_is_no_answer(self, part: bytes) -> None:
        reply, usable = await post_once(answering_once(part))
        assert reply.status == 0
        assert reply.broken is Broken.CLOSED
        assert reply.reason == "the container closed the connection in the middle of its answer"
        assert not usable

    async def test_a_reset_in_the_middle_of_a_reply_without_length_is_no_answer(self) -> None:
        started = asyncio.Event()

        async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nsome")
            await writer.drain()
            await started.wait()
            reset(writer)

        async with server(break_off) as port:
            connection = await HttpConnection.open(port, 5)
            answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            connection.send(PostRequests("/", 8080, "j").build(b"[]", ""), answer.set_result)
            asyncio.get_running_loop().call_later(0.05, started.set)
            reply = await answer
        assert reply.broken is Broken.CLOSED

    @pytest.mark.parametrize(
        "garbage",
        [
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\x00\x01\x02\x03",
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ],
    )
    async def test_garbage_is_told_apart_from_an_answer(self, garbage: bytes) -> None:
        reply, usable = await post_once(answering(garbage))
        assert reply.status == 0
        assert reply.broken is Broken.MALFORMED
        assert reply.reason.startswith("the container's answer is not HTTP")
        assert not usable

    async def test_a_header_without_end_is_given_up(self) -> None:
        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                writer.write(b"x" * 4096)
                await writer.drain()

        reply, _ = await post_once(babble)
        assert reply.broken is Broken.MALFORMED
        assert reply.reason == "the container's answer's header is longer than 64 KiB"

    async def test_a_body_without_end_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(http_client, "MAX_REPLY_BYTES", 1024 * 1024)

        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()

        reply, _ = await post_once(babble)
        assert reply.broken is Broken.MALFORMED
        assert reply.reason == "the container's answer is longer than 1024 KiB"

    async def test_no_answer_in_time(self) -> None:
        async def sleep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            await reader.read()

        reply, usable = await post_once(sleep, timeout=0.05)
        assert reply.broken is Broken.TIMED_OUT
        assert not usable

    async def test_an_answer_that_trickles_on_past_its_time_is_no_answer(self) -> None:
        async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.005)

        reply, _ = await post_once(trickle, timeout=0.1)
        assert reply.broken is Broken.TIMED_OUT

    async def test_a_time_limit_counts_from_its_own_request(self) -> None:
        slow = asyncio.Event()

        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(2):
                await read_request(reader)
                writer.write(OK)
            await read_request(reader)
            await slow.wait()
            writer.write(OK)
            await reader.read()

        async with server(behave) as port:
            connection = await HttpConnection.open(port, 5)
            await post(connection, timeout=0.1)
            await post(connection, timeout=30)
            asyncio.get_running_loop().call_later(0.2, slow.set)  # past the first limit
            assert (await post(connection)).status == 200
            connection.abort()

    async def test_a_cancelled_exchange_says_so_once(self) -> None:
        taken = asyncio.Event()

        async def sleep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            taken.set()
            await reader.read()

        async with server(sleep) as port:
            replies: list[Reply] = []
            connection = await HttpConnection.open(port, 5)
            connection.send(PostRequests("/", 8080, "j").build(b"[]", ""), replies.append)
            await taken.wait()
            connection.abort()
            connection.abort()
            await asyncio.sleep(0)
        assert [reply.broken for reply in replies] == [Broken.ABORTED]
        assert not connection.usable


class TestStaleConnections:
    """A kept connection that the server closes at the moment of sending."""

    async def test_a_server_that_closed_before_the_request_came_never_had_it(self) -> None:
        async with blocking_server(reset_at_end=False) as (port, close_now):
            connection = await HttpConnection.open(port, 5)
            assert (await post(connection)).status == 200
            close_now()  # the event loop has no chance to notice before the next request is sent
            assert connection.usable
            reply = await post(connection)
        assert reply.broken is Broken.STALE

    async def test_a_server_that_reset_before_the_request_came_never_had_it(self) -> None:
        async with blocking_server(reset_at_end=True) as (port, close_now):
            connection = await HttpConnection.open(port, 5)
            assert (await post(connection)).status == 200
            close_now()
            reply = await post(connection)
        assert reply.broken is Broken.STALE

    async def test_a_server_that_closed_while_nothing_was_asked_leaves_an_unusable_connection(self) -> None:
        async with server(answering_once(OK)) as port:
            connection = await HttpConnection.open(port, 5)
            assert (await post(connection)).status == 200
            while connection.usable:
                await asyncio.sleep(0.001)

    async def test_a_server_that_took_the_second_request_and_crashed_is_not_sent_it_again(self) -> None:
        async def crash(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(OK)
            await read_request(reader)

        async with server(crash) as port:
            connection = await HttpConnection.open(port, 5)
            assert (await post(connection)).status == 200
            reply = await post(connection)
        assert reply.broken is Broken.CLOSED
        assert reply.reason == "the container closed the connection before it answered"


@asynccontextmanager
async def blocking_server(reset_at_end: bool) -> AsyncIterator[tuple[int, Callable[[], None]]]:
    """A server in a thread that answers one request, and closes the connection while the caller of the function that is
    handed out waits: the client's event loop stands still meanwhile."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked_to_close, closed = threading.Event(), threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(OK)
        asked_to_close.wait(10)
        if reset_at_end:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        closed.set()

    def close_now() -> None:
        asked_to_close.set()
        assert closed.wait(10)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1], close_now
    finally:
        asked_to_close.set()
        await asyncio.to_thread(thread.join)
        listener.close()
