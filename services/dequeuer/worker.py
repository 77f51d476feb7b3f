"""One worker from its start to its end: hears the containers, the probes and the scheduler, and tells the rest.

The containers' state and the probes decide whether batches are taken (`_refresh`); an `Ending` decides how it ends:

    take no more, hand back what waits -> let the container finish what it has, within limits -> hand back the rest
    -> stop the containers, have the outcomes recorded -> goodbye
"""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress

from cortex.batch.v1.worker_service_pb2 import Health, HeldLease, WorkResponse
from cortex.batch.v1.worker_spec_pb2 import WorkerSpec
from services.common.errors import CortexError
from services.common.lifecycle import Stop
from services.common.telemetry import Telemetry
from services.dequeuer.completion import Completion
from services.dequeuer.deaths import Deaths
from services.dequeuer.delivery import Delivery
from services.dequeuer.endings import Ending, Endings
from services.dequeuer.flow import Flow
from services.dequeuer.lease import Lease
from services.dequeuer.outbox import Outbox
from services.dequeuer.ports import ContainerExit, Pod, PodState
from services.dequeuer.readiness import Readiness
from services.dequeuer.spans import Spans
from services.dequeuer.stream import Orphaned, Refused, WorkStream

log = logging.getLogger(__name__)


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
        self._endings = Endings(spec)
        self._deaths = Deaths(spec.port, pod.news_s)
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
        if response.HasField("containers"):
            self._pod.hear(response.containers.containers)
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
            self._end_with(self._endings.told(response.shutdown))

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
            self._end_with(self._endings.failed(error.message))

    async def _talk(self) -> None:
        try:
            await self._stream.run()
        except Refused as refusal:
            self._end_with(self._endings.refused(refusal))
        except Orphaned as orphaned:
            self._end_with(self._endings.orphaned(orphaned))

    async def _heed(self, stop: Stop) -> None:
        await stop.wait()
        if stop.at_once:
            self._end_with(self._endings.lost())
        signalled = self._endings.signalled()
        self._end_with(signalled)
        if self._drain_limit is not None:  # was ending already, at leisure
            soon = asyncio.get_running_loop().time() + signalled.drain_s
            self._drain_limit.reschedule(min(self._drain_limit.when() or soon, soon))

    # The end

    async def _end(self, ending: Ending, talk: "asyncio.Task[None]") -> None:
        self._refresh()
        with suppress(TimeoutError):
            async with asyncio.timeout(ending.drain_s) as self._drain_limit:
                await self._delivery.idle.wait()
                await self._completion.quiet.wait()
        self._drain_limit = None  # nothing to cut short any more
        self._readiness.stop()
        self._delivery.give_up()
        recorded = self._group.create_task(self._have_recorded(ending.record_s, talk))
        await self._pod.stop(ending.stop_s)
        await recorded
        if ending.farewell:
            self._outbox.goodbye(ending.reason)
            await asyncio.wait((talk,), timeout=ending.goodbye_s)

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
