"""What a pod's status says of a worker."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.scheduler.adapters.kubernetes_workers import job_status, pod_status
from services.scheduler.domain.model.worker import ContainerState, End, Health, Phase

Json = dict[str, Any]
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "preempted"}


def pod(status: Json, **more: Any) -> Json:
    """A pod of two containers, on a node."""
    sidecars = [{"name": name, "restartPolicy": "Always"} for name in ("api", "model")]
    spec = {"nodeName": "n1", "initContainers": sidecars, "containers": [{"name": "dequeuer"}], **more.pop("spec", {})}
    created = (NOW - timedelta(seconds=more.pop("age", 5))).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"metadata": {"uid": "u", "name": "p", "creationTimestamp": created, **more}, "spec": spec, "status": status}


def dequeuer(**state: Any) -> Json:
    return {"containerStatuses": [{"name": "dequeuer", "state": state}]}


def ended(code: int, reason: str = "Error", message: str = "") -> Json:
    return {"phase": "Failed", **dequeuer(terminated={"exitCode": code, "reason": reason, "message": message})}


def sidecar(name: str = "api", **status: Any) -> Json:
    return {"phase": "Pending", "initContainerStatuses": [{"name": name, **status}]}


def health(found: Json) -> Health:
    return pod_status.health(found, NOW, 600)


@pytest.mark.parametrize(("age", "phase"), [(599, Phase.PENDING), (600, Phase.STALLED)])
def test_a_pod_without_a_node_is_pending_and_after_ten_minutes_stalled(age: float, phase: Phase) -> None:
    why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no GPU"}
    found = pod({"phase": "Pending", "conditions": [why]}, spec={"nodeName": None}, age=age)
    assert health(found) == Health(phase, "no node for its pod: 0/3 nodes: no GPU")


def test_a_pod_that_kueue_holds_back_is_queued() -> None:
    found = pod({"phase": "Pending"}, spec={"nodeName": None, "schedulingGates": [{"name": "kueue"}]}, age=9999)
    assert health(found).queued


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"])
def test_an_image_that_is_not_there_is_told_with_its_container(reason: str) -> None:
    found = health(pod(sidecar(state={"waiting": {"reason": reason, "message": "hello:1 not found"}})))
    assert found == Health(Phase.ERR_IMAGE_PULL, f"container `api`: {reason}: hello:1 not found")


def test_a_container_that_is_being_made_is_creating() -> None:
    assert health(pod(sidecar(state={"waiting": {"reason": "PodInitializing"}}))).phase is Phase.CREATING
    told = health(pod(sidecar(state={"waiting": {"reason": "CreateContainerConfigError", "message": "no key"}})))
    assert told.reason == "container `api`: CreateContainerConfigError: no key"


def test_crashes_before_the_dequeuer_began_are_counted_with_their_evidence() -> None:
    oom = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    found = health(pod(sidecar(state=waiting, lastState=oom, restartCount=2)))
    assert (found.phase, found.failed_starts, found.out_of_memory) == (Phase.CREATING, 3, True)
    assert found.reason == "container `api` ran out of memory"


def test_a_program_that_is_not_there_cannot_be_started() -> None:
    message = 'exec: "serve": executable file not found in $PATH'
    state = {"terminated": {"exitCode": 128, "reason": "StartError", "message": message}}
    found = health(pod(sidecar(state=state)))
    assert found.cannot_start
    assert message in found.reason


def test_a_pod_whose_dequeuer_runs_is_not_ready_until_that_says_so() -> None:
    assert health(pod({"phase": "Running", **dequeuer(running={})})).phase is Phase.NOT_READY


@pytest.mark.parametrize("more", [{"deletionTimestamp": "2026-01-01T12:00:00Z"}, {}])
def test_a_pod_that_must_go_is_terminating(more: Json) -> None:
    assert (
        health(pod({"phase": "Running", "conditions": [] if more else [DISRUPTED]}, **more)).phase is Phase.TERMINATING
    )


def test_a_pod_that_the_control_plane_calls_not_ready_is_on_a_node_that_does_not_answer() -> None:
    conditions = [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]
    assert health(pod({"phase": "Running", "conditions": conditions})).phase is Phase.UNKNOWN


def test_a_node_that_does_not_answer_is_unknown() -> None:
    assert health(pod({"phase": "Unknown"})) == Health(Phase.UNKNOWN, "its node n1 does not answer")


def test_containers_are_told_in_the_configurations_order() -> None:
    running = {"running": {"startedAt": "x"}}
    died = {"terminated": {"exitCode": 3, "message": "Traceback\n  ValueError: no model"}}
    status = {
        "initContainerStatuses": [
            {"name": "model", "state": running, "restartCount": 4, "lastState": died},
            {"name": "api", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": died, "restartCount": 1},
        ]
    }
    api, model = pod_status.container_states(pod(status))
    assert api == ContainerState(
        "api", False, 2, exit_code=3, backing_off=True, reason="exited with code 3: Traceback ValueError: no model"
    )
    assert (model.name, model.running, model.ends) == ("model", True, 4)


@pytest.mark.parametrize(
    ("terminated", "code", "signal", "oom", "reason"),
    [
        ({"exitCode": 0}, 0, None, False, "exited with code 0"),
        ({"exitCode": 137, "reason": "Error"}, None, 9, False, "was ended by signal 9 (SIGKILL)"),
        ({"exitCode": 137, "reason": "OOMKilled"}, None, 9, True, "ran out of memory"),
        ({"exitCode": 143}, None, 15, False, "was ended by signal 15 (SIGTERM)"),
        ({"exitCode": 255}, 255, None, False, "exited with code 255"),
        ({"exitCode": 1, "signal": 11}, None, 11, False, "was ended by signal 11 (SIGSEGV)"),
    ],
)
def test_an_end_is_a_code_or_a_signal_and_out_of_memory_only_by_evidence(
    terminated: Json, code: int | None, signal: int | None, oom: bool, reason: str
) -> None:
    state, _ = pod_status.container_states(pod(sidecar(state={"terminated": terminated})))
    assert (state.exit_code, state.signal, state.out_of_memory, state.reason) == (code, signal, oom, reason)
    assert (state.running, state.ends) == (False, 1)


def test_a_container_that_never_ran_has_not_ended() -> None:
    state, other = pod_status.container_states(
        pod(sidecar(state={"waiting": {"reason": "ErrImagePull", "message": "x"}}))
    )
    assert state == ContainerState("api", False, 0, reason="is not there yet (ErrImagePull: x)")
    assert other.ends == 0


@pytest.mark.parametrize(
    ("status", "more", "end", "blameless", "reason"),
    [
        ({"phase": "Succeeded", **dequeuer(terminated={"exitCode": 0})}, {}, End.SUCCEEDED, False, "was done"),
        (ended(1, message="error: no spec"), {}, End.FAILED, False, "exited with code 1: error: no spec"),
        (ended(3), {}, End.KILLED, True, "found no scheduler for too long"),
        (ended(64), {}, End.FAILED, False, "can never work"),
        (ended(66), {}, End.KILLED, True, "told to go"),
        (ended(137), {}, End.KILLED, False, "SIGKILL"),
        (ended(137, "OOMKilled"), {}, End.KILLED_OOM, False, "ran out of memory"),
        ({**ended(143), "conditions": [DISRUPTED]}, {}, End.KILLED, True, "PreemptionByScheduler: preempted"),
        (ended(143), {"deletionTimestamp": "x"}, End.KILLED, True, "was deleted"),
        ({"phase": "Failed", "reason": "UnexpectedAdmissionError"}, {}, End.FAILED, True, "UnexpectedAdmissionError"),
    ],
)
def test_an_end_is_told_by_what_kubernetes_says(
    status: Json, more: Json, end: End, blameless: bool, reason: str
) -> None:
    found = pod_status.exit_of(pod(status, **more), gone=False)
    assert found is not None
    assert (found.worker_id, found.end, found.blameless) == ("u", end, blameless)
    assert reason in found.reason


def test_a_running_pod_has_not_ended_unless_it_is_gone() -> None:
    found = pod({"phase": "Running", **dequeuer(running={})})
    assert pod_status.exit_of(found, gone=False) is None
    told = pod_status.exit_of(found, gone=True)
    assert told is not None
    assert (told.end, told.blameless) == (End.KILLED, True)


@pytest.mark.parametrize(("text", "failed"), [("", []), ("0", [0]), ("1,3-5", [1, 3, 4, 5])])
def test_failed_indexes_are_read_as_ranges(text: str, failed: list[int]) -> None:
    job = {"spec": {}, "status": {"failedIndexes": text}}
    assert [index for index in range(8) if job_status.has_failed(job, index)] == failed


def test_a_suspended_job_says_in_which_queue_it_waits() -> None:
    job = {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "team"}}, "spec": {"suspend": True}}
    assert job_status.suspended(job) == "waits in the queue `team`"
    assert job_status.suspended({"metadata": {}, "spec": {"suspend": False}}) is None
