"""A leader is lost while a job runs in pods, with its ledger in PostgreSQL: the next one goes on, exactly."""

import json
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1.resources_pb2 import Job
from services.common.kubernetes import PODS
from tests.cluster.kit import TestCluster
from tests.cluster.kubelet.kubelet import Node
from tests.e2e.system import CONTAINER
from tests.integration.leadership_kit import Replica, replicas
from tests.integration.postgres_kit import Postgres
from tests.ports import free_ports

ITEMS = 200
DEQUEUER = "cortex-batch/dequeuer:1"


@dataclass
class RunningJob:
    """A job at work in two pods, and who leads and who stands by."""

    cluster: TestCluster
    leader: Replica
    standby: Replica
    job_id: str
    notes: Path

    async def until(self, replica: Replica, holds: Callable[[Job], bool]) -> Job:
        request = pb.WatchJobRequest(api_name="hello", job_id=self.job_id)
        async for answer in replica.batch.WatchJob(request):
            if holds(answer.job):
                return answer.job
        raise AssertionError(f"{answer.job}\n{''.join(replica.log)}")

    async def pods(self) -> set[str]:
        found, _ = await self.cluster.client.list(PODS, self.cluster.client.namespace)
        return {pod["metadata"]["uid"] for pod in found}

    def deliveries(self) -> Counter[int]:
        """How often each item was answered with success."""
        lines = [line for file in self.notes.glob("[0-9a-f]*") for line in file.read_text().splitlines()]
        return Counter(item["n"] for line in lines for item in json.loads(line)["items"])


@asynccontextmanager
async def running_job(directory: Path, postgres: Postgres) -> AsyncIterator[RunningJob]:
    """Some of it is done."""
    notes = directory / "notes"
    notes.mkdir()
    ports = free_ports(2)
    settings = directory / "kubernetes.yaml"
    told = {
        "dequeuer_image": DEQUEUER,
        "scheduler_address": "dns:///scheduler:8889",
        "public_url": "http://gateway",
        "node_selector": {},
    }
    settings.write_text(yaml.safe_dump(told))
    environ = {
        "CORTEX_LEDGER": postgres.url(postgres.database()),
        "CORTEX_WORKERS": "kubernetes",
        "CORTEX_KUBERNETES_SETTINGS": str(settings),
    }
    async with TestCluster(nodes=[Node()]) as cluster:
        cluster.images.entrypoints[DEQUEUER] = [sys.executable, "-P", "-m", "services.dequeuer"]
        cluster.serve("scheduler", {8889: ports})
        async with replicas(directory, cluster.kubeconfig, ports, **environ) as (leader, standby):
            await leader.batch.DeployApis(pb.DeployApisRequest(file_name="x", config=api_file(notes)))
            content = json.dumps([{"sleep": 0.05, "n": number} for number in range(ITEMS)])
            items = pb.ItemList(items_json=content, batch_size=1)
            request = pb.SubmitJobRequest(api_name="hello", workers=2, item_list=items)
            job_id = (await leader.batch.SubmitJob(request)).job.job_id
            job = RunningJob(cluster, leader, standby, job_id, notes)
            await job.until(leader, lambda job: job.batch_counts.succeeded >= 20)
            yield job


def api_file(notes: Path) -> bytes:
    container = {
        "name": "api",
        "image": "hello:1",
        "command": [sys.executable, str(CONTAINER)],
        "env": {"NOTES": str(notes)},
    }
    return yaml.safe_dump([{"name": "hello", "kind": "BatchAPI", "pod": {"containers": [container]}}]).encode()


def ended_well(job: Job) -> bool:
    return job.status == Job.STATUS_SUCCEEDED


async def test_a_leader_is_killed_and_its_workers_go_on_with_the_next(tmp_path: Path, postgres: Postgres) -> None:
    async with running_job(tmp_path, postgres) as job:
        pods = await job.pods()
        job.leader.signal(signal.SIGKILL)
        await job.standby.leads()
        ended = await job.until(job.standby, ended_well)
        assert (ended.batch_counts.succeeded, ended.batch_counts.failed) == (ITEMS, 0)
        assert set(job.deliveries()) == set(range(ITEMS))
        assert max(job.deliveries().values()) == 1, "no worker was lost, so nothing was delivered twice"
        assert len(pods) == 2
        assert "did not come back" not in "".join(job.standby.log)


async def test_a_leader_that_was_stopped_writes_nothing_when_it_wakes_up(tmp_path: Path, postgres: Postgres) -> None:
    async with running_job(tmp_path, postgres) as job:
        job.leader.signal(signal.SIGSTOP)
        await job.standby.leads()
        await job.until(job.standby, lambda told: told.batch_counts.succeeded >= ITEMS // 2)
        job.leader.signal(signal.SIGCONT)
        assert await job.leader.ended() == 1
        assert "ending at once" in job.leader.log[-1]
        ended = await job.until(job.standby, ended_well)
        assert (ended.batch_counts.succeeded, ended.batch_counts.failed) == (ITEMS, 0)
        assert set(job.deliveries()) == set(range(ITEMS))
