"""A job's life as a pure function: `advance(life, event) -> (life, effects)`.

    working ----every batch final, input split, no lease out----> completing ----answered----> publishing --> over
       |                                                              |                            |
       +------stop, timeout, failed input, failing workers------------+----------------------------+--------> over

While *working*, batches are delivered. While *completing*, exactly one worker has been told to POST /on-job-complete.
A job that has its results written to a store is *publishing* while that is done, without workers; any other skips it.
When the job is *over* its state is final. `Life.state` is what the ledger keeps; the rest is rebuilt at a restart.
"""

from dataclasses import dataclass, replace
from enum import Enum

from services.scheduler.domain.model.job import Completion, JobState, JobStatus


class Phase(Enum):
    """Where a job is between its first batch and its end."""

    WORKING = "working"
    COMPLETING = "completing"
    PUBLISHING = "publishing"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Life:
    """A job's life so far."""

    state: JobState
    phase: Phase = Phase.WORKING
    completer: str | None = None
    """The worker that was told to POST /on-job-complete."""
    publishes: bool = False
    """The results are to be written before the job is over."""


def begin(state: JobState, *, publishes: bool) -> Life:
    """The life of a job as the ledger has it, new or from before a restart."""
    answered = state.completion is not None and not state.status.final
    return Life(state, Phase.PUBLISHING if answered else Phase.WORKING, publishes=publishes)


# Events


@dataclass(frozen=True, slots=True)
class WorkerCreated:
    """The first or a further worker's process runs."""


@dataclass(frozen=True, slots=True)
class InputSplit:
    """The input is split to its end, and durably so."""


@dataclass(frozen=True, slots=True)
class InputFailed:
    """The input cannot be split."""

    reason: str
    now_ns: int


@dataclass(frozen=True, slots=True)
class Settled:
    """Outcomes became durable, or leases came back: how the job stands now."""

    final: int
    total: int | None
    """Batches in the job; None while its input is still being split."""
    open_leases: int
    candidates: tuple[str, ...]
    """Workers that could POST /on-job-complete, the best first."""


@dataclass(frozen=True, slots=True)
class CompletionUnderWay:
    """A worker returns that was told to POST /on-job-complete before the scheduler's restart."""

    worker: str


@dataclass(frozen=True, slots=True)
class CompletionAnswered:
    """The container answered /on-job-complete, or failed to."""

    worker: str
    completion: Completion
    failed: int
    """Batches that failed."""
    example: str
    """How one of them failed, for people; empty when none did."""
    now_ns: int


@dataclass(frozen=True, slots=True)
class Published:
    """The results are written."""

    failed: int
    """Batches that failed."""
    example: str
    """How one of them failed, for people; empty when none did."""
    now_ns: int


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker is gone for good."""

    worker: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Something ends the job before its work is done: a stop, its timeout, workers that keep failing."""

    status: JobStatus
    reason: str
    now_ns: int


Event = (
    WorkerCreated
    | InputSplit
    | InputFailed
    | Settled
    | CompletionUnderWay
    | CompletionAnswered
    | Published
    | WorkerLost
    | Ended
)

# Effects


@dataclass(frozen=True, slots=True)
class Persist:
    """The state changed: write it to the ledger before anyone is told."""


@dataclass(frozen=True, slots=True)
class DescribeJob:
    """More is known of the job than its containers were told."""


@dataclass(frozen=True, slots=True)
class AskCompletion:
    """Tell this worker to POST /on-job-complete."""

    worker: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Write the results, and end the workers: there is nothing left for them to do."""


@dataclass(frozen=True, slots=True)
class EndWorkers:
    """The job is over: end its workers."""

    reason: str


Effect = Persist | DescribeJob | AskCompletion | Publish | EndWorkers


def advance(life: Life, event: Event) -> tuple[Life, list[Effect]]:
    """What an event makes of a job. Events that come after its end change nothing."""
    if life.phase is Phase.OVER or (life.phase is Phase.PUBLISHING and not isinstance(event, Published | Ended)):
        return life, []
    match event:
        case WorkerCreated():
            if life.state.status is JobStatus.RUNNING:
                return life, []
            return replace(life, state=replace(life.state, status=JobStatus.RUNNING)), [Persist()]
        case InputSplit():
            return life, [DescribeJob()]
        case InputFailed(reason, now_ns):
            return _over(life, JobStatus.ENQUEUE_FAILED, reason, now_ns)
        case Settled():
            return _settle(life, event)
        case CompletionUnderWay(worker):
            if life.completer is not None:
                return life, []
            return replace(life, phase=Phase.COMPLETING, completer=worker), []
        case CompletionAnswered(worker, completion, failed, example, now_ns):
            if life.phase is not Phase.COMPLETING or worker != life.completer:
                return life, []
            answered = replace(life, state=replace(life.state, completion=completion))
            if life.publishes:
                return replace(answered, phase=Phase.PUBLISHING, completer=None), [Persist(), Publish()]
            return _done(answered, failed, example, now_ns)
        case Published(failed, example, now_ns):
            return _done(life, failed, example, now_ns) if life.phase is Phase.PUBLISHING else (life, [])
        case WorkerLost(worker):
            # Whether its container was asked is unknown, so another one is asked: at the next Settled.
            return (replace(life, completer=None) if worker == life.completer else life), []
        case Ended(status, reason, now_ns):
            return _over(life, status, reason, now_ns)


def _settle(life: Life, event: Settled) -> tuple[Life, list[Effect]]:
    complete = event.final == event.total and event.open_leases == 0
    if not complete or life.completer is not None:
        return life, []
    if not event.candidates:
        return replace(life, phase=Phase.COMPLETING), []
    return replace(life, phase=Phase.COMPLETING, completer=event.candidates[0]), [AskCompletion(event.candidates[0])]


def _done(life: Life, failed: int, example: str, now_ns: int) -> tuple[Life, list[Effect]]:
    status = JobStatus.COMPLETED_WITH_FAILURES if failed else JobStatus.SUCCEEDED
    return _over(life, status, _what_failed(failed, example, life.state.completion), now_ns)


def _over(life: Life, status: JobStatus, reason: str, now_ns: int) -> tuple[Life, list[Effect]]:
    state = replace(life.state, status=status, reason=reason, ended_ns=now_ns)
    return replace(life, state=state, phase=Phase.OVER, completer=None), [Persist(), EndWorkers(f"job {status.value}")]


def _what_failed(failed: int, example: str, completion: Completion | None) -> str:
    such_as = f", such as {example}" if example else ""
    parts = [f"{failed} batch{'es' if failed != 1 else ''} failed{such_as}"] if failed else []
    if completion is not None and completion.error:
        parts.append(f"/on-job-complete: {completion.error}")
    return "; ".join(parts)
