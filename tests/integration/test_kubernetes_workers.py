"""The driver for Kubernetes, against an API server and a Job controller; the tests speak for the kubelet."""

import asyncio
import base64
import json
from dataclasses import replace
from functools import partial

import pytest

from services.common.errors import Category, CortexError
from services.common.kubernetes import CONFIG_MAPS, JOBS, PODS, SECRETS
from services.scheduler.adapters.kubernetes_workers import caretaker
from services.scheduler.adapters.kubernetes_workers import driver as driver_module
from services.scheduler.domain.model.worker import End, Phase
from tests.integration.kubernetes_kit import Pods, until
from tests.unit import kubernetes_work
from tests.unit.kubernetes_work import JOB_ID

NAME = f"hello-{JOB_ID}"


async def test_a_worker_is_a_pod_of_its_slot_known_by_its_uid() -> None:
    async with Pods() as pods:
        driver = await pods.driver()
        first, second = await asyncio.gather(driver.have(0), driver.have(1))
        found = await pods.pods()
        assert [first.worker_id, second.worker_id] == [pod["metadata"]["uid"] for pod in found]
        assert first.found
        job = await pods.job()
        assert (job["metadata"]["name"], job["spec"]["completions"], job["spec"]["parallelism"]) == (NAME, 2, 2)
        assert json.loads(await pods.file(f"{NAME}-spec", "job.json"))["job_id"] == JOB_ID
        assert json.loads(await pods.file(f"{NAME}-worker", "worker.json"))["jobId"] == JOB_ID
        secret = await pods.cluster.get(SECRETS, pods.namespace, f"{NAME}-token")
        assert secret is not None
        assert base64.b64decode(secret["data"]["token"]).decode() == f"token 1 of {JOB_ID} by 1"


async def test_a_pod_is_handed_out_once_and_a_lost_ones_successor_by_the_next_start() -> None:
    async with Pods() as pods:
        driver = await pods.driver()
        first = await driver.have(0)
        waiting = asyncio.create_task(driver.have(0))
        await driver.told(lambda: "wanted0" in driver.healths)
        assert driver.healths["wanted0"].phase is Phase.PENDING
        await pods.end(first, 1, message="error: it broke")
        second = await waiting
        assert second.worker_id != first.worker_id
        told = driver.exits[first.worker_id]
        assert (told.end, told.blameless, told.reason) == (
            End.FAILED,
            False,
            "its dequeuer exited with code 1: error: it broke",
        )


async def test_a_pod_that_is_deleted_is_replaced_and_not_to_blame() -> None:
    async with Pods() as pods:
        driver = await pods.driver()
        worker = await driver.have(0)
        await pods.cluster.delete(PODS, pods.namespace, (await pods.pods())[0]["metadata"]["name"], grace_seconds=1)
        told = await driver.told(lambda: driver.exits.get(worker.worker_id))
        assert (told.end, told.blameless) == (End.KILLED, True)
        assert (await driver.have(0)).worker_id != worker.worker_id


async def test_health_and_containers_are_told_when_they_change_and_right_after_the_start() -> None:
    async with Pods() as pods:
        driver = await pods.driver()
        worker = await driver.have(0)
        await driver.told(lambda: worker.worker_id in driver.healths)
        assert driver.healths[worker.worker_id].phase is Phase.PENDING
        await pods.bind(worker)
        base = {"name": "api", "image": "hello:1", "imageID": "", "ready": False, "restartCount": 0}
        waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
        await pods.say(worker, {"initContainerStatuses": [base | {"state": waiting}]})
        await driver.told(lambda: driver.healths[worker.worker_id].phase is Phase.ERR_IMAGE_PULL)
        oom = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
        await pods.say(worker, {"initContainerStatuses": [base | {"state": oom}]})
        await driver.told(lambda: driver.healths[worker.worker_id].out_of_memory)
        (state,) = driver.containers[worker.worker_id]
        assert (state.name, state.running, state.ends, state.out_of_memory) == ("api", False, 1, True)


async def test_a_job_grows_and_shrinks_with_both_numbers_together() -> None:
    async with Pods() as pods:
        driver = await pods.driver()
        await driver.resize(kubernetes_work.job(), 1)
        worker = await driver.have(0)
        assert (await pods.job())["spec"]["completions"] == 1
        await driver.resize(kubernetes_work.job(), 3)
        last = await driver.have(2)
        assert (await pods.job())["spec"]["parallelism"] == 3
        await driver.resize(kubernetes_work.job(), 1)
        assert (await driver.told(lambda: driver.exits.get(last.worker_id))).blameless
        assert worker.worker_id not in driver.exits


async def test_a_job_that_somebody_else_resizes_gets_its_size_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caretaker, "ROUND_SECONDS", 0.05)
    async with Pods() as pods:
        await (await pods.driver()).have(0)
        sizes = {"parallelism": 7, "completions": 7}
        resized = await pods.cluster.patch(JOBS, pods.namespace, NAME, {"spec": sizes})
        assert resized["spec"]["completions"] == 7

        async def restored() -> bool:
            return {name: (await pods.job())["spec"][name] for name in sizes} == dict.fromkeys(sizes, 2)

        await until(restored)


@pytest.mark.parametrize("label", ["cortex.dev/batch", "jobID"])
async def test_a_job_that_lost_a_label_by_which_it_is_found_gets_it_back(
    monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    monkeypatch.setattr(caretaker, "ROUND_SECONDS", 0.05)
    async with Pods() as pods:
        driver = await pods.driver()
        await driver.have(0)
        before = await pods.job()
        await pods.cluster.patch(JOBS, pods.namespace, NAME, {"metadata": {"labels": {label: None, "theirs": "x"}}})

        async def restored() -> bool:
            labels: dict[str, str] = (await pods.job())["metadata"]["labels"]
            return labels == {**before["metadata"]["labels"], "theirs": "x"}

        await until(restored)
        assert (await driver.have(1)).found
        assert (await pods.job())["metadata"]["uid"] == before["metadata"]["uid"]


@pytest.mark.parametrize("label", ["cortex.dev/batch", "jobID"])
async def test_a_job_without_its_labels_is_found_by_its_name_and_goes_with_all_it_has(label: str) -> None:
    async with Pods() as pods:
        driver = await pods.driver()
        await driver.have(0)
        await pods.cluster.patch(JOBS, pods.namespace, NAME, {"metadata": {"labels": {label: None}}})

        async def unknown() -> bool:
            return driver._observed.job(JOB_ID) is None

        await until(unknown)
        await driver.clean_up(JOB_ID)

        async def gone() -> bool:
            job = await pods.cluster.get(JOBS, pods.namespace, NAME)
            return job is None or "deletionTimestamp" in job["metadata"]

        await until(gone)


async def test_what_pods_mount_is_written_again_where_they_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Pods() as pods:
        driver = await pods.driver()
        worker = await driver.have(0)
        await driver.write_job_spec(kubernetes_work.job(workers=9), "")
        files = ((SECRETS, f"{NAME}-token"), (CONFIG_MAPS, f"{NAME}-spec"), (CONFIG_MAPS, f"{NAME}-worker"))
        for resource, name in files:
            await pods.cluster.delete(resource, pods.namespace, name)
        monkeypatch.setattr(caretaker, "MOUNT_SECONDS", 0.0)
        monkeypatch.setattr(caretaker, "ROUND_SECONDS", 0.05)
        await pods.bind(worker)

        async def there() -> bool:
            return all([await pods.cluster.get(resource, pods.namespace, name) for resource, name in files])

        await until(there)
        assert json.loads(await pods.file(f"{NAME}-spec", "job.json"))["workers"] == 9, "as it was last"


async def test_a_worker_that_is_not_made_says_where_it_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "LOOK_AGAIN_SECONDS", 0.01)
    async with Pods() as pods:
        driver = await pods.driver()
        starting = asyncio.create_task(driver.have(7))  # the Job has two
        assert await driver.told(lambda: any(NAME in each.reason for each in driver.healths.values()))
        starting.cancel()


async def test_a_worker_that_can_never_work_ends_its_slot_with_its_reason() -> None:
    async with Pods() as pods:
        driver = await pods.driver()
        worker = await driver.have(0)
        other = await driver.have(1)
        await pods.end(worker, 64, message="error: the token is not ours")
        await driver.told(lambda: worker.worker_id in driver.exits)
        with pytest.raises(CortexError) as error:
            await driver.have(0)
        assert error.value.category is Category.INVALID
        assert other.worker_id not in driver.exits


async def test_a_job_that_kubernetes_gave_up_is_made_anew_while_ours_goes_on() -> None:
    async with Pods() as pods:
        driver = await pods.driver()
        worker = await driver.have(0)
        before = (await pods.job())["metadata"]["uid"]
        await pods.end(worker, 65)

        async def given_up() -> bool:
            return bool((await pods.job())["status"].get("conditions"))

        await until(given_up)
        other = await driver.have(1)
        assert (await pods.job())["metadata"]["uid"] != before
        assert other.worker_id != worker.worker_id


async def test_a_job_in_a_queue_waits_suspended_and_says_so() -> None:
    async with Pods() as pods:
        driver = await pods.driver()
        job = kubernetes_work.job(queue_name="team")
        starting = asyncio.create_task(driver.have(0, job))
        health = await driver.told(lambda: driver.healths.get("wanted0"))
        assert (health.phase, health.queued, health.reason) == (Phase.PENDING, True, "waits in the queue `team`")
        await pods.cluster.patch(JOBS, pods.namespace, NAME, {"spec": {"suspend": False}})
        assert (await starting).found


async def test_kill_ends_the_pod_and_its_exit_is_told() -> None:
    async with Pods() as pods:
        driver = await pods.driver()
        worker = await driver.have(0)
        await driver.kill(worker)
        await driver.told(lambda: worker.worker_id in driver.exits)
        await driver.kill(worker)  # again changes nothing
        await driver.kill(replace(worker, worker_id="x", detail=""))  # nothing is known of it


async def test_a_later_leader_adopts_the_pods_and_the_former_one_can_change_nothing_any_more() -> None:
    async with Pods() as pods:
        former = await pods.driver(epoch=1)
        worker = await former.have(0)
        later = await pods.driver(epoch=2)
        assert await later.adopt(worker)
        await later.resize(kubernetes_work.job(), 3)
        assert (await pods.job())["metadata"]["annotations"]["batch.cortex.dev/epoch"] == "2"
        with pytest.raises(CortexError, match="follows another scheduler") as error:
            await former.resize(kubernetes_work.job(), 7)
        assert error.value.kind == "kubernetes.deposed"
        await former.kill(worker)
        await former.clean_up(JOB_ID)
        job = await pods.job()
        assert (job["spec"]["completions"], "deletionTimestamp" in job["metadata"]) == (3, False)
        assert not any("deletionTimestamp" in pod["metadata"] for pod in await pods.pods())
        await pods.end(worker, 1)
        await later.told(lambda: worker.worker_id in later.exits)
        assert not await later.adopt(worker)


async def test_a_worker_that_went_while_nobody_looked_is_not_adopted() -> None:
    async with Pods() as pods:
        worker = await (await pods.driver()).have(0)
        later = await pods.driver(epoch=2)
        assert not await later.adopt(replace(worker, worker_id="0-0-0"))


async def test_a_worker_that_is_adopted_again_is_told_of_again() -> None:
    """A scheduler adopts first what its machine has, then each job its workers: only then somebody listens."""
    async with Pods() as pods:
        worker = await (await pods.driver()).have(0)
        crashed = {"terminated": {"exitCode": 3, "reason": "Error"}}
        base = {"name": "api", "image": "hello:1", "imageID": "", "ready": False, "restartCount": 1}
        await pods.bind(worker)
        await pods.say(worker, {"initContainerStatuses": [base | {"state": crashed}]})
        later = await pods.driver(epoch=2)
        assert await later.adopt(worker)
        await later.told(lambda: worker.worker_id in later.healths)
        told, containers = later.healths.copy(), later.containers.copy()
        later.healths.clear()
        later.containers.clear()
        assert await later.adopt(worker)
        await later.told(lambda: worker.worker_id in later.healths)
        assert (later.healths, later.containers) == (told, containers)
        assert containers[worker.worker_id][0].ends == 2


async def test_what_failed_under_an_earlier_leader_is_not_counted_again() -> None:
    async with Pods() as pods:
        former = await pods.driver()
        failed = await former.have(0)
        await pods.end(failed, 1)
        worker = await former.have(0)
        later = await pods.driver(epoch=2)
        assert await later.adopt(worker)
        waiting = asyncio.create_task(later.have(0))
        await later.told(lambda: waiting.done() or "wanted0" in later.healths)
        assert not waiting.done()
        await pods.end(worker, 1)
        assert (await waiting).worker_id not in (failed.worker_id, worker.worker_id)


async def test_a_new_leader_renews_the_token_of_a_job_whose_workers_it_only_adopts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Pods() as pods:
        worker = await (await pods.driver()).have(0)
        monkeypatch.setattr(caretaker, "ROUND_SECONDS", 0.05)
        later = await pods.driver(epoch=2)
        assert await later.adopt(worker)
        await later.resize(kubernetes_work.job(), 2)

        async def renewed() -> bool:
            secret = await pods.cluster.get(SECRETS, pods.namespace, f"{NAME}-token")
            return secret is not None and base64.b64decode(secret["data"]["token"]).decode().endswith("by 2")

        await until(renewed)


async def test_a_job_that_a_new_leader_cannot_see_yet_has_the_size_that_it_is_to_have() -> None:
    async with Pods() as pods:
        await (await pods.driver()).have(0)
        later = await pods.driver(epoch=2)
        later._observed._jobs.clear()  # as long as the first list takes
        await later.resize(kubernetes_work.job(), 3)
        assert (await later.have(2)).found
        assert (await pods.job())["spec"]["completions"] == 3


async def test_a_job_that_was_deleted_while_it_was_being_made_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Pods() as pods:
        driver = await pods.driver()
        equip = driver._objects.equip

        async def deleted_meanwhile(*arguments: object) -> None:
            monkeypatch.undo()
            await pods.cluster.delete(JOBS, pods.namespace, NAME)
            await until(unknown)
            await equip(*arguments)  # type: ignore[arg-type]  # its own

        async def unknown() -> bool:
            return not await pods.left() and not driver._observed.jobs()

        monkeypatch.setattr(driver._objects, "equip", deleted_meanwhile)
        assert (await driver.have(0)).found


async def test_the_document_is_written_again_when_the_job_has_grown() -> None:
    async with Pods() as pods:
        driver = await pods.driver()
        await driver.have(0)
        await driver.write_job_spec(kubernetes_work.job(), '{"total_batch_count": 7}')
        assert await pods.file(f"{NAME}-spec", "job.json") == '{"total_batch_count": 7}'


async def test_a_large_document_is_kept_in_parts_also_when_it_is_written_again() -> None:
    async with Pods() as pods:
        driver = await pods.driver()
        job = kubernetes_work.job()
        job = replace(job, spec=replace(job.spec, config_json=json.dumps("a" * 2_000_000)))
        await driver.have(0, job)
        parts = int((await pods.job())["metadata"]["annotations"]["batch.cortex.dev/spec-parts"])
        assert parts == 3
        await driver.write_job_spec(job, "b" * 2_000_100)
        texts = [await pods.file(f"{NAME}-spec-{part}", f"{part:03d}.part") for part in range(parts)]
        assert "".join(texts) == "b" * 2_000_100


async def test_everything_goes_with_its_job() -> None:
    async with Pods() as pods:
        driver = await pods.driver()
        worker = await driver.have(0)
        await driver.clean_up(JOB_ID)
        await until(partial(pods.is_leaving, worker))
        for pod in await pods.pods():
            await pods.cluster.delete(PODS, pods.namespace, pod["metadata"]["name"], grace_seconds=0)

        async def nothing_is_left() -> bool:
            return await pods.left() == []

        await until(nothing_is_left)
        await driver.clean_up(JOB_ID)  # again changes nothing


async def test_what_a_crash_left_of_a_job_that_is_over_is_removed() -> None:
    async with Pods() as pods:
        await (await pods.driver()).have(0)
        pods.over.add(JOB_ID)
        await pods.driver(epoch=2)

        async def leaving() -> bool:
            found, _ = await pods.cluster.list(JOBS, pods.namespace)
            return not found

        await until(leaving)


async def test_jobs_of_another_deployment_are_left_alone() -> None:
    async with Pods() as pods, Pods(deployment="other") as others:
        await (await pods.driver()).have(0)
        others.over.add(JOB_ID)
        others.test_cluster = pods.test_cluster
        driver = await others.driver(epoch=2)
        assert not driver._observed.jobs()


async def test_while_the_api_server_is_away_nobody_is_gone_and_what_was_asked_is_done_when_it_is_back() -> None:
    async with Pods() as pods:
        driver = await pods.driver()
        worker, other = await driver.have(0), await driver.have(1)
        away = asyncio.create_task(pods.own_cluster.away(2))
        await asyncio.sleep(0)
        await driver.kill(worker)
        with pytest.raises(CortexError) as error:
            await driver.resize(kubernetes_work.job(), 5)
        assert error.value.category is Category.UNAVAILABLE
        await away
        assert driver.exits == {}
        await until(partial(pods.is_leaving, worker))
        assert await driver.adopt(other)


async def test_a_watch_that_is_too_old_begins_again_and_misses_no_end() -> None:
    async with Pods() as pods:
        driver = await pods.driver()
        worker = await driver.have(0)
        pods.own_cluster.compact()
        await pods.end(worker, 1)
        await driver.told(lambda: worker.worker_id in driver.exits)


async def test_the_token_of_a_job_at_work_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caretaker, "TOKEN_SECONDS", 0.0)
    monkeypatch.setattr(caretaker, "ROUND_SECONDS", 0.05)
    async with Pods() as pods:
        await (await pods.driver()).have(0)

        async def version() -> str:
            secret = await pods.cluster.get(SECRETS, pods.namespace, f"{NAME}-token")
            assert secret is not None
            return base64.b64decode(secret["data"]["token"]).decode()

        first = await version()

        async def renewed() -> bool:
            return await version() != first

        await until(renewed)


async def test_a_start_that_is_cancelled_in_the_moment_of_news_ends_and_hands_nothing_out() -> None:
    async with Pods() as pods:
        driver = await pods.driver()
        await driver.have(0)
        waiting = asyncio.create_task(driver.have(0))
        await driver.told(lambda: "wanted0" in driver.healths)
        await asyncio.sleep(0)  # now it waits for news
        driver._observed._pod_changed(driver._observed.pods()[0], False)
        waiting.cancel()
        ended, _ = await asyncio.wait([waiting], timeout=10)
        assert ended
        assert waiting.cancelled()
