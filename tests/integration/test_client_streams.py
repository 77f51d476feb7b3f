"""Streamed submissions over real HTTP: what is sent when, in how much memory, and what becomes of a broken one."""

import gc
import itertools
import json
import threading
import tracemalloc
from collections.abc import Iterator

import pytest

import cortex
from cortex.environments import Environment
from cortex.exceptions import CortexException, Unreachable
from cortex.upload import GAP_BYTES
from tests.integration.client_kit import JOB_ID, Asked, Reply, Server, serving

POST = "POST /batch/digits"
REFUSAL = {"kind": "batchapi.item_size_exceeds_limit", "message": "line 3: too large"}


@pytest.fixture
def client(server: Server) -> cortex.Client:
    return cortex.Client(Environment.of("test", server.url))


def only(asked: list[Asked]) -> Asked:
    (found,) = asked
    return found


def test_the_first_line_says_what_is_asked_for_and_each_further_one_is_an_item(
    server: Server, client: cortex.Client
) -> None:
    server.on(POST, Reply({"job_id": JOB_ID}))
    items = (number for number in (1, 12345678901234567890, {"a": None}))
    job = client.submit_stream("digits", items, batch_size=2, workers=3, config=[1], split_failed=True)
    assert job == {"job_id": JOB_ID}
    asked = only(server.asked)
    head, *lines = asked.body.splitlines()
    assert json.loads(head) == {"workers": 3, "split_failed": True, "config": [1], "batch_size": 2}
    assert lines == [b"1", b"12345678901234567890", b'{"a":null}']
    assert asked.whole
    assert asked.headers["Content-Type"] == "application/x-ndjson"
    assert len(asked.headers["Idempotency-Key"]) >= 32


def test_an_item_is_sent_though_the_next_one_is_not_there_yet(server: Server, client: cortex.Client) -> None:
    server.on(POST, Reply({"job_id": JOB_ID}))

    def items() -> Iterator[int]:
        for number in range(3):
            yield number
            came = b""
            while not came.endswith(b"%d\n" % number):
                came += server.chunks.get(timeout=10)

    assert client.submit_stream("digits", items(), batch_size=1, workers=1) == {"job_id": JOB_ID}


def test_memory_does_not_grow_with_the_number_of_items(server: Server, client: cortex.Client) -> None:
    server.on(POST, Reply({"job_id": JOB_ID}, kept=False))
    gc.collect()
    tracemalloc.start()
    try:
        client.submit_stream("digits", itertools.repeat("x" * 1000, 32 * GAP_BYTES // 1000), batch_size=1, workers=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert GAP_BYTES < peak < 8 * GAP_BYTES


def test_a_refusal_in_the_middle_ends_an_endless_stream(server: Server, client: cortex.Client) -> None:
    server.on(POST, Reply(REFUSAL, 400, after=100_000))
    with pytest.raises(CortexException, match="line 2: too large") as caught:
        client.submit_stream("digits", itertools.repeat("x" * 1000), batch_size=1, workers=1)
    assert caught.value.kind == "batchapi.item_size_exceeds_limit"
    assert not only(server.asked).whole


def test_a_generator_that_raises_breaks_the_body_off(server: Server, client: cortex.Client) -> None:
    def items() -> Iterator[int]:
        yield 1
        while b"1\n" not in server.chunks.get(timeout=10):
            pass
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        client.submit_stream("digits", items(), batch_size=1, workers=1)
    assert server.chunks.get(timeout=10) == b""  # the server has seen that it is over
    with pytest.raises(CortexException, match=r"items\[1\] cannot be written as JSON"):
        client.submit_stream("digits", [1, object()], batch_size=1, workers=1)
    assert "upload_0" not in {thread.name for thread in threading.enumerate()}


def test_a_broken_connection_is_told_with_what_became_of_the_job(server: Server, client: cortex.Client) -> None:
    server.on(POST, Reply(none=True, after=1000))
    with pytest.raises(Unreachable, match="ends as `enqueue_failed`, unless all of its items had arrived") as caught:
        client.submit_stream("digits", itertools.repeat(1), batch_size=1, workers=1)
    assert caught.value.kind == "client.connection_broken"
    assert len(server.asked) == 1


def test_nobody_there_is_told_at_once(server: Server) -> None:
    with serving() as gone:
        pass
    client = cortex.Client(Environment.of("test", gone.url))
    with pytest.raises(Unreachable, match="nothing answers at"):
        client.submit_stream("digits", itertools.repeat(1), batch_size=1, workers=1)
