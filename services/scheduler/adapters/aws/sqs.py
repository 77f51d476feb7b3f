"""The `DeadLetterQueues` port on SQS.

AWS's standard configuration applies (environment, profile, role, `AWS_ENDPOINT_URL`); region and account come from the
queue's ARN. Each region has one client, made at its first use.

SQS takes what XML 1.0 can say. The only characters of a JSON text beyond that are U+FFFE and U+FFFF, which stand in
strings: they are sent as `\\ufffe` and `\\uffff`, the same value. A batch that fits a queue only without the message's
attributes is sent without them.
"""

import asyncio
import re
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from importlib import import_module
from typing import Any

from services.common.errors import Category, CortexError
from services.scheduler.usecases.ports import MESSAGE_REFUSED, DeadLetter

CONNECT_SECONDS, READ_SECONDS = 5, 10
ERROR_CHARACTERS = 1000
"""Of the last error in a message's attributes."""

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPES = {0xFFFE: "\\ufffe", 0xFFFF: "\\uffff"}
_NOT_FOUND = frozenset(("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "InvalidAddress"))
_BAD_CREDENTIALS = frozenset(
    (
        *("InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "InvalidAccessKeyId"),
        *("ExpiredToken", "ExpiredTokenException", "InvalidSecurity", "MissingAuthenticationToken"),
    )
)
_REFUSED = frozenset(("InvalidMessageContents", "InvalidParameterValue"))


class SqsQueues:
    """See `usecases/ports.py`. Belongs to the event loop on which it is used first."""

    def __init__(self) -> None:
        self._clients: dict[str, Any] = {}  # by region
        self._urls: dict[str, str] = {}  # by ARN
        self._opening = asyncio.Lock()
        self._open = AsyncExitStack()

    async def check(self, arn: str) -> None:
        """See the port."""
        self._urls.pop(arn, None)
        await self._url(arn)

    async def send(self, arn: str, letter: DeadLetter) -> None:
        """See the port."""
        try:
            await self._send(arn, letter, _attributes(letter))
        except CortexError as error:
            if error.kind != MESSAGE_REFUSED:
                self._urls.pop(arn, None)
                raise
            await self._send(arn, letter, {})

    async def close(self) -> None:
        """See the port."""
        self._clients.clear()
        await self._open.aclose()

    async def _send(self, arn: str, letter: DeadLetter, attributes: dict[str, Any]) -> None:
        url, client = await self._url(arn), await self._client(arn)
        fifo = {}
        if arn.endswith(".fifo"):
            name = f"{letter.job_id}-{letter.index}"
            fifo = {"MessageGroupId": letter.job_id, "MessageDeduplicationId": name}
        body = letter.body.translate(_ESCAPES)
        await _explained(arn, client.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=attributes, **fifo))

    async def _url(self, arn: str) -> str:
        if arn not in self._urls:
            account, name = arn.split(":")[4:6]
            client = await self._client(arn)
            found = await _explained(arn, client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account))
            self._urls[arn] = found["QueueUrl"]
        return self._urls[arn]

    async def _client(self, arn: str) -> Any:  # botocore makes its clients' types at run time
        region = arn.split(":")[3]
        async with self._opening:
            if region not in self._clients:
                aioboto3 = await asyncio.to_thread(import_module, "aioboto3")
                config = import_module("botocore.config").Config(
                    connect_timeout=CONNECT_SECONDS,
                    read_timeout=READ_SECONDS,
                    retries={"total_max_attempts": 2, "mode": "standard"},
                )
                opening = aioboto3.Session().client("sqs", region_name=region, config=config)
                self._clients[region] = await _explained(arn, self._open.enter_async_context(opening))
            return self._clients[region]


def _attributes(letter: DeadLetter) -> dict[str, Any]:
    texts = {"job_id": letter.job_id, "api_name": letter.api_name}
    if letter.error:
        texts["last_error"] = _NOT_IN_XML.sub("\ufffd", letter.error[:ERROR_CHARACTERS])
    numbers = {"batch_index": letter.index, "attempts": letter.attempts, "http_status": letter.http_status}
    return {
        **{name: {"DataType": "String", "StringValue": text} for name, text in texts.items()},
        **{name: {"DataType": "Number", "StringValue": str(number)} for name, number in numbers.items()},
    }


async def _explained(arn: str, request: Awaitable[Any]) -> Any:  # botocore's answers are dicts of anything
    """A request's answer. Raises `CortexError` for what AWS, or the way there, says."""
    errors = import_module("botocore.exceptions")
    try:
        return await request
    except errors.ClientError as error:
        raise _explain(arn, error.response) from error
    except (errors.NoCredentialsError, errors.PartialCredentialsError, errors.CredentialRetrievalError) as error:
        text = f"no AWS credentials for the queue {arn}: set them where the scheduler runs ({error})"
        raise CortexError("aws.credentials_not_found", text) from error
    except (errors.BotoCoreError, OSError) as error:
        text = f"the queue {arn} cannot be reached: {error or type(error).__name__}"
        raise CortexError("aws.unavailable", text, Category.UNAVAILABLE) from error


def _explain(arn: str, response: dict[str, Any]) -> CortexError:
    told = response.get("Error", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    codes = {told.get("Code", ""), told.get("QueryErrorCode", "")}
    why = " ".join((told.get("Message") or told.get("Code") or f"status {status}").split())
    if codes & _NOT_FOUND:
        text = f"there is no queue {arn}, or we may not see it: check its name, region and account"
        return CortexError("aws.queue_not_found", text)
    if codes & _REFUSED:
        return CortexError(MESSAGE_REFUSED, f"the queue {arn} refuses it: {why}")
    if codes & _BAD_CREDENTIALS:
        text = f"AWS does not accept our credentials for the queue {arn}: {why}"
        return CortexError("aws.invalid_credentials", text)
    if status == 403 or any("AccessDenied" in code for code in codes):
        text = f"we may not use the queue {arn}: allow sqs:GetQueueUrl and sqs:SendMessage ({why})"
        return CortexError("aws.access_denied", text)
    return CortexError("aws.unavailable", f"the queue {arn} cannot be used just now: {why}", Category.UNAVAILABLE)
