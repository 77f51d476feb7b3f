"""What a pod's status says of a worker: where it is, how its containers are, and how it ended. Pure.

A crashed sidecar is restarted in place and never fails its pod, so crashes are read from the containers' own states.
Disruptions (a drained or lost node, a reclaimed spot machine, preemption) are told by the condition DisruptionTarget;
a pod that somebody deleted, or that a node refused or could not keep, is no failure of its worker either.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from signal import Signals
from typing import Any, TypeAlias

from services.common.exit_codes import HANDED_BACK, JOB_IS_OVER, NEVER_OF_USE, ORPHANED
from services.scheduler.adapters.kubernetes_workers.names import DEQUEUER, INDEX_LABEL
from services.scheduler.domain.model.worker import ContainerState, End, Health, Phase
from services.scheduler.usecases.ports.workers import WorkerExit

Pod: TypeAlias = dict[str, Any]

_IMAGE_TROUBLE = frozenset(
    ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
)
_NO_TROUBLE = frozenset(("ContainerCreating", "PodInitializing"))
_NOT_THERE = ("executable file not found", "no such file or directory", "not a directory")
_SIGNALLED = 128
"""A shell's way to say that a signal ended a program, and a container runtime's: this and the signal's number."""
_MAX_WORDS = 300
_CODES = {
    ORPHANED: "found no scheduler for too long",
    HANDED_BACK: "was told to go before its job was over",
    NEVER_OF_USE: "found that this worker can never work",
    JOB_IS_OVER: "was not known to the scheduler",
}


def slot_of(pod: Pod) -> int:
    """The worker's number in its job; -1 where the Job controller has not said."""
    text = pod["metadata"].get("labels", {}).get(INDEX_LABEL, "")
    return int(text) if text.isdigit() else -1


def has_ended(pod: Pod) -> bool:
    """Nothing runs in it any more, and nothing will."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def is_leaving(pod: Pod) -> bool:
    """Somebody wants it gone."""
    return "deletionTimestamp" in pod["metadata"]


def was_disrupted(pod: Pod) -> bool:
    """Kubernetes says that its end is not its own doing."""
    return _condition(pod, "DisruptionTarget").get("status") == "True"


def dequeuer_began(pod: Pod) -> bool:
    """Whether the dequeuer has begun."""
    state = _status_of(pod, DEQUEUER).get("state", {})
    return "running" in state or "terminated" in state


def has_begun_nothing(pod: Pod, seconds: float, now: datetime) -> bool:
    """It is so old, has a node, and none of its containers has begun, or could not be."""
    if not pod["spec"].get("nodeName") or has_ended(pod) or is_leaving(pod):
        return False
    states = [each.get("state", {}) for each in _statuses(pod)]
    silent = all(state.get("waiting", {}).get("reason") in _NO_TROUBLE for state in states)
    return silent and seconds_since(pod["metadata"].get("creationTimestamp"), now) >= seconds


def seconds_since(text: str | None, now: datetime) -> float:
    """How long ago a point in time was that the API server tells; 0 for none."""
    return (now - datetime.fromisoformat(text).astimezone(UTC)).total_seconds() if text else 0.0


# Where a worker is


def health(pod: Pod, now: datetime, stalled_seconds: float) -> Health:
    """How a worker is that says nothing itself."""
    if is_leaving(pod) or was_disrupted(pod):
        return Health(Phase.TERMINATING, _condition(pod, "DisruptionTarget").get("message", "its pod was deleted"))
    if pod.get("status", {}).get("phase") == "Unknown" or _node_is_silent(pod):
        return Health(Phase.UNKNOWN, f"its node {pod['spec'].get('nodeName', '')} does not answer")
    if pod.get("spec", {}).get("schedulingGates"):
        return Health(Phase.PENDING, "its pod waits for its turn in the queue", queued=True)
    if not pod.get("spec", {}).get("nodeName"):
        stalled = seconds_since(pod["metadata"].get("creationTimestamp"), now) >= stalled_seconds
        told = _condition(pod, "PodScheduled").get("message") or "it waits for a node"
        return Health(Phase.STALLED if stalled else Phase.PENDING, f"no node for its pod: {told}"[:_MAX_WORDS])
    if dequeuer_began(pod):
        return Health(Phase.NOT_READY, "its dequeuer has no connection to the scheduler")
    return _creating(pod)


def _node_is_silent(pod: Pod) -> bool:
    """Not its kubelet but the control plane has said that it is not ready: the kubelet says both alike."""
    ready, containers = _condition(pod, "Ready"), _condition(pod, "ContainersReady")
    return (ready.get("status"), containers.get("status")) == ("False", "True")


def _creating(pod: Pod) -> Health:
    phase, reason = Phase.CREATING, "its containers are being started"
    for name, waiting in _waiting(pod):
        why = str(waiting.get("reason", ""))
        if why in _IMAGE_TROUBLE:
            phase = Phase.ERR_IMAGE_PULL
        if why and why not in _NO_TROUBLE:
            reason = f"container `{name}`: {why}: {waiting.get('message', '')}"[:_MAX_WORDS].rstrip(": ")
            break
    states = container_states(pod)
    dead = [each for each in states if each.ends and not each.running]
    if dead and phase is Phase.CREATING:
        reason = f"container `{dead[0].name}` {dead[0].reason}"
    return Health(
        phase,
        reason,
        failed_starts=sum(each.ends for each in states),
        out_of_memory=any(each.out_of_memory for each in dead),
        cannot_start=any(_is_not_there(each.reason) for each in dead),
    )


def _waiting(pod: Pod) -> Iterator[tuple[str, Pod]]:
    for each in _statuses(pod):
        if (waiting := each.get("state", {}).get("waiting")) is not None:
            yield each["name"], waiting


def _is_not_there(reason: str) -> bool:
    return any(text in reason for text in _NOT_THERE)


# How the user's containers are


def container_states(pod: Pod) -> tuple[ContainerState, ...]:
    """The user's containers, in the configuration's order."""
    return tuple(
        _container_state(each["name"], _status_of(pod, each["name"]))
        for each in pod["spec"].get("initContainers", ())
        if each.get("restartPolicy") == "Always"
    )


def _container_state(name: str, status: Pod) -> ContainerState:
    state = status.get("state", {})
    ended = state.get("terminated") or status.get("lastState", {}).get("terminated")
    running = "running" in state
    waiting = state.get("waiting", {})
    ends = int(status.get("restartCount", 0)) + (1 if ended is not None and not running else 0)
    if ended is None:
        words = f"{waiting.get('reason', 'ContainerCreating')}: {waiting.get('message', '')}".rstrip(": ")
        return ContainerState(name, running, ends, reason="" if running else f"is not there yet ({words})"[:_MAX_WORDS])
    code, signal = _code_and_signal(ended)
    return ContainerState(
        name,
        running,
        ends,
        exit_code=code,
        signal=signal,
        out_of_memory=ended.get("reason") == "OOMKilled",
        backing_off=waiting.get("reason") == "CrashLoopBackOff",
        reason=_ending(ended),
    )


def _code_and_signal(ended: Pod) -> tuple[int | None, int | None]:
    code, signal = int(ended.get("exitCode", 0)), int(ended.get("signal", 0))
    if not signal and _SIGNALLED < code <= _SIGNALLED + 64:
        signal = code - _SIGNALLED
    return (None, signal) if signal else (code, None)


def _ending(ended: Pod) -> str:
    """How a container ended, as the rest of a sentence about it."""
    code, signal = _code_and_signal(ended)
    if ended.get("reason") == "OOMKilled":
        how = "ran out of memory"
    elif signal is not None:
        how = f"was ended by signal {_signal(signal)}"
    else:
        how = f"exited with code {code}"
    words = " ".join(str(ended.get("message", "")).split())
    return f"{how}: {words[-_MAX_WORDS:]}" if words else how


def _signal(number: int) -> str:
    try:
        return f"{number} ({Signals(number).name})"
    except ValueError:
        return str(number)


# How a worker ended


def exit_of(pod: Pod, *, gone: bool) -> WorkerExit | None:
    """How it ended; None while it lives. `gone`: the API server has it no more."""
    if not gone and not has_ended(pod):
        return None
    uid = pod["metadata"]["uid"]
    ended = _status_of(pod, DEQUEUER).get("state", {}).get("terminated")
    if pod.get("status", {}).get("phase") == "Succeeded":
        return WorkerExit(uid, "its dequeuer was done", End.SUCCEEDED)
    if was_disrupted(pod):
        told = _condition(pod, "DisruptionTarget")
        return WorkerExit(uid, f"its pod was disrupted: {_words(told)}", End.KILLED, blameless=True)
    if is_leaving(pod) or not has_ended(pod):
        return WorkerExit(uid, "its pod was deleted", End.KILLED, blameless=True)
    if ended is None:
        return WorkerExit(
            uid, f"its pod could not run on its node: {_words(pod['status'])}", End.FAILED, blameless=True
        )
    return _dequeuer_ended(uid, ended)


def _dequeuer_ended(uid: str, ended: Pod) -> WorkerExit:
    code, signal = _code_and_signal(ended)
    if ended.get("reason") == "OOMKilled":
        return WorkerExit(uid, "its dequeuer ran out of memory", End.KILLED_OOM)
    if code in (ORPHANED, HANDED_BACK):
        return WorkerExit(uid, f"its dequeuer {_CODES[code]}", End.KILLED, blameless=True)
    if code in _CODES:
        return WorkerExit(uid, f"its dequeuer {_CODES[code]}: {_ending(ended)}", End.FAILED)
    return WorkerExit(uid, f"its dequeuer {_ending(ended)}", End.FAILED if signal is None else End.KILLED)


def _words(told: Pod) -> str:
    return ": ".join(str(told[key]) for key in ("reason", "message") if told.get(key))[:_MAX_WORDS] or "no reason given"


# Reading a status


def _condition(pod: Pod, kind: str) -> Pod:
    for condition in pod.get("status", {}).get("conditions", ()):
        if condition["type"] == kind:
            found: Pod = condition
            return found
    return {}


def _statuses(pod: Pod) -> list[Pod]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def _status_of(pod: Pod, name: str) -> Pod:
    for each in _statuses(pod):
        if each["name"] == name:
            found: Pod = each
            return found
    return {}
