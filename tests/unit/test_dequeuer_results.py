"""Outcomes and returned leases on their way to the scheduler."""

import asyncio

import pytest

from cortex.batch.v1.worker_service_pb2 import Result, WorkRequest
from services.dequeuer.lease import Lease
from services.dequeuer.results import FLUSH_COUNT, Reports


class Sender:
    """Takes what is due, like the work stream."""

    def __init__(self) -> None:
        self.due = asyncio.Event()
        self.reports = Reports(self.due.set)

    def take(self) -> WorkRequest:
        self.due.clear()
        message = WorkRequest()
        self.reports.take(message)
        return message


@pytest.fixture
async def sender() -> Sender:
    return Sender()


def lease(batch: int) -> Lease:
    return Lease(batch, 1000 + batch, 1, b"[]", "")


async def test_an_outcome_waits_a_moment_for_others(sender: Sender) -> None:
    sender.reports.add(lease(1), 200, 0.5)
    assert not sender.due.is_set()
    async with asyncio.timeout(5):
        await sender.due.wait()
    (result,) = sender.take().results
    assert result == Result(
        batch_index=1, epoch=1001, outcome=Result.OUTCOME_SUCCEEDED, http_status=200, duration_seconds=0.5
    )


async def test_many_outcomes_wait_for_nothing(sender: Sender) -> None:
    for batch in range(FLUSH_COUNT):
        sender.reports.add(lease(batch), 200, 0.5)
    assert sender.due.is_set()
    assert len(sender.take().results) == FLUSH_COUNT


async def test_an_idle_container_makes_the_last_outcome_due_at_once(sender: Sender) -> None:
    sender.reports.add(lease(1), 200, 0.5)
    sender.reports.flush()
    assert sender.due.is_set()


async def test_nothing_is_due_when_nothing_waits(sender: Sender) -> None:
    sender.reports.flush()
    assert not sender.due.is_set()


async def test_a_new_stream_gets_what_is_not_recorded(sender: Sender) -> None:
    sender.reports.add(lease(1), 200, 0.5)
    sender.reports.add(lease(2), 0, 0.5, "no answer")
    sender.take()
    sender.reports.forget([1001])
    sender.reports.reopen()
    assert [(result.epoch, result.error) for result in sender.take().results] == [(1002, "no answer")]
    assert [held.epoch for held in sender.reports.held()] == [1002]


async def test_it_is_settled_when_everything_is_recorded(sender: Sender) -> None:
    assert sender.reports.settled.is_set()
    sender.reports.add(lease(1), 200, 0.5)
    assert not sender.reports.settled.is_set()
    sender.take()
    sender.reports.forget([1001])
    assert sender.reports.settled.is_set()


async def test_a_returned_lease_is_settled_by_the_answer_to_a_heartbeat_behind_it(sender: Sender) -> None:
    sender.reports.heartbeat_sent()
    sender.reports.give_back(lease(1), lost_in_container=True)
    (returned,) = sender.take().returned
    assert (returned.batch_index, returned.epoch, returned.lost_in_container) == (1, 1001, True)
    sender.reports.heartbeat_sent()
    sender.reports.heartbeat_answered()  # the heartbeat before it
    assert [held.epoch for held in sender.reports.held()] == [1001]
    sender.reports.heartbeat_answered()
    assert sender.reports.held() == []
    assert sender.reports.settled.is_set()
