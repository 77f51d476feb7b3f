"""Events: what `kubectl describe` shows at the end."""

from tests.cluster.api.api import Api
from tests.cluster.api.clock import now
from tests.cluster.api.kinds import Object


def tell(api: Api, about: Object, kind: str, reason: str, message: str, component: str) -> None:
    """One event about an object."""
    metadata = about["metadata"]
    namespace = metadata.get("namespace", "default")
    involved = {
        "apiVersion": about["apiVersion"],
        "kind": about["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    event = {
        "metadata": {"generateName": f"{metadata['name']}."},
        "involvedObject": {**involved, "namespace": namespace, "resourceVersion": metadata["resourceVersion"]},
        "type": kind,
        "reason": reason,
        "message": message[:1024],
        "source": {"component": component},
        "firstTimestamp": now(),
        "lastTimestamp": now(),
        "count": 1,
    }
    api.create(api.kinds.named("events"), namespace, event)
