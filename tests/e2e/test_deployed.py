"""Users and faults where the whole suite runs as it is deployed: the chart's pods, with Envoy in front.

Every fault comes while a job is at work, and the job must end as if nothing had been: each item done and counted once.
What is shown elsewhere, and not again here:

    pod deleted or evicted, node lost, out of memory, image missing    tests/e2e/test_kubernetes.py
    the leading scheduler stopped and waking up, killed (by its gRPC)  tests/integration/test_failover.py
    PostgreSQL away, lost answers to commits, rivals                   tests/contract/test_postgres_ledger.py
    a controller that is killed in the middle of submitting            tests/integration/test_custom_resources.py
    streams through an edge whose scheduler dies                       tests/e2e/test_edge_is_patient.py
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
import yaml

from tests.cluster.kubelet.kubelet import unsupported
from tests.e2e.deployed import KUBECTL, NAME, Deployed, deployed

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(bool(unsupported()), reason=f"this machine cannot run pods: {unsupported()}"),
    pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed"),
]

ITEMS = [{"n": number, "sleep": 0.1} for number in range(150)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def of(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployed]:
    async with deployed(tmp_path_factory.mktemp("deployed")) as found:
        yield found


TREE = {
    ("edge: POST", ""): 1,
    ("gateway: POST /batch/{api_name}", "edge: POST"): 1,
    ("gateway: BatchService/SubmitJob", "gateway: POST /batch/{api_name}"): 1,
    ("scheduler: BatchService/SubmitJob", "gateway: BatchService/SubmitJob"): 1,
    ("scheduler: job", "scheduler: BatchService/SubmitJob"): 1,
    ("scheduler: partition", "scheduler: BatchService/SubmitJob"): 1,
    ("scheduler: batch", "scheduler: job"): 3,
    ("dequeuer: deliver batch", "scheduler: batch"): 3,
    ("scheduler: record outcome", "scheduler: batch"): 3,
    ("scheduler: on-job-complete", "scheduler: job"): 1,
    ("dequeuer: on-job-complete", "scheduler: on-job-complete"): 1,
}
"""How often which span hangs on which: those of a job of three batches and two workers, but for their starts."""
STARTS = ("scheduler: start worker", "scheduler: job")


def described(span: dict[str, Any]) -> str:
    """Who did what."""
    return f"{span['service'].removeprefix('cortex-')}: {span['name']}"


async def spans(of: Deployed, api: str, job_id: str) -> list[dict[str, Any]]:
    """The job's, once its last ones have come."""
    while True:
        found: list[dict[str, Any]] = (await of.call("GET", f"/batch/{api}/{job_id}/trace"))["spans"]
        if {"job", "on-job-complete"} <= {span["name"].partition(" ")[0] for span in found}:
            return found
        await asyncio.sleep(0.2)


async def test_a_job_goes_from_a_request_with_a_token_to_an_empty_cluster_under_one_trace(of: Deployed) -> None:
    await of.deploy("hello")
    job_id = await of.submit("hello", [1, 2, 3], results=True)
    assert "succeeded" in await of.cortex("watch", "hello", job_id)
    await of.ended_well("hello", job_id, 3)
    assert job_id in await of.cortex("get", "hello")
    lines = (await of.cortex("results", "hello", job_id)).splitlines()
    assert [json.loads(line) for line in lines] == [{"batch": n, "reply": {"done": [n + 1]}} for n in range(3)]
    found = await spans(of, "hello", job_id)
    by_id = {span["span_id"]: described(span) for span in found}
    tree = Counter((described(span), by_id.get(span["parent_span_id"], "")) for span in found)
    starts = tree.pop(STARTS)
    assert tree == TREE
    assert 1 <= starts <= 2, "a worker that was not ready before the end has no span"
    containers = {batch["traceparent"].split("-")[2] for batch in of.batches("hello")}
    assert {by_id[span_id] for span_id in containers} == {"dequeuer: deliver batch"}, "and on into the container"


async def test_resources_that_kubectl_applies_become_an_api_and_a_job(of: Deployed) -> None:
    s3 = of.s3.s3()
    await asyncio.to_thread(s3.create_bucket, Bucket="inputs")
    await asyncio.to_thread(s3.put_object, Bucket="inputs", Key="items.ndjson", Body=b"1\n2\n3\n")
    await of.kubectl("apply", "-f", "-", text=manifests(of, "applied"))
    await of.kubectl("wait", "--for=condition=Complete", "batchjob/applied", "--timeout=60s")
    lines = (await of.kubectl("get", "batchjobs", "applied")).splitlines()
    assert lines[1].split()[:7] == ["applied", "applied", "succeeded", "3", "0", "3", "2"]
    status = json.loads(await of.kubectl("get", "batchjob", "applied", "-o", "json"))["status"]
    await of.ended_well("applied", status["job_id"], 3)


def manifests(of: Deployed, name: str, **fields: Any) -> str:
    """A BatchAPI and a BatchJob of it, whose items are in a bucket."""
    files = {"s3_paths": ["s3://inputs/items.ndjson"], "batch_size": 1}
    job = {"api_name": name, "workers": 2, "delimited_files": files, **fields}
    version = "batch.cortex.dev/v1alpha1"
    resources = [
        {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}
        for kind, spec in (("BatchAPI", of.api(name)), ("BatchJob", job))
    ]
    return yaml.safe_dump_all(resources)


async def test_a_container_submits_the_next_job_at_the_url_that_cortex_gave_it(of: Deployed) -> None:
    await of.deploy("first", NEXT="http://ingressgateway-operator.istio-system.svc.cluster.local/batch/second")
    await of.deploy("second")
    following = {"workers": 1, "item_list": {"items": [7, 8], "batch_size": 1}}
    job_id = await of.submit("first", [1], config=following)
    await of.until("first", job_id, lambda job: "end_time" in job)
    (chained,) = of.noted("first", "CHAINED")
    await of.ended_well("second", chained["job_id"], 2)
    await of.ended_well("first", job_id, 1)


async def at_work(of: Deployed, name: str, items: list[Any] = ITEMS) -> str:
    """A job that has done some of it; its id."""
    await of.deploy(name)
    job_id = await of.submit(name, items)
    await of.some_are_done(name, 10)
    return job_id


async def test_a_leading_scheduler_that_is_killed_goes_on_where_it_was(of: Deployed) -> None:
    job_id = await at_work(of, "led")
    pods = {pod["metadata"]["uid"] for pod in await of.pods()}
    of.release.kill(f"{NAME}-scheduler", await of.leader())
    await of.some_are_done("led", 100)
    assert {pod["metadata"]["uid"] for pod in await of.pods()} == pods
    await of.ended_well("led", job_id, len(ITEMS))


async def test_a_ledger_that_is_killed_and_comes_back_has_lost_nothing(of: Deployed) -> None:
    job_id = await at_work(of, "kept")
    watching = await of.watch("kept", job_id)
    await asyncio.to_thread(of.postgres.kill)
    await of.until("kept", job_id, lambda job: "unavailable" in job["status"].lower())
    await asyncio.to_thread(of.postgres.start)
    await of.ended_well("kept", job_id, len(ITEMS))
    assert await watching == 0


async def test_an_api_server_that_is_away_costs_a_pause_at_most(of: Deployed) -> None:
    job_id = await at_work(of, "away", [{"n": number, "sleep": 0.2} for number in range(400)])
    await of.cluster.away(30)
    await of.ended_well("away", job_id, 400)


async def test_gateways_that_are_killed_are_not_missed_by_who_watches(of: Deployed) -> None:
    job_id = await at_work(of, "watched")
    watching = await of.watch("watched", job_id)
    for number in range(2):
        of.release.kill(f"{NAME}-gateway", number)
    assert await watching == 0
    await of.ended_well("watched", job_id, len(ITEMS))


async def test_an_edge_that_is_killed_costs_clients_and_workers_their_connections_alone(of: Deployed) -> None:
    job_id = await at_work(of, "edged")
    watching = await of.watch("edged", job_id)
    pods = {pod["metadata"]["uid"] for pod in await of.pods()}
    of.release.kill(f"{NAME}-edge")
    await of.some_are_done("edged", 100)
    assert {pod["metadata"]["uid"] for pod in await of.pods()} == pods
    assert await watching == 0
    await of.ended_well("edged", job_id, len(ITEMS))


async def test_controllers_that_are_killed_go_on_with_their_resources(of: Deployed) -> None:
    s3 = of.s3.s3()
    body = "\n".join(map(json.dumps, ITEMS)).encode()
    await asyncio.to_thread(s3.create_bucket, Bucket="inputs")
    await asyncio.to_thread(s3.put_object, Bucket="inputs", Key="items.ndjson", Body=body)
    await of.kubectl("apply", "-f", "-", text=manifests(of, "mirrored"))
    await of.some_are_done("mirrored", 10)
    for number in range(2):
        of.release.kill(f"{NAME}-controller", number)
    await of.kubectl("wait", "--for=condition=Complete", "batchjob/mirrored", "--timeout=60s")
    status = json.loads(await of.kubectl("get", "batchjob", "mirrored", "-o", "json"))["status"]
    assert status["batch_counts"]["succeeded"] == len(ITEMS)
    await of.ended_well("mirrored", status["job_id"], len(ITEMS))


async def test_a_leading_scheduler_that_is_lost_is_followed_by_the_other(
    of: Deployed, record_property: Callable[[str, object], None]
) -> None:
    job_id = await at_work(of, "followed")  # the last test: nothing brings the lost one back
    first = await of.leader()
    of.release.lose(f"{NAME}-scheduler", first)
    began = asyncio.get_running_loop().time()
    await of.until("followed", job_id, lambda job: job["status"] == "running")
    record_property("takeover_s", asyncio.get_running_loop().time() - began)
    assert await of.leader() == 1 - first
    await of.ended_well("followed", job_id, len(ITEMS))
