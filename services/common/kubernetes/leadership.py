"""Which of several replicas leads: the one that holds the Lease. The others stand by.

A leader that may not be it any more ends at once, in the middle of whatever it does: another one leads by now, or may
soon.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from services.common.kubernetes.client import Cluster
from services.common.kubernetes.lease import Lease, held
from services.common.lifecycle import Stop, end_at_once


@asynccontextmanager
async def leadership(
    environ: Mapping[str, str],
    name: str,
    identity: str,
    seconds: int,
    stop: Stop,
    deposed: Callable[[str], None] = end_at_once,
) -> AsyncIterator[bool]:
    """Wait until this replica leads; it does as long as the context lasts. False when it was told to stop before.

    `name` is the Lease's, `identity` ours, `seconds` how long a leader that says nothing still leads. `deposed` is
    called, with the reason, when the lease is lost.
    """
    cluster = await Cluster.connect(environ)
    lease = Lease(cluster, name, identity, seconds)
    try:
        if not await _acquired(lease, stop):
            yield False
            return
        async with held(lease) as keeping:
            keeping.add_done_callback(lambda task: _ended(task, deposed))
            yield True
    finally:
        await cluster.close()


async def _acquired(lease: Lease, stop: Stop) -> bool:
    acquiring = asyncio.create_task(lease.acquire(), name="lease")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({acquiring, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            acquiring.cancel()
            await asyncio.wait({acquiring})
            await lease.release()  # it may have come at the same moment
            return False
        await acquiring
        return True
    finally:
        acquiring.cancel()
        stopping.cancel()


def _ended(keeping: "asyncio.Task[None]", deposed: Callable[[str], None]) -> None:
    if not keeping.cancelled() and (error := keeping.exception()) is not None:
        deposed(str(error))
