"""BatchAPI and BatchJob resources, by real processes: kubectl, an API server, the controller, a scheduler."""

import asyncio
import base64
import json
import os
import random
import re
from contextlib import aclosing
from functools import partial
from pathlib import Path

import pytest

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1.resources_pb2 import Job
from services.common.kubernetes import BATCH_APIS, BATCH_JOBS, SECRETS, Followed, Object, follow
from services.controller.submission import job_request
from tests.cluster.kit import TestCluster
from tests.e2e.pages import steps, write_files
from tests.integration.controller_kit import (
    NAMESPACE,
    mirrored,
    needs_kubectl,
    ready,
    refused_as,
    scheduled,
    status,
    system,
)
from tests.integration.scheduler_kit import Kit

pytestmark = needs_kubectl

MANIFEST = """
apiVersion: batch.cortex.dev/v1alpha1
kind: BatchAPI
metadata:
  name: hello
spec:
  pod:
    max_concurrency: 2
    containers:
      - name: api
        image: none
        command: [serve]
        compute: {{cpu: 0.5}}
---
apiVersion: batch.cortex.dev/v1alpha1
kind: BatchJob
metadata:
  name: digits
spec:
  api_name: hello
  workers: 1
  config: {{model: small}}
  delimited_files:
    s3_paths: [{items}]
    batch_size: 1
"""


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.ndjson"
    path.write_text("1\n2\n3\n")
    return path


async def test_kubectl_deploys_an_api_submits_a_job_and_shows_how_it_goes(tmp_path: Path, items: Path) -> None:
    async with system(tmp_path) as (resources, kit):
        said = await resources.kubectl("apply", "-f", "-", text=MANIFEST.format(items=items.as_uri()))
        assert "batchapi.batch.cortex.dev/hello created" in said
        worker = await kit.worker()
        await worker.open()
        await resources.until(BATCH_JOBS, "digits", lambda job: status(job).get("status") == "running")
        await worker.work_off()
        await worker.answer_completion()
        await resources.kubectl("wait", "--for=condition=Complete", "batchjob/digits", "--timeout=20s")
        lines = (await resources.kubectl("get", "batchjobs")).splitlines()
        assert lines[0].split() == ["NAME", "API", "STATUS", "SUCCEEDED", "FAILED", "TOTAL", "WORKERS", "AGE"]
        assert lines[1].split()[:7] == ["digits", "hello", "succeeded", "3", "0", "3", "1"]
        lines = (await resources.kubectl("get", "bapi")).splitlines()
        assert lines[1].split()[:3] == ["hello", "True", "/hello"]
        job_id = status(await resources.until(BATCH_JOBS, "digits", bool))["job_id"]
        assert (await kit.job(job_id)).config_json == '{"model":"small"}'


async def test_a_job_may_come_before_its_api(tmp_path: Path, items: Path) -> None:
    async with system(tmp_path) as (resources, kit):
        await resources.apply_job("early", items)
        waiting = await resources.until(BATCH_JOBS, "early", refused_as)
        assert (refused_as(waiting), status(waiting)["status"]) == ("resources.api_not_deployed", "pending")
        await resources.apply_api()
        await kit.worker()
        accepted = await resources.until(BATCH_JOBS, "early", lambda job: "job_id" in status(job))
        assert refused_as(accepted) == ""


async def test_a_job_that_waits_costs_no_writes(tmp_path: Path, items: Path) -> None:
    async with system(tmp_path) as (resources, kit):
        told: list[list[str]] = []
        async with aclosing(follow(resources.cluster, BATCH_JOBS, resources.namespace)) as all_news:
            await anext(all_news)
            await resources.apply_job("early", items)
            async for news in all_news:
                assert not isinstance(news, Followed)
                told.append([name for name in ("reason", "submission", "job_id") if name in status(news.object)])
                if told[-1] == ["reason"]:
                    await resources.apply_api()
                    await kit.worker()
                if "job_id" in told[-1]:
                    break
        # made; its finalizer; what is being submitted; why it waits; the same again; the job
        tries = [["submission"], ["reason"], ["reason", "submission"]]
        assert told == [[], [], *tries, ["submission", "job_id"]]


async def test_a_webhook_is_signed_with_a_secret_that_is_meant_for_it(tmp_path: Path, items: Path) -> None:
    async with system(tmp_path) as (resources, kit):
        await resources.apply_api()
        webhook = {"url": "http://127.0.0.1:1/", "secret_key_ref": {"name": "notices", "key": "signing"}}
        await resources.apply_job("digits", items, webhook=webhook)
        waiting = await resources.until(BATCH_JOBS, "digits", refused_as)
        assert (refused_as(waiting), status(waiting)["status"]) == ("webhook.secret_not_found", "pending")
        metadata = {"name": "notices", "namespace": resources.namespace}
        data = {"signing": base64.b64encode(b"whsec_c2VjcmV0").decode()}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}
        await resources.cluster.create(SECRETS, resources.namespace, secret)
        await resources.until(BATCH_JOBS, "digits", lambda job: "type is Opaque" in status(job)["reason"])
        await resources.delete(SECRETS, "notices")
        await resources.cluster.create(SECRETS, resources.namespace, secret | {"type": "batch.cortex.dev/webhook"})
        accepted = await resources.until(BATCH_JOBS, "digits", lambda job: "job_id" in status(job))
        assert (await kit.job(status(accepted)["job_id"])).webhook.url == webhook["url"]


async def test_what_the_scheduler_refuses_is_told_with_its_kind_and_may_be_mended(tmp_path: Path, items: Path) -> None:
    async with system(tmp_path) as (resources, kit):
        await resources.apply_api()
        await resources.apply_job("digits", items, results={"s3_path": "nowhere"})
        refused = await resources.until(BATCH_JOBS, "digits", refused_as)
        assert (refused_as(refused), status(refused)["status"]) == ("aws.invalid_s3_path", "refused")
        assert "results.s3_path" in status(refused)["reason"]
        assert not await jobs_of(kit)
        await resources.apply_job("digits", items, results={})
        await resources.until(BATCH_JOBS, "digits", lambda job: "job_id" in status(job))
        (job,) = await jobs_of(kit)
        assert job.HasField("results")


async def test_an_api_with_a_mistake_says_so_and_leaves_the_version_in_force(tmp_path: Path) -> None:
    async with system(tmp_path) as (resources, _):
        await resources.apply_api()
        before = await resources.until(BATCH_APIS, "hello", lambda api: ready(api) == "True")
        container = {"name": "api", "image": "none", "command": ["serve"]}
        both = [{**container, "compute": {"gpu": 1}}, {**container, "name": "b", "compute": {"inf": 1}}]
        await resources.apply(BATCH_APIS, "hello", {"pod": {"containers": both}})
        wrong = await resources.until(BATCH_APIS, "hello", lambda api: ready(api) == "False")
        assert refused_as(wrong) == "spec.compute_resource_conflict"
        assert status(wrong)["api_id"] == status(before)["api_id"]
        await resources.apply_api(max_concurrency=3)
        after = await resources.until(BATCH_APIS, "hello", lambda api: ready(api) == "True")
        assert status(after)["api_id"] != status(before)["api_id"]


async def test_deleting_resources_stops_the_job_and_deletes_the_api(tmp_path: Path, items: Path) -> None:
    async with system(tmp_path) as (resources, kit):
        await resources.apply_api()
        await resources.apply_job("digits", items)
        job_id = status(await resources.until(BATCH_JOBS, "digits", lambda job: "job_id" in status(job)))["job_id"]
        await resources.delete(BATCH_JOBS, "digits")
        await resources.gone(BATCH_JOBS, "digits")
        assert (await kit.job(job_id)).status == Job.STATUS_STOPPED
        await resources.delete(BATCH_APIS, "hello")
        await resources.gone(BATCH_APIS, "hello")
        assert not (await kit.batch.ListApis(pb.ListApisRequest())).apis


async def test_deleting_an_api_that_was_never_deployed_leaves_the_one_of_its_name_alone(tmp_path: Path) -> None:
    async with system(tmp_path) as (resources, kit):
        await kit.deploy()
        container = {"name": "api", "image": "none", "command": ["serve"], "compute": {"mem": "1Mi"}}
        await resources.apply(BATCH_APIS, "hello", {"pod": {"containers": [container]}})
        await resources.until(BATCH_APIS, "hello", refused_as)
        await resources.delete(BATCH_APIS, "hello")
        await resources.gone(BATCH_APIS, "hello")
        assert [api.name for api in (await kit.batch.ListApis(pb.ListApisRequest())).apis] == ["hello"]


async def test_an_api_whose_deployment_got_no_answer_goes_with_its_resource(tmp_path: Path) -> None:
    async with TestCluster() as cluster, mirrored(tmp_path, cluster, f"unix:{tmp_path / 's'}") as resources:
        await resources.apply_api()
        await resources.until(BATCH_APIS, "hello", lambda api: ready(api) == "Unknown")
        await resources.controller.kill()
        await resources.delete(BATCH_APIS, "hello")
        async with scheduled(tmp_path) as kit:
            await kit.deploy()  # as the call did whose answer was lost
            await resources.controller.start()
            await resources.gone(BATCH_APIS, "hello")
            assert not (await kit.batch.ListApis(pb.ListApisRequest())).apis


async def test_a_job_whose_submission_got_no_answer_is_found_also_when_its_config_changed(
    tmp_path: Path, items: Path
) -> None:
    async with system(tmp_path) as (resources, kit):
        await resources.apply_job("digits", items, config={"model": "small"})
        waits = await resources.until(BATCH_JOBS, "digits", has_submission)
        await resources.controller.kill()
        await kit.deploy()
        request = job_request(waits, status(waits)["submission"], "")
        job_id = (await kit.batch.SubmitJob(request)).job.job_id  # its answer is lost
        await resources.apply_job("digits", items, config={"model": "large"})
        await resources.controller.start()
        found = await resources.until(BATCH_JOBS, "digits", lambda job: "job_id" in status(job))
        assert (status(found)["job_id"], refused_as(found)) == (job_id, "job.spec_is_immutable")
        await resources.delete(BATCH_JOBS, "digits")
        await resources.gone(BATCH_JOBS, "digits")
        assert (await kit.job(job_id)).status == Job.STATUS_STOPPED


async def test_workers_and_pauses_follow_the_spec(tmp_path: Path, items: Path) -> None:
    async with system(tmp_path) as (resources, kit):
        await resources.apply_api()
        await resources.apply_job("digits", items, paused=True)
        await resources.until(BATCH_JOBS, "digits", lambda job: status(job).get("paused"))
        await resources.kubectl("scale", "batchjob/digits", "--replicas=3")
        job = await resources.until(BATCH_JOBS, "digits", lambda job: status(job).get("workers") == 3)
        assert status(job)["paused"]
        await resources.cluster.patch(BATCH_JOBS, resources.namespace, "digits", {"spec": {"paused": False}})
        job = await resources.until(BATCH_JOBS, "digits", lambda job: not status(job).get("paused"))
        told = await kit.job(status(job)["job_id"])
        assert (told.workers, told.paused) == (3, False)
        await resources.cluster.patch(BATCH_JOBS, resources.namespace, "digits", {"spec": {"config": {"new": 1}}})
        assert refused_as(await resources.until(BATCH_JOBS, "digits", refused_as)) == "job.spec_is_immutable"


async def test_a_name_is_the_oldests_until_it_goes(tmp_path: Path) -> None:
    async with system(tmp_path, CORTEX_ALL_NAMESPACES="true") as (resources, kit):
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}
        await resources.cluster.create(NAMESPACE, None, body)
        await resources.apply_api()
        await resources.until(BATCH_APIS, "hello", lambda api: ready(api) == "True")
        await resources.apply_api(namespace="other", max_concurrency=7)
        second = await resources.until(BATCH_APIS, "hello", refused_as, "other")
        assert refused_as(second) == "resources.name_taken"
        assert f"{resources.namespace}/hello" in status(second)["conditions"][0]["message"]
        await resources.delete(BATCH_APIS, "hello")
        await resources.until(BATCH_APIS, "hello", lambda api: ready(api) == "True", "other")
        (api,) = (await kit.batch.ListApis(pb.ListApisRequest())).apis
        assert json.loads(api.spec_json)["pod"]["max_concurrency"] == 7


async def test_a_finished_job_is_deleted_after_its_time_and_stays_in_the_ledger(tmp_path: Path, items: Path) -> None:
    async with system(tmp_path) as (resources, kit):
        await resources.apply_api()
        await resources.apply_job("digits", items, ttlSecondsAfterFinished=1)
        job_id = status(await resources.until(BATCH_JOBS, "digits", lambda job: "job_id" in status(job)))["job_id"]
        await kit.batch.StopJob(pb.StopJobRequest(api_name="hello", job_id=job_id))
        await resources.gone(BATCH_JOBS, "digits")
        assert (await kit.job(job_id)).status == Job.STATUS_STOPPED


async def test_a_controller_that_is_killed_submits_no_job_twice_and_forgets_none(tmp_path: Path, items: Path) -> None:
    async with system(tmp_path) as (resources, kit):
        await resources.apply_api()
        chance = random.Random(7)
        for number in range(12):
            await resources.apply_job(f"job-{number}", items, workers=number + 1)
            if number % 3 == 0:
                await resources.until(BATCH_JOBS, f"job-{number}", has_submission)  # in the middle of it
            await asyncio.sleep(chance.random() * 0.05)  # any moment will do
            await resources.controller.kill()
            await resources.cluster.patch(
                BATCH_JOBS, resources.namespace, f"job-{number}", {"spec": {"workers": number + 20}}
            )
            await resources.controller.start()
        ids = set()
        for number in range(12):
            job = await resources.until(BATCH_JOBS, f"job-{number}", partial(has_workers, number + 20))
            ids.add(status(job)["job_id"])
        assert {job.job_id for job in await jobs_of(kit)} == ids
        assert len(ids) == 12


async def test_what_happened_while_the_controller_was_away_is_made_up_for(tmp_path: Path, items: Path) -> None:
    async with system(tmp_path) as (resources, kit):
        await resources.apply_api()
        for name in ("ended", "deleted"):
            await resources.apply_job(name, items)
        ids = {
            name: status(await resources.until(BATCH_JOBS, name, lambda job: "job_id" in status(job)))["job_id"]
            for name in ("ended", "deleted")
        }
        await resources.controller.kill()
        await kit.batch.StopJob(pb.StopJobRequest(api_name="hello", job_id=ids["ended"]))
        await resources.delete(BATCH_JOBS, "deleted")
        await resources.apply_job("new", items)
        await resources.controller.start()
        await resources.gone(BATCH_JOBS, "deleted")
        await resources.until(BATCH_JOBS, "ended", lambda job: status(job).get("status") == "stopped")
        await resources.until(BATCH_JOBS, "new", lambda job: "job_id" in status(job))
        assert (await kit.job(ids["deleted"])).status == Job.STATUS_STOPPED
        assert len(await jobs_of(kit)) == 3


async def test_a_history_that_is_forgotten_and_a_server_that_is_away_cost_nothing(tmp_path: Path, items: Path) -> None:
    async with (
        TestCluster() as cluster,
        scheduled(tmp_path) as kit,
        mirrored(tmp_path, cluster, kit.address) as resources,
    ):
        await resources.apply_api()
        await resources.apply_job("before", items)
        await resources.until(BATCH_JOBS, "before", lambda job: "job_id" in status(job))
        await cluster.server.stop()
        await cluster.server.start()
        await resources.delete(BATCH_JOBS, "before")
        await resources.apply_job("after", items)
        cluster.api.store.compact()
        cluster.server.cut_connections()
        await resources.until(BATCH_JOBS, "after", lambda job: "job_id" in status(job))
        await resources.gone(BATCH_JOBS, "before")
        (running,) = [job for job in await jobs_of(kit) if job.status != Job.STATUS_STOPPED]
        assert running.job_id == status(await resources.until(BATCH_JOBS, "after", bool))["job_id"]


async def test_a_scheduler_that_is_away_is_waited_for(tmp_path: Path, items: Path) -> None:
    async with TestCluster() as cluster:
        async with mirrored(tmp_path, cluster, f"unix:{tmp_path / 's'}") as resources:
            await resources.apply_api()
            await resources.apply_job("digits", items)
            away = await resources.until(BATCH_JOBS, "digits", refused_as)
            assert (refused_as(away), has_submission(away)) == ("system.unavailable", True)
            async with scheduled(tmp_path) as kit:
                await resources.until(BATCH_JOBS, "digits", lambda job: status(job).get("status") == "running")
                worker = await kit.worker()
                assert len(await jobs_of(kit)) == 1
            kit.driver.die(worker.id)
            async with scheduled(tmp_path) as kit:
                worker = await kit.worker()
                await worker.open()
                await worker.work_off()
                await worker.answer_completion()
                done = await resources.until(BATCH_JOBS, "digits", lambda job: status(job).get("end_time"))
        assert (status(done)["status"], status(done)["batch_counts"]["succeeded"]) == ("succeeded", 3)
        assert [each["type"] for each in status(done)["conditions"]] == ["Accepted", "Complete"]


async def test_the_page_about_custom_resources(tmp_path: Path, items: Path) -> None:
    page = Path(__file__).parents[2] / "docs/custom-resources.md"
    write_files(page, tmp_path)
    manifest = tmp_path / "greetings.yaml"
    manifest.write_text(manifest.read_text().replace("s3://my-bucket/people", items.as_uri()))
    async with system(tmp_path) as (resources, kit):
        worker = asyncio.create_task(one_worker(kit))
        (step,) = steps(page)
        environ = {**os.environ, "KUBECONFIG": str(resources.kubeconfig), "HOME": str(tmp_path)}
        command = ["bash", "-euc", step.commands]
        shell = await asyncio.create_subprocess_exec(
            *command, cwd=tmp_path, env=environ, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await shell.communicate()
        await worker
        expected = ".*".join(map(re.escape, step.answer.split("...")))
        assert re.fullmatch(expected, said.decode()), said.decode()


async def one_worker(kit: Kit) -> None:
    worker = await kit.worker()
    await worker.open()
    await worker.work_off()
    await worker.answer_completion()


def has_workers(number: int, job: Object) -> bool:
    return bool(status(job).get("workers") == number)


def has_submission(job: Object) -> bool:
    return "submission" in status(job)


async def jobs_of(kit: Kit) -> list[Job]:
    return list((await kit.batch.ListJobs(pb.ListJobsRequest())).jobs)
