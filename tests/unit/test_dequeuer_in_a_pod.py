"""A dequeuer whose containers something else runs: what it makes of their states, its token, and how it ends."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from cortex.batch.v1.worker_service_pb2 import ContainerState, Shutdown
from cortex.batch.v1.worker_spec_pb2 import Container, LocalRuntime, PodRuntime, WorkerSpec
from services.common.exit_codes import DONE, HANDED_BACK, JOB_IS_OVER
from services.common.settings import SettingsError
from services.dequeuer import endings
from services.dequeuer.endings import Endings
from services.dequeuer.external_pod import ExternalPod
from services.dequeuer.ports import ContainerExit, PodState
from services.dequeuer.settings import read
from services.dequeuer.stream import Refused
from services.dequeuer.token import Token

API = ContainerState(name="api", running=True)
SIDE = ContainerState(name="side", running=True)
DEAD = ContainerState(name="api", ends=1, exit_code=3, backing_off=True, reason="exited with code 3")


@dataclass
class Listener:
    started: list[str] = field(default_factory=list)
    exits: list[ContainerExit] = field(default_factory=list)
    states: list[PodState] = field(default_factory=list)

    def container_started(self, name: str) -> None:
        self.started.append(name)

    def container_exited(self, exit: ContainerExit) -> None:  # noqa: A002  # the port's name
        self.exits.append(exit)

    def pod_changed(self, state: PodState) -> None:
        self.states.append(state)


def started(*names: str) -> tuple[ExternalPod, Listener]:
    pod = ExternalPod(WorkerSpec(containers=[Container(name=name) for name in names or ("api",)]))
    listener = Listener()
    asyncio.run(pod.start(listener))
    return pod, listener


def test_until_told_otherwise_the_containers_run() -> None:
    pod, listener = started("api", "side")
    assert listener.started == ["api", "side"]
    assert pod.state.running
    pod.hear([API, SIDE])
    assert (listener.started, listener.exits, len(listener.states)) == (["api", "side"], [], 1)


def test_an_end_is_told_and_the_start_after_it() -> None:
    pod, listener = started()
    pod.hear([DEAD])
    assert listener.exits == [ContainerExit("api", 3, None, False, "exited with code 3")]
    assert pod.state == PodState(False, 1, False, "container `api` exited with code 3", True)
    pod.hear([ContainerState(name="api", running=True, ends=1)])
    assert listener.started == ["api", "api"]
    assert (pod.state.running, pod.state.failed_starts) == (True, 1)


def test_what_happened_while_nothing_was_heard_is_made_up_for() -> None:
    pod, listener = started()
    pod.hear([ContainerState(name="api", running=True, ends=3, signal=9, out_of_memory=True)])
    assert [(exit_.signal, exit_.out_of_memory) for exit_ in listener.exits] == [(9, True)]
    assert listener.started == ["api", "api"]
    assert (pod.state.failed_starts, pod.state.out_of_memory) == (3, True)


def test_a_finished_batch_gives_the_budget_back() -> None:
    pod, listener = started()
    pod.hear([DEAD])
    pod.hear([ContainerState(name="api", running=True, ends=1)])
    pod.made_progress()
    assert pod.state.failed_starts == 0
    pod.hear([ContainerState(name="api", ends=2, reason="exited with code 3")])
    assert pod.state.failed_starts == 0, "a batch was finished since it began"
    pod.hear([ContainerState(name="api", ends=3, reason="exited with code 3")])
    assert pod.state.failed_starts == 1
    assert len(listener.exits) == 3


def test_a_container_that_never_ran_is_no_end() -> None:
    pod, listener = started()
    pod.hear([ContainerState(name="api", reason="is not there yet (ContainerCreating)")])
    assert (pod.state.running, listener.exits) == (False, [])
    pod.hear([API])
    assert (pod.state.running, listener.started) == (True, ["api", "api"])


def test_containers_that_are_not_the_users_are_not_heard_of() -> None:
    pod, listener = started()
    pod.hear([API, ContainerState(name="istio", ends=7)])
    assert (pod.state.running, listener.exits) == (True, [])


# Its token and its name


def test_the_latest_token_counts(tmp_path: Path) -> None:
    file = tmp_path / "token"
    token = Token(WorkerSpec(token="first", pod=PodRuntime(token_file=str(file))))
    assert token.current() == "first"  # the file is not there yet
    file.write_text("second\n")
    assert token.current() == "second"
    token.renew("third")
    assert token.current() == "third"
    file.write_text("fourth")
    assert token.current() == "fourth"


def test_which_of_a_jobs_pods_it_is_the_cluster_says(tmp_path: Path) -> None:
    file = tmp_path / "worker.json"
    file.write_text('{"jobId": "j", "schedulerAddress": "s:1", "port": 8080, "pod": {"tokenFile": "/t"}}')
    variables = {"CORTEX_WORKER_SPEC": str(file), "JOB_COMPLETION_INDEX": "7", "CORTEX_WORKER_ID": "uid-1"}
    spec = read(variables).spec
    assert (spec.worker, spec.worker_id) == (7, "uid-1")
    del variables["CORTEX_WORKER_ID"]
    with pytest.raises(SettingsError, match="CORTEX_WORKER_ID"):
        read(variables)


# How it ends


def ending_codes(spec: WorkerSpec) -> list[int]:
    made = Endings(spec)
    return [
        made.told(Shutdown(job_over=True)).code,
        made.told(Shutdown()).code,
        made.refused(Refused(grpc.StatusCode.NOT_FOUND, "")).code,
        made.refused(Refused(grpc.StatusCode.FAILED_PRECONDITION, "")).code,
        made.signalled().code,
    ]


def test_in_a_pod_the_exit_code_says_what_becomes_of_its_place() -> None:
    assert ending_codes(WorkerSpec(pod=PodRuntime())) == [DONE, HANDED_BACK, JOB_IS_OVER, HANDED_BACK, HANDED_BACK]
    assert ending_codes(WorkerSpec(local=LocalRuntime())) == [DONE] * 5


@pytest.mark.parametrize(("termination_s", "stop_s"), [(30, 10), (60, 5), (10, 4), (300, 30)])
def test_what_follows_sigterm_fits_into_the_pods_grace_beside_the_containers_end(
    termination_s: float, stop_s: float
) -> None:
    pod = PodRuntime(termination_seconds=termination_s, stop_seconds=stop_s)
    ending = Endings(WorkerSpec(pod=pod)).signalled()
    whole = ending.drain_s + ending.record_s + ending.goodbye_s + endings.LAST_SPANS_S
    assert whole <= termination_s - stop_s
    assert ending.drain_s >= (termination_s - stop_s) / 3
