"""Workers that die, break off, come back, say things twice and give batches back, while the scheduler is restarted.

A seed decides what happens next, the wire decides when.
"""

import asyncio
import random
from contextlib import suppress

import grpc

from cortex.batch.v1 import resources_pb2, worker_service_pb2
from tests.integration.scheduler_kit import SUCCEEDED, Kit, ScriptedDriver, ScriptedWorker


class Chaos:
    """One job, its workers, and what they have told."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)  # a reproducible one
        self.driver = ScriptedDriver()
        self.workers: list[ScriptedWorker] = []
        self.useful: set[str] = set()
        """Workers of which the running scheduler has recorded something: their end is no failed start."""
        self.told: list[worker_service_pb2.Result] = []
        self.unrecorded: dict[str, list[worker_service_pb2.Result]] = {}
        self.successes: set[int] = set()
        self.failures: set[int] = set()
        self.losses: dict[int, int] = {}
        self.final = self.total = 0

    async def go_on(self, kit: Kit, job_id: str) -> bool:
        """Do things until the job has ended (True) or the scheduler is to be restarted."""
        for worker in self.random.sample(self.workers, len(self.workers)):
            await self._open(kit, worker)
        while True:
            while not self.driver.started.empty():
                worker = await kit.worker()
                self.workers.append(worker)
                await self._open(kit, worker)
            asked = [worker.id for worker in self.workers if worker.complete.is_set()]
            job = await kit.job(job_id)
            self._check(job, asked)
            if job.HasField("end_time"):
                return True
            if self.workers:
                if self.random.random() < 0.03:
                    return False
                await self._act(kit, self.random.choice(self.workers))

    def _check(self, job: resources_pb2.Job, asked: list[str]) -> None:
        counts = job.batch_counts
        assert self.total <= job.total_batch_count
        self.total = job.total_batch_count
        assert counts.pending + counts.leased + counts.succeeded + counts.failed == self.total
        assert job.metrics.succeeded == counts.succeeded
        assert self.final <= counts.succeeded + counts.failed
        self.final = counts.succeeded + counts.failed
        assert len(asked) <= 1, "one worker at a time is asked for /on-job-complete"
        assert not asked or self.final == self.total

    async def _act(self, kit: Kit, worker: ScriptedWorker) -> None:
        self._heed(worker)
        if worker.ended.is_set():
            await self._open(kit, worker)
            return
        action = self.random.choices(
            (self._work, self._repeat, self._give_back, self._break_off, self._die), weights=(60, 10, 6, 6, 4)
        )[0]
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the stream has ended: seen the next time
            await action(kit, worker)

    def _heed(self, worker: ScriptedWorker) -> None:
        """Forget what is recorded."""
        waiting = self.unrecorded.get(worker.id, [])
        if any(result.epoch in worker.recorded for result in waiting):
            self.useful.add(worker.id)
        self.unrecorded[worker.id] = [result for result in waiting if result.epoch not in worker.recorded]

    async def _open(self, kit: Kit, worker: ScriptedWorker) -> None:
        """Come back as a dequeuer does: with what is held, and with what may not be recorded."""
        self._heed(worker)
        waiting = self.unrecorded[worker.id]
        held = [*worker.leases.values()]
        await worker.open(held=held, results=waiting, completing=worker.complete.is_set())
        await worker.welcome.wait()
        if worker.ended.is_set() and worker.error is not None:
            assert worker.error.code() is grpc.StatusCode.NOT_FOUND, "only what is not wanted any more is refused"
            await self._bury(worker)
            return
        for index in [index for index, lease in worker.leases.items() if lease.epoch in worker.dropped]:
            del worker.leases[index]

    async def _bury(self, worker: ScriptedWorker) -> None:
        self.workers.remove(worker)
        await worker.close()

    def succeeds(self, lease: worker_service_pb2.Lease) -> bool:
        """What the container makes of a batch."""
        return self.random.random() < 0.9

    # What a worker does

    async def _work(self, kit: Kit, worker: ScriptedWorker) -> None:
        if worker.complete.is_set():
            await worker.answer_completion()
            return
        leases = [lease for lease in worker.leases.values() if self.random.random() < 0.7]
        results = [worker.result(lease, ok=self.succeeds(lease)) for lease in leases]
        for result in results:
            del worker.leases[result.batch_index]
            (self.successes if result.outcome == SUCCEEDED else self.failures).add(result.batch_index)
        self.told += results
        self.unrecorded[worker.id] += results
        await worker.say(worker_service_pb2.WorkRequest(results=results))

    async def _repeat(self, kit: Kit, worker: ScriptedWorker) -> None:
        """Say what was said before, by whomever."""
        if self.told:
            again = self.random.choice(self.told)
            await worker.say(worker_service_pb2.WorkRequest(results=[again, again]))

    async def _give_back(self, kit: Kit, worker: ScriptedWorker) -> None:
        message = worker_service_pb2.WorkRequest()
        for index in [index for index in worker.leases if self.random.random() < 0.5]:
            lease = worker.leases.pop(index)
            lost = self.random.random() < 0.3
            self.losses[index] = self.losses.get(index, 0) + lost
            message.returned.add(batch_index=index, epoch=lease.epoch, lost_in_container=lost)
        await worker.say(message)

    async def _break_off(self, kit: Kit, worker: ScriptedWorker) -> None:
        await worker.close()
        await self._open(kit, worker)

    async def _die(self, kit: Kit, worker: ScriptedWorker) -> None:
        if worker.id in self.useful:
            self.useful.discard(worker.id)
            for index in worker.leases:
                self.losses[index] = self.losses.get(index, 0) + 1
            self.driver.die(worker.id)
            await self._bury(worker)

    async def scheduler_is_gone(self) -> None:
        """Some workers do not live to see the next one."""
        self.useful.clear()
        for worker in list(self.workers):
            self._heed(worker)
            await worker.close()
            if self.random.random() < 0.2:
                for index in worker.leases:
                    self.losses[index] = self.losses.get(index, 0) + 1
                self.driver.alive.discard(worker.id)
                self.workers.remove(worker)
