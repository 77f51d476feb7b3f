"""One worker from its start to its end: hears the containers, the probes and the scheduler, and tells the rest.

The containers' state and the probes decide whether batches are taken (`_refresh`); an `Ending` decides how it ends:

    take no more, hand back what waits -> let the container finish what it has, within limits -> hand back the rest
    -> stop the containers, have the outcomes recorded -> goodbye
"""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from cortex.batch.v1.worker_service_pb2 import Health, HeldLease, WorkResponse
from cortex.batch.v1.worker_spec_pb2 import WorkerSpec
from services.common.errors import CortexError
from services.common.lifecycle import Stop
from services.common.telemetry import Telemetry
from services.dequeuer.completion import Completion
from services.dequeuer.deaths import Deaths
from services.dequeuer.delivery import Delivery
from services.dequeuer.flow import Flow
from services.dequeuer.lease import Lease
from services.dequeuer.outbox import Outbox
from services.dequeuer.ports import ContainerExit, Pod, PodState
from services.dequeuer.readiness import Readiness
from services.dequeuer.spans import Spans
from services.dequeuer.stream import Orphaned, Refused, WorkStream

log = logging.getLogger(__name__)

EXIT_ORPHANED = 3
"""Exit code of a dequeuer that found no scheduler for too long."""

TERM_DRAIN_S = 4.5
TERM_STOP_S = 2.0
"""SIGTERM leaves ten seconds in all: for batches in the container, the containers' end, goodbye and the last spans."""

STOP_S = 10.0
"""The containers' grace where the specification names none."""

GOODBYE_S = 1.0


@dataclass(frozen=True, slots=True)
class Ending:
    """How a worker ends."""

    reason: str
    drain_s: float = 0.0
    """Batches in the container may go on for so long."""
    stop_s: float | None = None
    """The containers' grace; None for what the specification says."""
    record_s: float = 5.0
    """The scheduler gets so long to record the last outcomes; what it has not recorded then is delivered again."""
    farewell: bool = True
    """There is a scheduler to report to."""
    at_once: bool = False
    code: int = 0


class Worker:
    """See the module's text. Its tasks live in the group."""

    def __init__(self, spec: WorkerSpec, pod: Pod, telemetry: Telemetry, group: asyncio.TaskGroup) -> None:
        self._spec = spec
        self._pod = pod
        self._group = group
        self._ready = asyncio.Event()
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._drain_limit: asyncio.Timeout | None = None
        spawn = group.create_task
        flow = Flow(max(1, spec.max_concurrency))
        spans = Spans(telemetry, spec.job_id, spec.worker)
        self._deaths = Deaths()
        self._outbox = Outbox(flow)
        self._readiness = Readiness(spec, pod, spawn, self._refresh, self._container_is_busy)
        self._delivery = Delivery(
            spec,
            self._outbox.reports,
            flow,
            self._deaths,
            spans,
            spawn,
            on_answer=pod.made_progress,
            on_unreachable=self._readiness.suspect,
        )
        self._completion = Completion(spec, self._outbox, self._deaths, spans, spawn, self._delivery, self._ready)
        self._stream = WorkStream(spec, self._outbox, self)

    async def run(self, stop: Stop) -> int:
        """Work until the end; returns the process's exit code."""
        talk, start, _ = tasks = [
            self._group.create_task(part) for part in (self._talk(), self._start(), self._heed(stop))
        ]
        try:
            ending = await self._ending
            log.info("ending: %s", ending.reason)
            if not ending.at_once:
                start.cancel()  # nothing may be started behind the stop
                await self._end(ending, talk)
            return ending.code
        finally:
            self._pod.kill()
            self._readiness.stop()
            self._completion.cancel()
            self._delivery.give_up()
            for task in tasks:
                task.cancel()

    # The containers (PodListener)

    def container_started(self, name: str) -> None:
        """Ask its probes."""
        log.info("container %s has started", name)
        self._readiness.container_started(name)

    def container_exited(self, exit: ContainerExit) -> None:  # noqa: A002  # the port's name
        """Nothing can be delivered, and what breaks now breaks because of this."""
        log.warning("container %s %s", exit.container, exit.reason)
        self._deaths.note(exit)
        self._readiness.container_exited(exit.container)

    def pod_changed(self, state: PodState) -> None:
        """See what follows."""
        self._refresh()

    def _container_is_busy(self) -> bool:
        return not self._delivery.idle.is_set()

    # The scheduler (StreamListener)

    def held(self) -> list[HeldLease]:
        """Leases in hand, and leases whose end may not be known."""
        return [*self._delivery.held(), *self._outbox.reports.held()]

    def completing(self) -> bool:
        """Whether /on-job-complete was asked for."""
        return self._completion.asked

    def welcomed(self, dropped_epochs: Iterable[int], *, keep_replies: bool) -> None:
        """Forget what is not honoured."""
        if keep_replies:
            self._delivery.keep_replies()
        dropped = list(dropped_epochs)
        if dropped:
            self._delivery.drop(dropped)
            self._outbox.reports.forget(dropped)

    def received(self, response: WorkResponse) -> None:
        """Do what the scheduler says. Recorded outcomes first: they make room."""
        if response.recorded_epochs:
            self._outbox.reports.forget(response.recorded_epochs)
        if response.leases:
            self._delivery.add(
                Lease(lease.batch_index, lease.epoch, lease.attempt, lease.payload, lease.traceparent)
                for lease in response.leases
            )
        if response.revoked_epochs:
            self._delivery.revoke(response.revoked_epochs)
        if response.HasField("job_complete"):
            self._completion.ask(response.job_complete.traceparent)
        if response.HasField("shutdown"):
            shutdown = response.shutdown
            self._end_with(Ending(f"told to end: {shutdown.reason}", drain_s=shutdown.grace_seconds))

    # What makes it end

    def _end_with(self, ending: Ending) -> None:
        if not self._ending.done():
            self._ending.set_result(ending)

    async def _start(self) -> None:
        self._refresh()
        try:
            await self._pod.start(self)
        except CortexError as error:
            log.error("the containers cannot be started: %s", error.message)
            self._end_with(Ending(error.message, code=1))

    async def _talk(self) -> None:
        try:
            await self._stream.run()
        except Refused as refusal:
            self._end_with(Ending(f"the scheduler has no use for this worker: {refusal}", farewell=False))
        except Orphaned as orphaned:
            self._end_with(Ending(str(orphaned), farewell=False, code=EXIT_ORPHANED))

    async def _heed(self, stop: Stop) -> None:
        await stop.wait()
        if stop.at_once:
            self._end_with(Ending("the system is gone", at_once=True, code=1))
        signalled = Ending("told to end by a signal", drain_s=TERM_DRAIN_S, stop_s=TERM_STOP_S, record_s=TERM_STOP_S)
        self._end_with(signalled)
        if self._drain_limit is not None:  # was ending already, at leisure
            soon = asyncio.get_running_loop().time() + TERM_DRAIN_S
            self._drain_limit.reschedule(min(self._drain_limit.when() or soon, soon))

    # The end

    async def _end(self, ending: Ending, talk: "asyncio.Task[None]") -> None:
        self._refresh()
        with suppress(TimeoutError):
            async with asyncio.timeout(ending.drain_s) as self._drain_limit:
                await self._delivery.idle.wait()
                await self._completion.quiet.wait()
        self._readiness.stop()
        self._delivery.give_up()
        recorded = self._group.create_task(self._have_recorded(ending.record_s, talk))
        stop_s = self._spec.local.stop_grace_seconds or STOP_S
        await self._pod.stop(stop_s if ending.stop_s is None else min(stop_s, ending.stop_s))
        await recorded
        if ending.farewell:
            self._outbox.goodbye(ending.reason)
            await asyncio.wait((talk,), timeout=GOODBYE_S)

    async def _have_recorded(self, timeout_s: float, talk: "asyncio.Task[None]") -> None:
        settled = self._group.create_task(self._outbox.reports.settled.wait())
        await asyncio.wait((settled, talk), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        settled.cancel()

    # What is taken, and what the scheduler is told of the containers

    def _refresh(self) -> None:
        ready = not self._ending.done() and self._readiness.ready
        if ready and not self._ready.is_set():
            self._ready.set()
            self._delivery.resume()
            log.info("ready for batches")
        elif not ready and (self._ready.is_set() or self._ending.done()):
            self._ready.clear()
            self._delivery.pause()
        self._outbox.accept(ready)
        self._outbox.health(self._health(ready))

    def _health(self, ready: bool) -> Health:
        state = self._pod.state
        if self._ending.done():
            phase, reason = Health.PHASE_TERMINATING, self._ending.result().reason
        elif ready:
            phase, reason = Health.PHASE_READY, ""
        elif state.running:
            phase, reason = Health.PHASE_NOT_READY, self._readiness.reason
        elif state.backing_off:
            phase, reason = Health.PHASE_BACKOFF, state.reason
        else:
            phase, reason = Health.PHASE_CREATING, state.reason
        return Health(
            phase=phase,
            reason=reason,
            failed_starts=state.failed_starts,
            out_of_memory=state.out_of_memory,
            cannot_start=state.cannot_start,
        )
