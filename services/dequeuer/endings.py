"""How a worker ends: how long everything may take, and with which exit code."""

from dataclasses import dataclass, replace

import grpc

from cortex.batch.v1.worker_service_pb2 import Shutdown
from cortex.batch.v1.worker_spec_pb2 import WorkerSpec
from services.common import exit_codes
from services.dequeuer.stream import Orphaned, Refused

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
    code: int = exit_codes.DONE


class Endings:
    """The endings of one worker, by what makes it end."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._in_pod = spec.HasField("pod")
        self._pod = spec.pod
        self._stop_s = spec.local.stop_grace_seconds or STOP_S

    def told(self, shutdown: Shutdown) -> Ending:
        """The scheduler says so."""
        code = exit_codes.HANDED_BACK if self._in_pod and not shutdown.job_over else exit_codes.DONE
        return Ending(f"told to end: {shutdown.reason}", shutdown.grace_seconds, self._stop_s, code=code)

    def refused(self, refused: Refused) -> Ending:
        """The scheduler has no use for this worker."""
        code = exit_codes.DONE
        if self._in_pod:
            code = exit_codes.JOB_IS_OVER if refused.code is grpc.StatusCode.NOT_FOUND else exit_codes.HANDED_BACK
        reason = f"the scheduler has no use for this worker: {refused}"
        return Ending(reason, stop_s=self._stop_s, farewell=False, code=code)

    def orphaned(self, orphaned: Orphaned) -> Ending:
        """There is no scheduler."""
        return Ending(str(orphaned), stop_s=self._stop_s, farewell=False, code=exit_codes.ORPHANED)

    def failed(self, reason: str) -> Ending:
        """The containers cannot be started."""
        return Ending(reason, stop_s=self._stop_s, code=exit_codes.FAILED)

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
        return replace(ending, drain_s=drain_s, record_s=record_s, goodbye_s=goodbye_s, code=exit_codes.HANDED_BACK)

    def lost(self) -> Ending:
        """The whole system is gone."""
        return Ending("the system is gone", at_once=True, code=exit_codes.FAILED)
