"""What containers ask of a node."""

from services.scheduler.adapters.kubernetes_workers.manifests.work import Json
from services.scheduler.domain.api_config.model import Compute
from services.scheduler.domain.api_config.quantities import Quantity

GPU = "nvidia.com/gpu"
INFERENTIA = "aws.amazon.com/neuron"
HUGE_PAGES = "hugepages-2Mi"
HUGE_PAGES_A_CHIP = 128
"""Of 2 MiB each, for the Neuron runtime."""
LEAST_CPU = "20m"

DEQUEUER_RESOURCES: Json = {"requests": {"cpu": "100m", "memory": "100Mi"}}


def container_resources(compute: Compute) -> Json:
    """A container's requests and limits.

    Memory is a limit too, as on one machine. CPU is not: what a node has left over is for whoever can use it.
    """
    whole = _devices(compute)
    if compute.mem is not None:
        whole["memory"] = _bytes(compute.mem)
    requests = dict(whole)
    if compute.cpu is not None:
        requests["cpu"] = _cores(compute.cpu)
    elif HUGE_PAGES in whole and compute.mem is None:
        requests["cpu"] = LEAST_CPU  # Kubernetes refuses huge pages for a container that asks for nothing else
    return {name: amounts for name, amounts in (("requests", requests), ("limits", whole)) if amounts}


def _devices(compute: Compute) -> dict[str, str]:
    amounts: dict[str, str] = {}
    if compute.gpu:
        amounts[GPU] = str(compute.gpu)
    if compute.inf:
        amounts[INFERENTIA] = str(compute.inf)
        amounts[HUGE_PAGES] = f"{2 * HUGE_PAGES_A_CHIP * compute.inf}Mi"
    return amounts


def _cores(quantity: Quantity) -> str:
    return f"{quantity.milli}m" if quantity.milli % 1000 else str(quantity.milli // 1000)


def _bytes(quantity: Quantity) -> str:
    """As it was written where that is whole bytes: `1Gi` is read more easily than its number."""
    return quantity.text if quantity.text[-1:] == "i" and quantity.text[:-2].isdigit() else str(quantity.whole)


def shm_size(compute: Compute) -> str | None:
    """The size of /dev/shm; None for the container runtime's own."""
    return _bytes(compute.shm) if compute.shm is not None and compute.shm.milli > 0 else None
