"""What a dequeuer is told at its start: one file, named by CORTEX_WORKER_SPEC."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format

from cortex.batch.v1.worker_spec_pb2 import WorkerSpec
from services.common.lifecycle import LIFELINE_VARIABLE
from services.common.settings import Environment, SettingsError

POD_WORKER_VARIABLE = "JOB_COMPLETION_INDEX"
"""In a pod of an Indexed Job: the worker's number."""
WORKER_ID_VARIABLE = "CORTEX_WORKER_ID"
"""In a pod: its uid, by the downward API."""


@dataclass(frozen=True)
class Document:
    """Where /cortex/spec/job.json is put together. From CORTEX_JOB_SPEC_PARTS and CORTEX_JOB_SPEC_DIRECTORY."""

    parts: Path
    directory: Path


@dataclass(frozen=True)
class Settings:
    """Settings of one dequeuer."""

    spec: WorkerSpec
    """The worker to run."""
    lifeline_fd: int | None
    """Its end means that the whole system has ended. From CORTEX_LIFELINE_FD, else from the specification."""
    log_level: str
    document: Document | None = None
    """Absent where the document is a file that somebody else writes."""


def read(variables: Mapping[str, str]) -> Settings:
    """Settings from environment variables. Raises `SettingsError` when they or the file make no sense."""
    environment = Environment(variables)
    spec = _read_spec(Path(environment.text("CORTEX_WORKER_SPEC")), environment)
    lifeline_fd = spec.local.lifeline_fd if spec.local.HasField("lifeline_fd") else None
    if environment.optional(LIFELINE_VARIABLE):
        lifeline_fd = environment.integer(LIFELINE_VARIABLE, 0)
    document = read_document(variables) if environment.optional("CORTEX_JOB_SPEC_PARTS") else None
    return Settings(spec, lifeline_fd, environment.text("CORTEX_LOG_LEVEL", "INFO"), document)


def read_document(variables: Mapping[str, str]) -> Document:
    """Where the document is put together. Raises `SettingsError` when the variables do not say."""
    environment = Environment(variables)
    parts, directory = environment.text("CORTEX_JOB_SPEC_PARTS"), environment.text("CORTEX_JOB_SPEC_DIRECTORY")
    return Document(Path(parts), Path(directory))


def _know_oneself(spec: WorkerSpec, environment: Environment) -> None:
    """All pods of a job have one specification: which of them this is, the cluster says."""
    if spec.HasField("pod"):
        spec.worker = environment.integer(POD_WORKER_VARIABLE, 0)
        spec.worker_id = environment.text(WORKER_ID_VARIABLE)


def _read_spec(path: Path, environment: Environment) -> WorkerSpec:
    try:
        # A newer scheduler may say more than this dequeuer knows.
        spec = json_format.Parse(path.read_text(), WorkerSpec(), ignore_unknown_fields=True)
    except (OSError, UnicodeDecodeError, json_format.ParseError) as error:
        raise SettingsError(f"the worker's specification {path} cannot be read: {error}") from error
    _know_oneself(spec, environment)
    for field in ("job_id", "worker_id", "scheduler_address", "port"):
        if not getattr(spec, field):
            raise SettingsError(f"the worker's specification {path} has no {field}")
    return spec
