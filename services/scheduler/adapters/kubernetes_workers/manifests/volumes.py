"""What containers find in their file systems.

    /mnt                        an empty directory, shared by the user's containers
    /cortex/spec/job.json       from a config map, or, where the document is too large for one, put together from
                                several: by an init container at first, by the dequeuer when it changes
    /cortex/client/cli.yaml     from the config map that also holds what the dequeuer is told
    /dev/shm                    memory, for containers that ask for a size
    /cortex/worker, token, parts    the dequeuer's own: no other container has them

Directories are mounted and not files: Kubernetes replaces what is in a mounted directory when the config map changes,
but never a file that is mounted alone.
"""

from services.scheduler.adapters.kubernetes_workers.manifests.resources import shm_size
from services.scheduler.adapters.kubernetes_workers.manifests.work import Json, Work
from services.scheduler.domain.api_config.model import Container

DOCUMENT_FILE = "job.json"
CLIENT_FILE = "cli.yaml"
WORKER_FILE = "worker.json"
TOKEN_FILE = "token"  # noqa: S105  # a file's name
DIGEST_FILE = "digest"

SPEC_DIRECTORY = "/cortex/spec"
CLIENT_DIRECTORY = "/cortex/client"
WORKER_DIRECTORY = "/cortex/worker"
TOKEN_DIRECTORY = "/cortex/token"  # noqa: S105  # a directory's name
PARTS_DIRECTORY = "/cortex/parts"

WHOLE_BYTES = 900 * 1024
"""A longer document is kept in parts: a config map holds a mebibyte in all."""
PART_BYTES = 700 * 1024
"""What a part holds at first; the rest of its mebibyte is for the little that a document grows."""


def parts_for(document: str) -> int:
    """How many config maps a document is kept in; 0 for one that is not split."""
    size = len(document.encode())
    return 0 if size <= WHOLE_BYTES else -(-size // PART_BYTES)


def document_map_name(name: str, part: int | None = None) -> str:
    """The config map that holds a job's document, or a part of it."""
    return f"{name}-spec" if part is None else f"{name}-spec-{part}"


def part_file(part: int) -> str:
    """How a part is called, so that the names' order is the parts'."""
    return f"{part:03d}.part"


def volumes(work: Work, parts: int) -> list[Json]:
    """The pod's volumes."""
    worker = f"{work.name}-worker"
    found: list[Json] = [
        {"name": "mnt", "emptyDir": {}},
        {"name": "client", "configMap": {"name": worker, "items": [_item(CLIENT_FILE)]}},
        {"name": "worker", "configMap": {"name": worker, "items": [_item(WORKER_FILE)]}},
        {"name": "token", "secret": {"secretName": f"{work.name}-token"}},
    ]
    if parts:
        sources = [{"configMap": {"name": document_map_name(work.name, part)}} for part in range(parts)]
        found += [{"name": "spec", "emptyDir": {}}, {"name": "parts", "projected": {"sources": sources}}]
    else:
        found.append({"name": "spec", "configMap": {"name": document_map_name(work.name)}})
    for index, container in enumerate(work.config.pod.containers):
        if (size := shm_size(container.compute)) is not None:
            found.append({"name": f"shm-{index}", "emptyDir": {"medium": "Memory", "sizeLimit": size}})
    return found


def container_mounts(index: int, container: Container) -> list[Json]:
    """What one of the user's containers sees."""
    mounts: list[Json] = [
        {"name": "mnt", "mountPath": "/mnt"},
        {"name": "spec", "mountPath": SPEC_DIRECTORY, "readOnly": True},
        {"name": "client", "mountPath": CLIENT_DIRECTORY, "readOnly": True},
    ]
    if shm_size(container.compute) is not None:
        mounts.append({"name": f"shm-{index}", "mountPath": "/dev/shm"})  # noqa: S108  # where it belongs
    return mounts


def dequeuer_mounts(parts: int) -> list[Json]:
    """What the dequeuer sees."""
    return [
        {"name": "worker", "mountPath": WORKER_DIRECTORY, "readOnly": True},
        {"name": "token", "mountPath": TOKEN_DIRECTORY, "readOnly": True},
        *(parts_mounts() if parts else ()),
    ]


def parts_mounts() -> list[Json]:
    """What putting the document together needs."""
    return [
        {"name": "parts", "mountPath": PARTS_DIRECTORY, "readOnly": True},
        {"name": "spec", "mountPath": SPEC_DIRECTORY},
    ]


def _item(file: str) -> Json:
    return {"key": file, "path": file}
