"""How a worker ends: how long everything may take, and with which exit code.

On this machine, where the parent knows why, the code says little: 0 as told, 1 failed, 3 no scheduler for too long. In
a pod it says what is to become of the pod's place (a Job's `podFailurePolicy` and `backoffLimitPerIndex` read it):

    0  the job needs this worker no more
    1  failed
    3  no scheduler for too long
    64 this worker can never work
    65 the job is over, or the scheduler does not know it
    66 another worker is to take this one's place: that is not a failure
"""

from dataclasses import dataclass, replace

import grpc

from cortex.batch.v1.worker_service_pb2 import Shutdown
from cortex.batch.v1.worker_spec_pb2 import WorkerSpec
from services.dequeuer.stream import Orphaned, Refused

EXIT_FAILED = 1
EXIT_ORPHANED = 3
EXIT_JOB_OVER = 65
EXIT_REPLACED = 66

TERM_DRAIN_S = 4.5
TERM_STOP_S = 2.0
"""SIGTERM leaves ten seconds in all: for batches in the container, the containers' end, goodbye and the last spans."""

STOP_S = 10.0
"""The containers' grace where the specification names none."""
GOODBYE_S = 1.0
LAST_SPANS_S = 0.5


@dataclass(frozen=True, slots=True)
class Ending:
    """How a worker ends."""

    reason: str
    drain_s: float = 0.0
    """Batches in the container may go on for so long."""
    stop_s: float = STOP_S
    """The containers' grace, where they end with the dequeuer."""
    record_s: float = 5.0
    """The scheduler gets so long to record the last outcomes; what it has not recorded then is delivered again."""
    goodbye_s: float = GOODBYE_S
    farewell: bool = True
    """There is a scheduler to report to."""
    at_once: bool = False
    code: int = 0


class Endings:
    """The endings of one worker, by what makes it end."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._in_pod = spec.HasField("pod")
        self._pod = spec.pod
        self._stop_s = spec.local.stop_grace_seconds or STOP_S

    def told(self, shutdown: Shutdown) -> Ending:
        """The scheduler says so."""
        code = EXIT_REPLACED if self._in_pod and not shutdown.job_over else 0
        return Ending(f"told to end: {shutdown.reason}", shutdown.grace_seconds, self._stop_s, code=code)

    def refused(self, refused: Refused) -> Ending:
        """The scheduler has no use for this worker."""
        code = 0
        if self._in_pod:
            code = EXIT_JOB_OVER if refused.code is grpc.StatusCode.NOT_FOUND else EXIT_REPLACED
        reason = f"the scheduler has no use for this worker: {refused}"
        return Ending(reason, stop_s=self._stop_s, farewell=False, code=code)

    def orphaned(self, orphaned: Orphaned) -> Ending:
        """There is no scheduler."""
        return Ending(str(orphaned), stop_s=self._stop_s, farewell=False, code=EXIT_ORPHANED)

    def failed(self, reason: str) -> Ending:
        """The containers cannot be started."""
        return Ending(reason, stop_s=self._stop_s, code=EXIT_FAILED)

    def signalled(self) -> Ending:
        """A signal says that everything ends soon.

        A pod's grace period is shared: its containers end after the dequeuer, and need what is left of it.
        """
        ending = Ending("told to end by a signal", TERM_DRAIN_S, min(self._stop_s, TERM_STOP_S), TERM_STOP_S)
        if not self._in_pod:
            return ending
        ours_s = max(0.0, self._pod.termination_seconds - self._pod.stop_seconds)
        record_s, goodbye_s = max(0.5, min(TERM_STOP_S, ours_s / 4)), max(0.25, min(GOODBYE_S, ours_s / 8))
        drain_s = max(0.0, ours_s - record_s - goodbye_s - LAST_SPANS_S)
        return replace(ending, drain_s=drain_s, record_s=record_s, goodbye_s=goodbye_s, code=EXIT_REPLACED)

    def lost(self) -> Ending:
        """The whole system is gone."""
        return Ending("the system is gone", at_once=True, code=EXIT_FAILED)
