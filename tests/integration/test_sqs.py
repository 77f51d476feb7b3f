"""Dead letters in real SQS servers."""

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import urllib3

from services.common.errors import Category, CortexError
from services.scheduler.adapters.aws.session import AwsSession
from services.scheduler.adapters.aws.sqs import SqsQueues
from services.scheduler.usecases.ports.dead_letters import MESSAGE_REFUSED, DeadLetter
from tests.integration import sqs_kit
from tests.integration.sqs_kit import Sqs, values

LETTER = DeadLetter(
    "69a1b2c3d4e5f607", "hello", 12, 3, 503, "the container answered 503", '[1.0,12345678901234567890,"é"]'
)


@pytest.fixture(scope="module", params=["ministack", "moto"])
def server(request: pytest.FixtureRequest) -> Iterator[Sqs]:
    with getattr(sqs_kit, request.param)() as running:
        yield running


@pytest.fixture
def sqs(server: Sqs, monkeypatch: pytest.MonkeyPatch) -> Sqs:
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    return server


@asynccontextmanager
async def opened() -> AsyncIterator[SqsQueues]:
    """With what the environment says now."""
    session = AwsSession(os.environ)
    yield SqsQueues(session)
    await session.close()


async def failure(arn: str) -> CortexError:
    async with opened() as queues:
        with pytest.raises(CortexError) as caught:
            await queues.check(arn)
    return caught.value


async def test_a_batch_arrives_unchanged_with_what_happened_to_it(sqs: Sqs) -> None:
    arn = sqs.create("plain")
    async with opened() as queues:
        await queues.check(arn)
        await queues.send(arn, LETTER)
    [message] = sqs.messages(arn)
    assert message["Body"] == LETTER.body
    assert values(message) == {
        "job_id": "69a1b2c3d4e5f607",
        "api_name": "hello",
        "batch_index": "12",
        "attempts": "3",
        "last_error": "the container answered 503",
        "http_status": "503",
    }


async def test_a_fifo_queue_has_a_batch_once_however_often_it_is_sent(sqs: Sqs) -> None:
    arn = sqs.create("ordered.fifo")
    async with opened() as queues:
        await queues.send(arn, LETTER)
        await queues.send(arn, LETTER)
    [message] = sqs.messages(arn)
    assert message["Attributes"]["MessageGroupId"] == LETTER.job_id
    assert message["Attributes"]["MessageDeduplicationId"] == "69a1b2c3d4e5f607-12"


async def test_what_xml_cannot_say_arrives_as_the_same_value(sqs: Sqs) -> None:
    arn = sqs.create("strange")
    async with opened() as queues:
        body = '["a\ufffeb\uffff\\u0000\x7f\U0001f600"]'
        error = "\x00\ud800\uffff" + "x" * 300_000
        await queues.send(arn, DeadLetter("j", "hello", 0, 1, 0, error, body))
    [message] = sqs.messages(arn)
    assert json.loads(message["Body"]) == json.loads(body)
    assert values(message)["last_error"] == "\ufffd\ufffd\ufffd" + "x" * 997


async def test_a_batch_that_is_too_large_is_refused_for_good(sqs: Sqs) -> None:
    arn = sqs.create("small", MaximumMessageSize="1024")
    async with opened() as queues:
        with pytest.raises(CortexError, match="must be shorter than 1024 bytes") as caught:
            await queues.send(arn, DeadLetter("j", "hello", 0, 1, 500, "", "x" * 1025))
    assert caught.value.kind == MESSAGE_REFUSED


async def test_the_largest_batch_there_may_be_fits_a_queue(sqs: Sqs) -> None:
    arn = sqs.create("default")
    async with opened() as queues:
        body = json.dumps(["x" * (262_143 - 4)])
        await queues.send(arn, DeadLetter("j", "hello", 0, 1, 500, "", body))
    [message] = sqs.messages(arn)
    assert message["Body"] == body


async def test_a_queue_that_is_not_there_is_named(sqs: Sqs) -> None:
    arn = f"arn:aws:sqs:us-west-2:{sqs.account}:none"
    error = await failure(arn)
    assert (error.kind, error.category) == ("aws.queue_not_found", Category.INVALID)
    assert arn in error.message


async def test_a_queue_is_found_again_after_it_was_away(sqs: Sqs) -> None:
    arn = sqs.create("flaky")
    async with opened() as queues:
        await queues.check(arn)
        sqs.delete(arn)
        with pytest.raises(CortexError, match="there is no queue"):
            await queues.send(arn, LETTER)
        sqs.create("flaky")
        await queues.send(arn, LETTER)
    assert len(sqs.messages(arn)) == 1


async def test_a_server_that_is_away_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in Sqs("http://127.0.0.1:9", "1").environ.items():
        monkeypatch.setenv(name, value)
    error = await failure("arn:aws:sqs:us-west-2:123456789012:dead")
    assert (error.kind, error.category) == ("aws.unreachable", Category.UNAVAILABLE)


async def test_missing_credentials_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in Sqs("http://127.0.0.1:9", "1").environ.items():
        monkeypatch.setenv(name, value)
    for name in sqs_kit.CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    error = await failure("arn:aws:sqs:us-west-2:123456789012:dead")
    assert (error.kind, error.category) == ("aws.credentials_not_found", Category.INVALID)


async def test_who_may_not_use_a_queue_is_told_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    with sqs_kit.moto() as moto:
        arn = moto.create("dead")
        for name, value in moto.environ.items():
            monkeypatch.setenv(name, value)
        key, secret = moto.user_without_rights()
        urllib3.request("POST", f"{moto.url}/moto-api/reset-auth", body="0")  # from now on it asks who is asking
        unknown = await failure(arn)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        denied = await failure(arn)
    for error in (unknown, denied):
        assert (error.kind, error.category) == ("aws.access_denied", Category.INVALID)
        assert "need sqs:GetQueueUrl and sqs:SendMessage on it" in error.message
    assert "The security token included in the request is invalid" in unknown.message
    assert "user/ann is not authorized" in denied.message
