"""The users' queues for batches that are given up."""

from dataclasses import dataclass
from typing import Protocol

MESSAGE_REFUSED = "aws.message_refused"
"""The kind of error for a message that its queue will never take."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A batch that is given up, on its way to a queue of the user's."""

    job_id: str
    api_name: str
    index: int
    attempts: int
    http_status: int
    """Of the last attempt; 0 when there was no answer."""
    error: str
    """Of the last attempt, for people."""
    body: str
    """The JSON array that containers got."""


class DeadLetterQueues(Protocol):
    """The users' SQS queues, by their ARNs.

    Raises `CortexError` everywhere: kinds `aws.*` say what is wrong with which queue and what to do; category
    UNAVAILABLE is for what may pass by itself.
    """

    async def check(self, arn: str) -> None:
        """Raise `CortexError` when the queue is not there or not ours to use: `aws.queue_not_found`, ..."""

    async def send(self, arn: str, letter: DeadLetter) -> None:
        """Put a batch into a queue. It is in there when this returns.

        Raises `CortexError` (MESSAGE_REFUSED) when the queue will never take this one. A FIFO queue takes the
        same batch once, however often it is sent within five minutes.
        """
