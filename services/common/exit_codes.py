"""Exit codes of a dequeuer.

On this machine, where the parent knows why, they say little: 0 as told, else it failed or found no scheduler. In a pod
they say what is to become of the pod's place: a Job's `podFailurePolicy` and `backoffLimitPerIndex` read them.
"""

DONE = 0
"""As told: the job needs this worker no more."""
FAILED = 1
ORPHANED = 3
"""No scheduler for too long: not its failure either."""
NEVER_OF_USE = 64
"""This worker can never work: its index is given up."""
JOB_IS_OVER = 65
"""The job is over, or the scheduler does not know it: the whole Job is given up."""
HANDED_BACK = 66
"""Another worker is to take this one's place: that is not a failure."""
