"""What a Job's status says. Pure."""

from services.common.kubernetes import Object
from services.scheduler.adapters.kubernetes_workers.names import QUEUE_LABEL


def _condition(job: Object, kind: str) -> Object | None:
    for condition in job.get("status", {}).get("conditions", ()):
        if condition["type"] == kind and condition["status"] == "True":
            found: Object = condition
            return found
    return None


def is_over(job: Object) -> bool:
    """It makes no more pods, whatever happens."""
    return any(
        _condition(job, kind) is not None for kind in ("Complete", "Failed", "SuccessCriteriaMet", "FailureTarget")
    )


def has_failed(job: Object, index: int) -> bool:
    """This index was given up."""
    return _holds(str(job.get("status", {}).get("failedIndexes", "")), index)


def suspended(job: Object) -> str | None:
    """Why it makes no pods just now, for people; None when it does."""
    if not job["spec"].get("suspend"):
        return None
    queue = job["metadata"].get("labels", {}).get(QUEUE_LABEL)
    return f"waits in the queue `{queue}`" if queue else "its Job is suspended"


def _holds(ranges: str, index: int) -> bool:
    """Whether a text such as `1,3-5` names an index."""
    for part in filter(None, ranges.split(",")):
        first, _, last = part.partition("-")
        if int(first) <= index <= int(last or first):
            return True
    return False
