"""Electing one of several by a Lease.

The holder renews the Lease five times in its duration. Who wants it looks twice as often, and takes it when nobody
holds it, or when its record has not changed for as long as its holder said: counted from when *we* saw it change, on
our own steady clock. What time it is does not matter, so clocks that differ do no harm; only their pace counts. Every
write carries the `resourceVersion` that was read, so of two who take it at once one is refused.

The holder counts from *before* it sent its last renewal that succeeded, and gives up a tenth of the duration before
anybody else may take it. A process that was stopped for longer finds that its time is over before it does anything
else.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from services.common.errors import Category, CortexError
from services.common.kubernetes.client import Cluster, Object
from services.common.kubernetes.resources import LEASES

log = logging.getLogger(__name__)

DURATION_SECONDS = 10
LOST = "lease.lost"


@dataclass(frozen=True, slots=True)
class _Observed:
    """A record, and when we first saw it."""

    spec: Object
    since: float


class Lease:
    """One candidate's view of a Lease."""

    def __init__(self, cluster: Cluster, name: str, identity: str, seconds: int = DURATION_SECONDS) -> None:
        """`identity` is the candidate's alone; who comes back under it has the Lease again at once.

        `seconds` is how long the Lease is ours after a renewal.
        """
        self._seconds = seconds
        self._renew, self._look, self._patience = seconds / 5, seconds / 10, seconds * 0.3
        self._usable = seconds * 0.9
        self._cluster = cluster
        self._name = name
        self._identity = identity
        self._observed: _Observed | None = None
        self._renewed = 0.0

    async def acquire(self) -> None:
        """Wait until we hold it. An API server that is away, or refuses, is asked again."""
        told = ""
        while True:
            try:
                async with asyncio.timeout(self._patience):
                    if await self._try():
                        log.info("%s holds the lease %s", self._identity, self._name)
                        return
                holder = self._holder()
                if holder != told:
                    log.info("standing by: %s holds the lease %s", holder, self._name)
                    told = holder
            except TimeoutError:
                log.warning("no answer from Kubernetes about the lease %s in %g s", self._name, self._patience)
            except CortexError as error:
                log.warning("cannot get the lease %s: %s", self._name, error.message)
            await asyncio.sleep(_jittered(self._look))

    async def keep(self) -> None:
        """Renew it for ever. Raises `CortexError` (`lease.lost`) when it is somebody else's, or may soon be."""
        pause = self._renew
        while True:
            await asyncio.sleep(max(0.0, min(_jittered(pause), self._left())))
            if self._left() <= 0:
                raise self._lost(f"it could not be renewed for {self._usable:g} s")
            pause = self._renew if await self._renew_once() else self._look

    def _left(self) -> float:
        return self._renewed + self._usable - time.monotonic()

    async def _renew_once(self) -> bool:
        try:
            async with asyncio.timeout(min(self._patience, self._left())):
                ours = await self._try()
        except TimeoutError:
            log.warning("no answer from Kubernetes about the lease %s; trying again", self._name)
            return False
        except CortexError as error:
            log.warning("cannot renew the lease %s: %s; trying again", self._name, error.message)
            return False
        if not ours:
            raise self._lost(f"{self._holder()} holds it")
        return True

    async def release(self) -> None:
        """Let the next one have it at once. Does what it can: who is away comes after its time."""
        with suppress(CortexError, TimeoutError):
            async with asyncio.timeout(self._patience):
                found = await self._cluster.get(LEASES, self._cluster.namespace, self._name)
                if found is not None and found["spec"].get("holderIdentity") == self._identity:
                    found["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                    await self._cluster.replace(LEASES, self._cluster.namespace, found)
                    log.info("%s released the lease %s", self._identity, self._name)

    async def _try(self) -> bool:
        """Take or renew it, if we may. Raises `kubernetes.conflict` when somebody was faster."""
        asked = time.monotonic()
        namespace = self._cluster.namespace
        found = await self._cluster.get(LEASES, namespace, self._name)
        if found is None:
            metadata = {"name": self._name, "namespace": namespace}
            body = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata}
            self._saw(await self._cluster.create(LEASES, namespace, body | {"spec": self._record({})}))
        else:
            self._saw(found)
            if not self._may_have():
                return False
            before = found.get("spec") or {}
            body = found | {"spec": before | self._record(before)}
            self._saw(await self._cluster.replace(LEASES, namespace, body))
        self._renewed = asked
        return True

    def _record(self, before: Object) -> Object:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        record: Object = {"holderIdentity": self._identity, "leaseDurationSeconds": self._seconds, "renewTime": now}
        if before.get("holderIdentity") != self._identity:
            transitions = int(before.get("leaseTransitions") or 0) + 1 if before else 0
            record |= {"acquireTime": now, "leaseTransitions": transitions}
        return record

    def _saw(self, found: Object) -> None:
        spec = found.get("spec") or {}
        if self._observed is None or self._observed.spec != spec:
            self._observed = _Observed(spec, time.monotonic())

    def _holder(self) -> str:
        return str(self._observed.spec.get("holderIdentity") or "") if self._observed is not None else ""

    def _may_have(self) -> bool:
        assert self._observed is not None  # noqa: S101  # its caller has just seen it
        seconds = int(self._observed.spec.get("leaseDurationSeconds") or 0)
        return self._holder() in ("", self._identity) or time.monotonic() >= self._observed.since + seconds

    def _lost(self, why: str) -> CortexError:
        return CortexError(LOST, f"{self._identity} lost the lease {self._name}: {why}", Category.CONFLICT)


@asynccontextmanager
async def held(lease: Lease) -> AsyncIterator[asyncio.Task[None]]:
    """Keep a lease that was acquired; the task ends, with an error, when it is lost. Released on the way out."""
    keeping = asyncio.create_task(lease.keep(), name="lease")
    try:
        yield keeping
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})
        await lease.release()


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311  # spreads requests, guards nothing
