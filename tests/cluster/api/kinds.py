"""The resources that this server serves: the built-in ones, and those that custom resource definitions add."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Kind:
    """One resource, as discovery tells it."""

    group: str
    version: str
    name: str
    """`BatchJob`."""
    plural: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    status: bool = True
    """It has a status subresource: other writes leave the status alone."""
    subresources: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    schema: Object | None = None
    """A custom resource's structural schema."""
    columns: tuple[Object, ...] = ()
    """A custom resource's printer columns."""
    scale: Object | None = None
    stored_versions: tuple[str, ...] = field(default=())

    @property
    def api_version(self) -> str:
        """`batch/v1`, or `v1` for the core."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def key(self) -> str:
        """What names the resource among all: `jobs.batch`."""
        return f"{self.plural}.{self.group}"

    @property
    def custom(self) -> bool:
        """Whether a definition brought it."""
        return self.schema is not None


def _core(name: str, plural: str, *short: str, **more: Any) -> Kind:
    return Kind("", "v1", name, plural, short_names=short, **more)


BUILT_IN = (
    _core("Namespace", "namespaces", "ns", namespaced=False),
    _core("Node", "nodes", "no", namespaced=False),
    _core("Pod", "pods", "po", subresources=("log", "binding", "eviction"), categories=("all",)),
    _core("ConfigMap", "configmaps", "cm", status=False),
    _core("Secret", "secrets", status=False),
    _core("Service", "services", "svc", categories=("all",)),
    _core("ServiceAccount", "serviceaccounts", "sa", status=False),
    _core("Binding", "bindings", status=False),
    _core("Event", "events", "ev", status=False),
    Kind("batch", "v1", "Job", "jobs", categories=("all",)),
    Kind("coordination.k8s.io", "v1", "Lease", "leases", status=False),
    Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", short_names=("pdb",)),
    Kind("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", False, ("pc",), status=False),
    Kind("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", False, status=False),
    Kind(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        namespaced=False,
        short_names=("crd", "crds"),
    ),
)


class Kinds:
    """All resources, by what they are called in addresses."""

    def __init__(self) -> None:
        self._kinds = {(kind.group, kind.version, kind.plural): kind for kind in BUILT_IN}

    def __iter__(self) -> Iterator[Kind]:
        return iter(list(self._kinds.values()))

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        """The resource at this address."""
        return self._kinds.get((group, version, plural))

    def of(self, api_version: str, name: str) -> Kind | None:
        """The resource of objects that say so."""
        return next((kind for kind in self if kind.api_version == api_version and kind.name == name), None)

    def named(self, plural: str, group: str = "") -> Kind:
        """A resource that is known to exist."""
        return next(kind for kind in self if kind.plural == plural and kind.group == group)

    def replace(self, group: str, plural: str, kinds: list[Kind]) -> None:
        """What a definition says now; nothing when it is gone."""
        self._kinds = {key: kind for key, kind in self._kinds.items() if (kind.group, kind.plural) != (group, plural)}
        self._kinds |= {(kind.group, kind.version, kind.plural): kind for kind in kinds}
