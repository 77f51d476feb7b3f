"""What the driver can be told: a YAML file, named by CORTEX_KUBERNETES_SETTINGS. Every key is a field below."""

from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from services.common.settings import SettingsError

LEAST_GRACE_SECONDS = 15
"""A dequeuer needs ten seconds to hand back what it holds; the containers are stopped in the rest."""


class NodeGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nodes that an API's `node_groups` may name."""

    name: str
    """How APIs call it."""
    priority: int = 1
    """1 to 100: where several groups would do, nodes of the higher number are preferred."""
    values: tuple[str, ...] = ()
    """What its nodes have as value of the label `node_group_label`; none: the group's name."""


class KubernetesWorkerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How workers run as pods, and what they must reach."""

    dequeuer_image: str
    """The image of the container beside the user's."""
    scheduler_address: str
    """gRPC target of the scheduler as pods reach it, such as `dns:///scheduler.cortex.svc.cluster.local:8889`. With
    several replicas its name leads to all of them (a headless Service): dequeuers find the one that leads."""
    public_url: str
    """The gateway's base URL as the containers reach it."""
    deployment: str = "cortex"
    """Tells several deployments in one namespace apart: each sees, and removes, only the Jobs that carry its name."""
    dequeuer_command: tuple[str, ...] = ()
    """What to run in that image instead of its own entry point; arguments are put behind it."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """Of all containers; None: Kubernetes's own choice (`Always` for the tag `latest`)."""
    image_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets in the workers' namespace."""
    service_account: str = ""
    """Whose rights the workers have at the cloud (on EKS by its IAM role); `""` for the namespace's default. Its token
    for Kubernetes itself is never mounted."""
    privileged: bool = False
    """Run the users' containers privileged, as Cortex did."""
    grace_seconds: int = 60
    """From the notice that a pod must go to its end by force; at least 15. Dequeuer and containers share it."""
    node_selector: dict[str, str] = msgspec.field(default_factory=lambda: {"workload": "true"})
    """Labels of the nodes that workers may run on."""
    tolerations: tuple[dict[str, Any], ...] = (
        {"key": "workload", "operator": "Equal", "value": "true", "effect": "NoSchedule"},
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "aws.amazon.com/neuron", "operator": "Equal", "value": "true", "effect": "NoSchedule"},
    )
    """Taints that workers bear, as Kubernetes writes them."""
    node_group_label: str = "eks.amazonaws.com/nodegroup"
    """The nodes' label that says which group they belong to."""
    node_groups: tuple[NodeGroup, ...] = ()
    """The groups that APIs may name; none: any name, which is then taken as the label's value."""
    otlp_endpoint: str = ""
    """Where spans go, of the dequeuers and of the containers that do not say so themselves; `""` for nowhere."""
    pod_labels: dict[str, str] = {}
    """Put on every pod, beside ours."""
    pod_annotations: dict[str, str] = {}
    """Put on every pod, beside ours."""
    priority_class: str = ""
    """The pods' PriorityClass; `""` for the cluster's default."""
    log_level: str = "INFO"
    """Of the dequeuers."""
    orphan_seconds: float = 600.0
    """A dequeuer that finds no scheduler for so long ends. Well over the time that a failover takes."""
    stalled_seconds: float = 600.0
    """A pod that is pending for longer counts as stalled."""

    def __post_init__(self) -> None:
        """Raises ValueError, which `msgspec` turns into its own error with the place."""
        if self.grace_seconds < LEAST_GRACE_SECONDS:
            raise ValueError(f"grace_seconds must be at least {LEAST_GRACE_SECONDS}, not {self.grace_seconds}")
        for group in self.node_groups:
            if not 1 <= group.priority <= 100:
                raise ValueError(f"the priority of the node group {group.name} must be 1 to 100, not {group.priority}")

    @property
    def group_names(self) -> frozenset[str] | None:
        """The names that APIs may use; None: any."""
        return frozenset(group.name for group in self.node_groups) or None


def load_settings(path: Path) -> KubernetesWorkerSettings:
    """The settings in a file. Raises `SettingsError`."""
    try:
        return msgspec.convert(yaml.safe_load(path.read_bytes()), KubernetesWorkerSettings)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise SettingsError(f"CORTEX_KUBERNETES_SETTINGS ({path}) cannot be used: {error}") from error
