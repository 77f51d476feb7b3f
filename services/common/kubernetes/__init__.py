"""A thin way to a Kubernetes API server: dictionaries in, dictionaries out.

`Cluster` (`client.py`) asks and changes; `watch.py` follows what there is, through every break; `resources.py` names
what we deal with; `errors.py` says what refusals mean. Nothing else imports the Kubernetes library: what it offers
beyond one request (its watch, its models) is not used, for it gives up where a service must go on.
"""

from services.common.kubernetes.client import Cluster, Object
from services.common.kubernetes.resources import (
    BATCH_APIS,
    BATCH_JOBS,
    CONFIG_MAPS,
    JOBS,
    LEASES,
    NODES,
    PODS,
    SECRETS,
    Resource,
)
from services.common.kubernetes.watch import Change, Followed, follow

__all__ = [
    "BATCH_APIS",
    "BATCH_JOBS",
    "CONFIG_MAPS",
    "JOBS",
    "LEASES",
    "NODES",
    "PODS",
    "SECRETS",
    "Change",
    "Cluster",
    "Followed",
    "Object",
    "Resource",
    "follow",
]
