"""Real SQS servers on loopback, and what a user does with their queues."""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from tests.contract.object_servers import running_ministack
from tests.integration.moto_kit import moto_server

REGION = "us-west-2"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@dataclass(frozen=True)
class Sqs:
    """A running server."""

    url: str
    account: str

    @property
    def environ(self) -> dict[str, str]:
        """What the AWS libraries have to find, to use it."""
        nowhere = os.devnull
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_CONFIG_FILE": nowhere,
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
            **CREDENTIALS,
        }

    def create(self, name: str, **attributes: str) -> str:
        """A new queue's ARN."""
        if name.endswith(".fifo"):
            attributes["FifoQueue"] = "true"
        self.call("CreateQueue", QueueName=name, Attributes=attributes)
        return f"arn:aws:sqs:{REGION}:{self.account}:{name}"

    def delete(self, arn: str) -> None:
        self.call("DeleteQueue", QueueUrl=self._queue(arn))

    def messages(self, arn: str) -> list[dict[str, Any]]:
        """Everything in a queue, taken out of it."""
        found = []
        while more := self.call(
            "ReceiveMessage",
            QueueUrl=self._queue(arn),
            MaxNumberOfMessages=10,
            MessageAttributeNames=["All"],
            AttributeNames=["All"],
        ).get("Messages"):
            for message in more:
                self.call("DeleteMessage", QueueUrl=self._queue(arn), ReceiptHandle=message["ReceiptHandle"])
            found += more
        return found

    def user_without_rights(self) -> tuple[str, str]:
        """The access key of a new user, and its secret; moto's alone."""
        headers = {"Authorization": "AWS4-HMAC-SHA256 Credential=A/20260101/us-east-1/iam/aws4_request"}
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        for action in ("CreateUser", "CreateAccessKey"):
            form = f"Action={action}&UserName=ann&Version=2010-05-08"
            answer = urllib3.request("POST", self.url, body=form, headers=headers)
            assert answer.status == 200, answer.data
        key = re.search(rb"<AccessKeyId>(.+)</AccessKeyId>", answer.data)
        secret = re.search(rb"<SecretAccessKey>(.+)</SecretAccessKey>", answer.data)
        assert key, answer.data
        assert secret, answer.data
        return key[1].decode(), secret[1].decode()

    def call(self, action: str, **fields: Any) -> dict[str, Any]:
        """SQS's JSON protocol, without the libraries under test."""
        signed = f"AWS4-HMAC-SHA256 Credential=test/20260101/{REGION}/sqs/aws4_request, SignedHeaders=host, Signature=0"
        answer = urllib3.request(
            "POST",
            self.url,
            headers={
                "Content-Type": "application/x-amz-json-1.0",
                "X-Amz-Target": f"AmazonSQS.{action}",
                "Authorization": signed,
            },
            body=json.dumps(fields),
        )
        assert answer.status == 200, answer.data
        found: dict[str, Any] = json.loads(answer.data or b"{}")
        return found

    def _queue(self, arn: str) -> str:
        return f"{self.url}/{self.account}/{arn.split(':')[-1]}"


def values(message: dict[str, Any]) -> dict[str, str]:
    """A message's attributes."""
    return {name: value["StringValue"] for name, value in message.get("MessageAttributes", {}).items()}


@contextmanager
def ministack() -> Iterator[Sqs]:
    """The first one."""
    with (
        tempfile.TemporaryDirectory(prefix="cb-ministack-") as directory,
        running_ministack(Path(directory)) as server,
    ):
        yield Sqs(server.endpoint, "000000000000")


@contextmanager
def moto() -> Iterator[Sqs]:
    """The second opinion."""
    with moto_server() as url:
        yield Sqs(url, "123456789012")
