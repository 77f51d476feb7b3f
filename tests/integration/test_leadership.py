"""Who leads: the Lease by itself, then two real schedulers with one ledger."""

import asyncio
import json
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1.resources_pb2 import Job
from services.common.errors import CortexError
from services.common.kubernetes import LEASES, Cluster
from services.common.kubernetes.lease import LOST, Lease
from services.scheduler.api.server import SERVICES
from tests.cluster.kit import TestCluster, any_cluster
from tests.e2e.system import CONTAINER
from tests.integration.leadership_kit import LEASE_SECONDS, NOT_SERVING, SERVING, replicas


@asynccontextmanager
async def leases(*names: str) -> AsyncIterator[tuple[TestCluster, Cluster, list[Lease]]]:
    async with TestCluster() as cluster:
        client = await Cluster.connect({"KUBECONFIG": str(cluster.kubeconfig)})
        try:
            yield cluster, client, [Lease(client, "test", name, LEASE_SECONDS) for name in names]
        finally:
            await client.close()


async def test_one_of_many_candidates_gets_the_lease_and_the_next_when_it_is_released() -> None:
    async with leases("a", "b", "c", "d") as (_, client, candidates):
        waiting = {asyncio.create_task(lease.acquire()): lease for lease in candidates}
        for transitions in range(len(candidates)):
            async with asyncio.timeout(30):
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            (winner,) = done
            lease = waiting.pop(winner)
            found = await client.get(LEASES, client.namespace, "test")
            assert found is not None
            assert found["spec"]["leaseTransitions"] == transitions
            await lease.release()


async def test_a_lease_is_taken_only_when_its_record_stood_still_whatever_the_time_in_it() -> None:
    async with leases("new") as (_, client, (lease,)):
        body = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": {"name": "test"}}
        long_ago = {"renewTime": "2001-01-01T00:00:00.000000Z", "leaseDurationSeconds": LEASE_SECONDS}
        await client.create(LEASES, client.namespace, body | {"spec": long_ago | {"holderIdentity": "old"}})
        seen = time.monotonic()
        acquiring = asyncio.create_task(lease.acquire())
        await asyncio.sleep(LEASE_SECONDS / 2)
        renewed = {"spec": {"renewTime": "2001-01-01T00:00:01.000000Z"}}  # its clock is years behind, and it lives
        await client.patch(LEASES, client.namespace, "test", renewed)
        await acquiring
        assert time.monotonic() - seen >= LEASE_SECONDS * 1.5


async def test_the_holder_gives_up_when_it_cannot_renew_and_not_before() -> None:
    async with leases("a") as (cluster, _, (lease,)):
        await lease.acquire()
        keeping = asyncio.create_task(lease.keep())
        cluster.server.refuse("PUT", "leases", 500, times=2)
        cluster.server.cut_connections()
        await cluster.server.stop()
        away = time.monotonic()
        with pytest.raises(CortexError, match=r"could not be renewed") as lost:
            await keeping
        assert lost.value.kind == LOST
        renewal = LEASE_SECONDS / 5 * 1.2 + 0.5  # the last that succeeded is at most so old
        assert time.monotonic() - away >= LEASE_SECONDS * 0.9 - renewal
        await cluster.server.start()


async def test_the_holder_gives_up_when_somebody_else_has_it() -> None:
    async with leases("a") as (_, client, (lease,)):
        await lease.acquire()
        await client.patch(LEASES, client.namespace, "test", {"spec": {"holderIdentity": "thief"}})
        with pytest.raises(CortexError, match="a lost the lease test: thief holds it"):
            await lease.keep()


def api_file(notes: Path) -> bytes:
    return f"""
- name: hello
  kind: BatchAPI
  pod:
    containers:
      - name: api
        image: none
        command: ["{sys.executable}", "{CONTAINER}"]
        env: {{NOTES: "{notes}", WHERE: "$(CORTEX_PORT)"}}
""".encode()


async def test_the_standby_answers_for_its_health_alone_and_leads_when_the_leader_is_killed(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    async with any_cluster() as cluster, replicas(tmp_path, cluster.kubeconfig) as (first, second):
        assert [await second.health(name) for name in ("", *SERVICES)] == [SERVING, NOT_SERVING, NOT_SERVING]
        with pytest.raises(grpc.aio.AioRpcError, match="stands by") as refused:
            await second.batch.ListApis(pb.ListApisRequest())
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        await first.batch.DeployApis(pb.DeployApisRequest(file_name="x", config=api_file(notes)))
        items = pb.ItemList(items_json=json.dumps([{"sleep": 0.02, "n": n} for n in range(300)]), batch_size=1)
        request = pb.SubmitJobRequest(api_name="hello", workers=2, item_list=items)
        job_id = (await first.batch.SubmitJob(request)).job.job_id
        watching = pb.WatchJobRequest(api_name="hello", job_id=job_id)
        async for answer in first.batch.WatchJob(watching):
            if answer.job.batch_counts.succeeded >= 20:
                break
        first.signal(signal.SIGKILL)
        await second.leads()
        async for answer in second.batch.WatchJob(watching):
            job = answer.job
        counts = (job.batch_counts.succeeded, job.batch_counts.failed)
        assert (job.status, counts) == (Job.STATUS_SUCCEEDED, (300, 0)), f"{job.reason}\n{''.join(second.log)}"


async def test_a_leader_that_ends_hands_over_at_once(tmp_path: Path) -> None:
    async with any_cluster() as cluster, replicas(tmp_path, cluster.kubeconfig) as (first, second):
        first.signal(signal.SIGTERM)
        assert await first.ended() == 0
        assert "first released the lease scheduler" in "".join(first.log)
        await second.leads()


async def test_a_leader_that_was_stopped_for_too_long_ends_as_soon_as_it_wakes_up(tmp_path: Path) -> None:
    async with any_cluster() as cluster, replicas(tmp_path, cluster.kubeconfig) as (first, second):
        first.signal(signal.SIGSTOP)
        await second.told("second holds the lease")
        first.signal(signal.SIGCONT)
        assert await first.ended() == 1
        assert re.search("ending at once: first lost the lease scheduler", first.log[-1])


async def test_without_an_api_server_the_leader_ends_and_with_it_another_leads(tmp_path: Path) -> None:
    async with TestCluster() as cluster, replicas(tmp_path, cluster.kubeconfig) as (first, second):
        await cluster.server.stop()
        assert await first.ended() == 1
        assert re.search(r"first lost the lease scheduler: it could not be renewed", first.log[-1])
        await cluster.server.start()
        await second.leads()
