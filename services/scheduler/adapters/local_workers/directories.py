"""The files of local workers.

    workers/JOB/spec/job.json    /cortex/spec of all of the job's containers
    workers/JOB/SLOT/            one worker
        spec -> ../spec
        client/cli.yaml          /cortex/client
        mnt/                     /mnt: the worker's containers share it, a new worker finds it empty
        worker.json              what its dequeuer is told; holds its token, hence readable by us alone
    logs/API/JOB/SLOT/           kept output; stays when the job is over

A file is written beside its place and moved there: readers find the old one or the new one, never a part.
"""

import os
import shutil
import tempfile
from pathlib import Path

import yaml

ENVIRONMENT_NAME = "cortex"
"""How `cli.yaml` calls this deployment."""


class WorkerDirectories:
    """Makes and removes them, below one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._workers = data_dir / "workers"
        self._logs = data_dir / "logs"

    def job(self, job_id: str) -> Path:
        """Everything of a job's workers, their output excepted."""
        return self._workers / job_id

    def worker(self, job_id: str, slot: int) -> Path:
        """One worker's own."""
        return self.job(job_id) / str(slot)

    def spec_file(self, job_id: str, slot: int) -> Path:
        """What the dequeuer is told."""
        return self.worker(job_id, slot) / "worker.json"

    def logs(self, api_name: str, job_id: str, slot: int) -> Path:
        """Where a worker's output is kept."""
        return self._logs / api_name / job_id / str(slot)

    def write_job_spec(self, job_id: str, document: str) -> None:
        """Make this the job's `/cortex/spec/job.json`. Raises OSError."""
        directory = self.job(job_id) / "spec"
        directory.mkdir(parents=True, exist_ok=True)
        _replace(directory / "job.json", document, 0o644)

    def make(self, api_name: str, job_id: str, slot: int, operator_endpoint: str, worker_spec: str) -> None:
        """Everything that a new worker finds; what an earlier one of its slot left is removed. Raises OSError."""
        worker = self.worker(job_id, slot)
        if worker.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{slot}-", dir=self.job(job_id)))
            worker.rename(old / "worker")
            shutil.rmtree(old, ignore_errors=True)  # what a container made read-only goes with the job, or stays
        for directory in (self.job(job_id) / "spec", worker / "client", worker / "mnt"):
            directory.mkdir(parents=True, exist_ok=True)
        (worker / "spec").symlink_to("../spec")
        client = {
            "default_environment": ENVIRONMENT_NAME,
            "environments": [{"name": ENVIRONMENT_NAME, "operator_endpoint": operator_endpoint}],
        }
        _replace(worker / "client" / "cli.yaml", yaml.safe_dump(client, sort_keys=False), 0o644)
        _replace(self.spec_file(job_id, slot), worker_spec, 0o600)
        self.logs(api_name, job_id, slot).mkdir(parents=True, exist_ok=True)

    def remove(self, job_id: str) -> None:
        """Remove a job's directory, as far as the machine lets us."""
        shutil.rmtree(self.job(job_id), ignore_errors=True)


def _replace(path: Path, text: str, mode: int) -> None:
    """Put a file in place. Not synced: what is lost with the machine's power, the next worker's start writes again."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)
