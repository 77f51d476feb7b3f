"""The `DeadLetterQueues` port on SQS. A queue's region and account come from its ARN.

SQS takes what XML 1.0 can say. The only characters of a JSON text beyond that are U+FFFE and U+FFFF, which stand in
strings: they are sent as `\\ufffe` and `\\uffff`, the same value. A batch that fits a queue only without the message's
attributes is sent without them.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from services.common.errors import Category, CortexError
from services.scheduler.adapters.aws.errors import code_of, explained, said
from services.scheduler.adapters.aws.session import AwsSession
from services.scheduler.usecases.ports.dead_letters import MESSAGE_REFUSED, DeadLetter

LOOK_SECONDS = 20.0
"""A submission waits for its queue no longer."""
ERROR_CHARACTERS = 1000
"""Of the last error in a message's attributes."""

_RIGHTS = "sqs:GetQueueUrl and sqs:SendMessage on it"
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPES = {0xFFFE: "\\ufffe", 0xFFFF: "\\uffff"}
_NOT_FOUND = frozenset(("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "InvalidAddress"))
_REFUSED = frozenset(("InvalidMessageContents", "InvalidParameterValue"))


class SqsQueues:
    """See `usecases/ports/dead_letters.py`."""

    def __init__(self, session: AwsSession) -> None:
        self._session = session
        self._urls: dict[str, str] = {}  # by ARN

    async def check(self, arn: str) -> None:
        """See the port."""
        self._urls.pop(arn, None)
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._url(arn)
        except TimeoutError as error:
            text = (
                f"looking for the queue {arn}: no answer in {LOOK_SECONDS:g} s; check the network and AWS_ENDPOINT_URL"
            )
            raise CortexError("aws.unreachable", text, Category.UNAVAILABLE) from error

    async def send(self, arn: str, letter: DeadLetter) -> None:
        """See the port."""
        try:
            await self._send(arn, letter, _attributes(letter))
        except CortexError as error:
            if error.kind != MESSAGE_REFUSED:
                self._urls.pop(arn, None)
                raise
            await self._send(arn, letter, {})

    async def _send(self, arn: str, letter: DeadLetter, attributes: dict[str, Any]) -> None:
        url, client = await self._url(arn), await self._session.client("sqs", _region(arn))
        fifo = {}
        if arn.endswith(".fifo"):
            name = f"{letter.job_id}-{letter.index}"
            fifo = {"MessageGroupId": letter.job_id, "MessageDeduplicationId": name}
        body = letter.body.translate(_ESCAPES)
        with _explained(f"sending a batch to the queue {arn}", arn):
            await client.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=attributes, **fifo)

    async def _url(self, arn: str) -> str:
        if arn not in self._urls:
            account, name = arn.split(":")[4:6]
            client = await self._session.client("sqs", _region(arn))
            with _explained(f"looking for the queue {arn}", arn):
                found = await client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)
            self._urls[arn] = found["QueueUrl"]
        return self._urls[arn]


def _region(arn: str) -> str:
    return arn.split(":")[3]


def _attributes(letter: DeadLetter) -> dict[str, Any]:
    texts = {"job_id": letter.job_id, "api_name": letter.api_name}
    if letter.error:
        texts["last_error"] = _NOT_IN_XML.sub("\ufffd", letter.error[:ERROR_CHARACTERS])
    numbers = {"batch_index": letter.index, "attempts": letter.attempts, "http_status": letter.http_status}
    return {
        **{name: {"DataType": "String", "StringValue": text} for name, text in texts.items()},
        **{name: {"DataType": "Number", "StringValue": str(number)} for name, number in numbers.items()},
    }


@contextmanager
def _explained(doing: str, arn: str) -> Iterator[None]:
    """What SQS alone answers; the rest is AWS's."""
    with explained(doing, _RIGHTS):
        try:
            yield
        except Exception as error:
            code, _ = code_of(error)
            if code in _NOT_FOUND:
                text = f"there is no queue {arn}, or we may not see it: check its name, region and account"
                raise CortexError("aws.queue_not_found", text) from error
            if code in _REFUSED:
                raise CortexError(MESSAGE_REFUSED, f"the queue {arn} refuses it: {said(error)}") from error
            raise
