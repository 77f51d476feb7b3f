"""What a dequeuer is told at its start: one file, named by CORTEX_WORKER_SPEC."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format

from cortex.batch.v1.worker_spec_pb2 import WorkerSpec
from services.common.lifecycle import LIFELINE_VARIABLE
from services.common.settings import Environment, SettingsError


@dataclass(frozen=True)
class Settings:
    """Settings of one dequeuer."""

    spec: WorkerSpec
    """The worker to run."""
    lifeline_fd: int | None
    """Its end means that the whole system has ended. From CORTEX_LIFELINE_FD, else from the specification."""
    log_level: str


def read(variables: Mapping[str, str]) -> Settings:
    """Settings from environment variables. Raises `SettingsError` when they or the file make no sense."""
    environment = Environment(variables)
    spec = _read_spec(Path(environment.text("CORTEX_WORKER_SPEC")))
    lifeline_fd = spec.local.lifeline_fd if spec.local.HasField("lifeline_fd") else None
    if environment.optional(LIFELINE_VARIABLE):
        lifeline_fd = environment.integer(LIFELINE_VARIABLE, 0)
    return Settings(spec, lifeline_fd, environment.text("CORTEX_LOG_LEVEL", "INFO"))


def _read_spec(path: Path) -> WorkerSpec:
    try:
        # A newer scheduler may say more than this dequeuer knows.
        spec = json_format.Parse(path.read_text(), WorkerSpec(), ignore_unknown_fields=True)
    except (OSError, UnicodeDecodeError, json_format.ParseError) as error:
        raise SettingsError(f"the worker's specification {path} cannot be read: {error}") from error
    for field in ("job_id", "worker_id", "scheduler_address", "port"):
        if not getattr(spec, field):
            raise SettingsError(f"the worker's specification {path} has no {field}")
    return spec
