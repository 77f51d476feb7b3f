"""What the contract's tests need of each kind of workers: a driver with workers to start, and what is left of one.

A kit is a `DriverKit`; those in `conftest.py`'s `kit` fixture are held to the contract.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from services.common.engine import WORKER_LABEL
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.worker import WorkerRecord
from tests.engines import RealEngine
from tests.images import IMAGE
from tests.integration.local_worker_kit import Workers, api, processes_of


class DriverKit(Protocol):
    """One kind of workers."""

    def workers(self, data_dir: Path, **more: Any) -> Workers:
        """A driver, as one scheduler has it; another one on the same directory is a later scheduler's."""

    def api(self, *containers: dict[str, Any], **more: Any) -> ApiVersion:
        """A deployed API whose containers can run here."""

    def left_of(self, worker: WorkerRecord) -> set[object]:
        """Everything that runs of a worker, or is kept for it but for its files."""


@dataclass(frozen=True)
class LocalKit:
    """Processes of this machine."""

    def workers(self, data_dir: Path, **more: Any) -> Workers:
        return Workers(data_dir, **more)

    def api(self, *containers: dict[str, Any], **more: Any) -> ApiVersion:
        return api(*containers, **more)

    def left_of(self, worker: WorkerRecord) -> set[object]:
        return set(processes_of(worker))


@dataclass(frozen=True)
class EngineKit:
    """Containers of podman or docker."""

    engine: RealEngine

    def workers(self, data_dir: Path, **more: Any) -> Workers:
        return Workers(data_dir, engine=self.engine.program, **more)

    def api(self, *containers: dict[str, Any], **more: Any) -> ApiVersion:
        return api(*({"image": IMAGE, **container} for container in containers), **more)

    def left_of(self, worker: WorkerRecord) -> set[object]:
        return {*processes_of(worker), *self.engine.containers(f"{WORKER_LABEL}={worker.worker_id}")}
