"""Whether a batch that failed is attempted again, and how long it waits for that.

The waits double from attempt to attempt up to a limit. Half of each is left to chance, so that batches that failed
together (a service behind the container was away) do not come back together.
"""

from services.scheduler.domain.model.job import JobSpec
from services.scheduler.domain.model.options import RetryPolicy
from services.scheduler.domain.options import DEFAULT_BACKOFF_SECONDS, DEFAULT_MAX_BACKOFF_SECONDS

ONCE = RetryPolicy(1, 0.0, 0.0)
"""What Cortex did without a dead letter queue."""

_MAX_DOUBLINGS = 64
"""More than any limit on the waits needs; further ones would not fit a float."""


def policy_of(spec: JobSpec) -> RetryPolicy:
    """How a job's batches are attempted: as `retries` says, else as often as the dead letter queue's limit allows."""
    if spec.options.retries is not None:
        return spec.options.retries
    if spec.dead_letter_queue is None:
        return ONCE
    receives = spec.dead_letter_queue.max_receive_count
    return RetryPolicy(receives, DEFAULT_BACKOFF_SECONDS, DEFAULT_MAX_BACKOFF_SECONDS)


def wait_after(policy: RetryPolicy, attempt: int, http_status: int, chance: float) -> float | None:
    """Seconds until a batch is attempted again after attempt number `attempt` failed; None when it is given up.

    `http_status` is 0 when there was no answer. `chance` is from 0 to 1.
    """
    if attempt >= policy.max_attempts:
        return None
    if http_status and policy.on and http_status not in policy.on:
        return None
    return backoff(policy.backoff_seconds, policy.max_backoff_seconds, attempt, chance)


def backoff(first: float, longest: float, failures: int, chance: float) -> float:
    """Seconds to wait after so many failures in a row, at least 1."""
    return min(first * 2.0 ** min(failures - 1, _MAX_DOUBLINGS), longest) * (1 + chance) / 2
