"""Whole jobs on Kubernetes: real services, real dequeuers in pods that the tests' kubelet runs as processes."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from services.common.kubernetes import JOBS, PODS
from tests.cluster.kubelet.kubelet import Node, unsupported
from tests.e2e.pods import Pods, pods, until

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(unsupported()), reason=f"this machine cannot run pods: {unsupported()}"),
]

ITEMS = [{"n": number, "sleep": 0.05} for number in range(60)]


async def check_end(of: Pods, job_id: str, items: list[Any] = ITEMS) -> dict[str, Any]:
    """Nothing was lost, nothing recorded twice, and nothing is left."""
    answer = await of.wait(job_id)
    job: dict[str, Any] = answer["job_status"]
    assert job["status"] == "succeeded", job
    assert job["batch_counts"] == {"pending": 0, "leased": 0, "succeeded": len(items), "failed": 0}
    assert (answer["metrics"]["succeeded"], answer["metrics"]["failed"]) == (len(items), 0)
    assert sorted(of.system.done()) == sorted(json.dumps(item) for item in items)
    assert len(of.system.completions()) == 1
    await of.nothing_is_left()
    return job


async def test_a_job_from_submission_to_an_empty_cluster_under_one_trace(tmp_path: Path) -> None:
    async with pods(tmp_path) as of:
        await of.deploy()
        job_id = await of.submit(ITEMS, workers=2, config={"a": 1.0})
        await of.counts(job_id, ready=2)
        logs = await asyncio.to_thread(lambda: list(of.system.client.job_logs("hello", job_id)))
        assert {(line["worker"], line["message"]) for line in logs if line["container"] == "api"} == {
            (0, "serving 8080"),
            (1, "serving 8080"),
        }
        await check_end(of, job_id)
        (completion,) = of.system.completions()
        assert completion["spec"]["config"] == {"a": 1.0}

        def spans() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = of.system.client.job_trace("hello", job_id)["spans"]
            return found

        names: set[str] = set()
        while not {"job", "on-job-complete"} <= names:
            names = {span["name"].split(" ")[0] for span in await asyncio.to_thread(spans)}
            await asyncio.sleep(0.1)
        services = {span["service"] for span in await asyncio.to_thread(spans)}
        assert {"cortex-gateway", "cortex-scheduler", "cortex-dequeuer"} <= services


async def test_a_pod_that_is_deleted_is_replaced(tmp_path: Path) -> None:
    async with pods(tmp_path) as of:
        await of.deploy()
        job_id = await of.submit(ITEMS, workers=2)
        await of.done(5)
        victim = await of.running()
        await of.cluster.client.delete(PODS, of.namespace, victim["metadata"]["name"])
        await check_end(of, job_id)


async def test_a_node_that_is_lost_gives_its_work_to_others(tmp_path: Path) -> None:
    async with pods(tmp_path, [Node("node-1"), Node("node-2")]) as of:
        await of.deploy()
        job_id = await of.submit(ITEMS, workers=2)
        await of.done(5)
        victim = await of.running()
        of.cluster.kubelet.lose(victim["spec"]["nodeName"])
        await check_end(of, job_id)


async def test_an_image_that_is_missing_is_told_and_the_job_goes_on_when_it_is_there(tmp_path: Path) -> None:
    async with pods(tmp_path) as of:
        of.cluster.images.missing.add("none")
        await of.deploy()
        job_id = await of.submit(ITEMS[:5], workers=1)
        job = await of.counts(job_id, err_image_pull=1)
        assert job["status"] in ("enqueuing", "running")
        of.cluster.images.missing.clear()
        await check_end(of, job_id, ITEMS[:5])


async def test_an_image_that_does_not_come_before_the_deadline_ends_the_job_with_its_name(tmp_path: Path) -> None:
    async with pods(tmp_path, environ={"CORTEX_STARTUP_DEADLINE": "5"}) as of:
        of.cluster.images.missing.add("none")
        await of.deploy()
        job = (await of.wait(await of.submit([1], workers=1)))["job_status"]
        assert job["status"] == "worker_error", job
        assert 'Back-off pulling image "none"' in job["reason"] or 'image "none": not found' in job["reason"]
        assert job["batch_counts"] == {"pending": 1, "leased": 0, "succeeded": 0, "failed": 0}
        assert of.system.done() == {}
        await of.nothing_is_left()


async def test_a_container_that_runs_out_of_memory_at_every_start_ends_the_job_as_that(tmp_path: Path) -> None:
    async with pods(tmp_path) as of:
        eater = [sys.executable, "-c", "hoard = b'x' * (400 << 20); input()"]
        await of.deploy(container={"command": eater, "compute": {"mem": "100Mi"}})
        job = (await of.wait(await of.submit([1], workers=1)))["job_status"]
        assert (job["status"], "ran out of memory" in job["reason"]) == ("worker_oom", True), job
        await of.nothing_is_left()


async def test_a_batch_that_kills_three_workers_by_its_memory_is_failed_with_that_reason(tmp_path: Path) -> None:
    async with pods(tmp_path) as of:
        await of.deploy(container={"compute": {"mem": "200Mi"}})
        job_id = await of.submit([1, "eat", 2], workers=1)
        job = (await of.wait(job_id))["job_status"]
        assert job["status"] == "completed_with_failures", job
        assert job["batch_counts"] == {"pending": 0, "leased": 0, "succeeded": 2, "failed": 1}


async def test_a_container_that_is_killed_for_memory_once_gives_its_batch_back(tmp_path: Path) -> None:
    async with pods(tmp_path) as of:
        await of.deploy()
        job_id = await of.submit(ITEMS, workers=1)
        await of.done(3)
        of.cluster.kubelet.kill_for_memory((await of.running())["metadata"]["name"], "api")
        await check_end(of, job_id)


async def test_a_container_that_never_starts_ends_the_job_with_its_last_words(tmp_path: Path) -> None:
    async with pods(tmp_path) as of:
        await of.deploy(env={"START": "exit"})
        job = (await of.wait(await of.submit([1], workers=1)))["job_status"]
        assert job["status"] == "worker_error"
        assert "cannot load the model" in job["reason"]
        await of.nothing_is_left()


async def test_while_the_api_server_is_away_work_goes_on(tmp_path: Path) -> None:
    async with pods(tmp_path) as of:
        await of.deploy()
        items = [{"n": number, "sleep": 0.5} for number in range(200)]
        job_id = await of.submit(items, workers=2)
        await of.done(4)
        before = len(of.system.done())
        await of.own_cluster.away(30)
        assert len(of.system.done()) > before + 40
        job = await of.job(job_id)
        assert job["worker_counts"] == {"ready": 2}
        await check_end(of, job_id, items)


async def test_a_scheduler_that_is_killed_finds_its_pods_again(tmp_path: Path) -> None:
    async with pods(tmp_path) as of:
        await of.deploy()
        job_id = await of.submit(ITEMS, workers=2)
        await of.done(5)
        names = {pod["metadata"]["name"] for pod in await of.pods()}
        of.system.processes("services.scheduler")[0].kill()
        await until(lambda: len(of.system.done()) > 30)
        assert {pod["metadata"]["name"] for pod in await of.pods()} == names
        await check_end(of, job_id)


async def test_an_evicted_worker_is_replaced_and_blamed_for_nothing(tmp_path: Path) -> None:
    async with pods(tmp_path) as of:
        await of.deploy()
        job_id = await of.submit(ITEMS, workers=1)
        await of.done(5)
        of.cluster.kubelet.evict((await of.running())["metadata"]["name"])
        await check_end(of, job_id)


async def test_a_job_whose_specification_fits_no_config_map_is_described_all_the_same(tmp_path: Path) -> None:
    async with pods(tmp_path) as of:
        await of.deploy()
        config = {"large": "x" * 2_000_000}
        job_id = await of.submit(ITEMS[:5], workers=1, config=config)
        await check_end(of, job_id, ITEMS[:5])
        assert of.system.completions()[0]["spec"]["config"] == config


async def test_a_stopped_job_leaves_nothing(tmp_path: Path) -> None:
    async with pods(tmp_path) as of:
        await of.deploy()
        job_id = await of.submit([{"sleep": 60}] * 4, workers=2)
        await of.counts(job_id, ready=2)
        await asyncio.to_thread(of.system.client.stop_job, "hello", job_id)
        assert (await of.wait(job_id))["job_status"]["status"] == "stopped"
        await of.nothing_is_left()


async def test_a_job_that_asks_for_more_gpus_than_a_node_has_waits_and_says_so(tmp_path: Path) -> None:
    async with pods(tmp_path) as of:
        await of.deploy(container={"compute": {"gpu": 1}})
        job_id = await of.submit(ITEMS[:5], workers=1)
        await of.counts(job_id, pending=1)
        await of.cluster.kubelet.add_node(Node("gpu-1", {"nvidia.com/gpu": "1"}))
        await check_end(of, job_id, ITEMS[:5])


async def test_a_job_in_a_queue_waits_until_it_is_admitted(tmp_path: Path) -> None:
    async with pods(tmp_path, environ={"CORTEX_STARTUP_DEADLINE": "2"}) as of:
        await of.deploy()
        job_id = await of.submit(ITEMS[:5], workers=1, queue_name="team")
        while "reason" not in (job := await of.job(job_id)):  # said after three seconds, and the deadline is two
            await asyncio.sleep(0.1)
        assert job["queue_name"] == "team"
        assert job["reason"] == "no worker is ready: waits in the queue `team`"
        (found,), _ = await of.cluster.client.list(JOBS, of.namespace)
        await of.cluster.client.patch(JOBS, of.namespace, found["metadata"]["name"], {"spec": {"suspend": False}})
        await check_end(of, job_id, ITEMS[:5])


async def test_a_running_job_grows_and_shrinks(tmp_path: Path) -> None:
    async with pods(tmp_path) as of:
        await of.deploy()
        items = [{"n": number, "sleep": 0.2} for number in range(120)]
        job_id = await of.submit(items, workers=1)
        await of.counts(job_id, ready=1)
        await asyncio.to_thread(of.system.client.update_job, "hello", job_id, workers=3)
        await of.counts(job_id, ready=3)
        await asyncio.to_thread(of.system.client.update_job, "hello", job_id, workers=1)
        await until(lambda: len(of.system.done()) > 100)
        assert len(await of.pods()) == 1
        await check_end(of, job_id, items)
