"""The kinds of objects that we deal with."""

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object, and where the API server keeps it."""

    api_version: str
    """Such as `v1` or `batch/v1`."""
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """The URL's path of all objects (of a namespace, or of all with None), or of one."""
        parts = ["apis" if "/" in self.api_version else "api", self.api_version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts += [part for part in (self.plural, quote(name, safe=""), subresource) if part]
        return "/" + "/".join(parts)


JOBS = Resource("batch/v1", "Job", "jobs")
PODS = Resource("v1", "Pod", "pods")
CONFIG_MAPS = Resource("v1", "ConfigMap", "configmaps")
SECRETS = Resource("v1", "Secret", "secrets")
NODES = Resource("v1", "Node", "nodes", namespaced=False)
LEASES = Resource("coordination.k8s.io/v1", "Lease", "leases")
BATCH_APIS = Resource("batch.cortex.dev/v1alpha1", "BatchAPI", "batchapis")
BATCH_JOBS = Resource("batch.cortex.dev/v1alpha1", "BatchJob", "batchjobs")
