"""The client that Python programs use: Python values in, Python values out.

Methods and results are those of Cortex's client as far as it has them: `deploy`, `deploy_from_file`, `get_api`,
`list_apis`, `get_job`, `refresh`, `delete`, `stop_job`. The others are ours.
All raise `cortex.exceptions.NotFound` for what does not exist and `CortexException` for everything else that fails.
"""

import json
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Unpack

from cortex.environments import Environment
from cortex.exceptions import CortexException
from cortex.fields import FileSelection, JobFields, WorkerScaling
from cortex.operator import Operator
from cortex.submission import Submission, encode_items, encode_lines, encode_value
from cortex.transport import Transport

Json = dict[str, Any]


class Client:
    """Deploys APIs to one environment, submits jobs to them and watches these."""

    def __init__(self, environment: Environment) -> None:
        self.env_name = environment.name
        self.env = {"name": environment.name, "operator_endpoint": environment.operator_endpoint}
        self.operator = Operator(Transport(environment))
        """The same routes with raw JSON."""

    # APIs

    def deploy(self, api_spec: Json, force: bool = True, wait: bool = False) -> Json:
        """Deploy one API, given as what would be its entry in a configuration file.

        On this machine its commands run in the directory where this is called. `force` deploys anew where nothing
        changed. `wait` changes nothing: a batch API is ready when this returns. Returns `{"api", "message", "error"}`.
        """
        import yaml

        del wait
        try:
            config = yaml.safe_dump([api_spec], sort_keys=False, allow_unicode=True).encode()
        except yaml.YAMLError as error:
            raise CortexException("client.invalid_api_spec", f"api_spec cannot be written as YAML: {error}") from error
        return self._deploy(config, str(Path.cwd() / "api_spec"), force)[0]

    def deploy_from_file(self, config_file: str | Path, force: bool = False, wait: bool = False) -> Json:
        """Deploy every API of a configuration file and return what became of the first, as Cortex's client does."""
        del wait
        return self.deploy_all_from_file(config_file, force)[0]

    def deploy_all_from_file(self, config_file: str | Path, force: bool = False) -> list[Json]:
        """Deploy every API of a configuration file and return what became of each, in the file's order."""
        return self._deploy(read_config_file(config_file), config_file_name(config_file), force)

    def _deploy(self, config: bytes, file_name: str, force: bool) -> list[Json]:
        results: list[Json] = json.loads(self.operator.deploy(config, file_name, force=force))
        for result in results:
            if result.get("error"):
                raise CortexException("client.deploy_failed", str(result["error"]))
        return results

    def get_api(self, api_name: str) -> Json:
        """One API: `spec`, `metadata`, `endpoint`, up to 10 `batch_job_statuses`, `api_versions`."""
        found: Json = json.loads(self.operator.api(api_name))[0]
        return found

    def list_apis(self) -> list[Json]:
        """All APIs, each with `metadata` and `batch_job_statuses`: the running jobs, else the latest."""
        found: list[Json] = json.loads(self.operator.apis())
        return found

    def refresh(self, api_name: str, force: bool = False) -> None:
        """Restart an API's replicas. Batch APIs have none, so that the server refuses this for them."""
        self.operator.refresh(api_name, force=force)

    def delete(self, api_name: str, keep_cache: bool = False) -> None:
        """Delete an API and stop its jobs."""
        self.operator.delete(api_name, keep_cache=keep_cache)

    # Jobs

    def submit_job(
        self,
        api_name: str,
        items: Iterable[Any] | None = None,
        *,
        workers: int | WorkerScaling,
        batch_size: int | None = None,
        file_path_lister: FileSelection | None = None,
        delimited_files: FileSelection | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[JobFields],
    ) -> Json:
        """Submit a job and return its description; the job is on disk then. Its id is `["job_id"]`.

        Its input is `items`, each any value that JSON can hold, or the files that one of `file_path_lister` (their
        paths are the items) and `delimited_files` (the JSON values in them are) selects. `fields` are those of
        `cortex.fields.JobFields`. The same `idempotency_key` gives the same job; where none is given, one is made, so
        that a connection that breaks cannot submit the job twice.
        """
        submission = _submission(items, workers, batch_size, file_path_lister, delimited_files, fields)
        job: Json = json.loads(self.operator.submit(api_name, submission.body(), idempotency_key=idempotency_key))
        return job

    def submit_stream(
        self,
        api_name: str,
        items: Iterable[Any],
        *,
        workers: int | WorkerScaling,
        batch_size: int,
        idempotency_key: str | None = None,
        **fields: Unpack[JobFields],
    ) -> Json:
        """Submit a job of any number of items, and return its description once the last one is on disk.

        Each item is sent as soon as `items` gives it, and forgotten: work starts on the first ones. If `items` raises,
        or the connection breaks, the job ends as `enqueue_failed`. The rest is as with `submit_job`.
        """
        head = _submission(None, workers, batch_size, None, None, fields).head()
        answer = self.operator.submit_stream(api_name, head, encode_lines(items), idempotency_key=idempotency_key)
        job: Json = json.loads(answer)
        return job

    def dry_run(
        self,
        api_name: str,
        items: Iterable[Any] | None = None,
        *,
        workers: int | WorkerScaling,
        batch_size: int | None = None,
        file_path_lister: FileSelection | None = None,
        delimited_files: FileSelection | None = None,
        **fields: Unpack[JobFields],
    ) -> list[str]:
        """Check what `submit_job` would submit, and submit nothing. Raises if it is refused.

        Returns the files that it selects; of very many only the first ones.
        """
        submission = _submission(items, workers, batch_size, file_path_lister, delimited_files, fields)
        *files, _all_is_well = self.operator.dry_run(api_name, submission.body())
        return [file.decode() for file in files if not file.startswith(b"... ")]

    def get_job(self, api_name: str, job_id: str) -> Json:
        """A job now: `job_status`, `metrics`, `endpoint`, `api_spec`."""
        job: Json = json.loads(self.operator.job(api_name, job_id))
        return job

    def watch_job(self, api_name: str, job_id: str) -> Iterator[Json]:
        """A job now, and again whenever it changed, to its end; each as `get_job` gives it.

        A restart of the deployment in between is waited for, half a minute at most.
        """
        return (json.loads(line) for line in self.operator.watch(api_name, job_id))

    def wait(self, api_name: str, job_id: str) -> Json:
        """Wait for a job's end and return it as `get_job` gives it. How it ended is in `["job_status"]["status"]`."""
        return deque(self.watch_job(api_name, job_id), maxlen=1)[0]

    def failed_batches(self, api_name: str, job_id: str) -> Iterator[Json]:
        """A job's failed batches by index: `index`, `attempts`, `http_status`, `error`, `time`, `items`, `state`.

        They are asked for as they are needed, however many there are.
        """
        for page in self.operator.batches(api_name, job_id, state="failed", page_size=1000):
            yield from json.loads(page)["batches"]

    def retry_job(
        self, api_name: str, job_id: str, *, workers: int | None = None, idempotency_key: str | None = None
    ) -> Json:
        """Run the failed batches of a job that is over again, as a new job; return its description.

        The new job has the old one's configuration and limits, and as many workers if not told otherwise.
        """
        job: Json = json.loads(self.operator.retry(api_name, job_id, workers=workers, idempotency_key=idempotency_key))
        return job

    def update_job(self, api_name: str, job_id: str, *, workers: int | None = None, paused: bool | None = None) -> Json:
        """Change a running job's number of workers, or whether it is paused; the job as `get_job` gives it."""
        given = {name: value for name, value in (("workers", workers), ("paused", paused)) if value is not None}
        job: Json = json.loads(self.operator.update(api_name, job_id, given))
        return job

    def scale_job(self, api_name: str, job_id: str, workers: int) -> Json:
        """Give a running job another number of workers."""
        return self.update_job(api_name, job_id, workers=workers)

    def pause_job(self, api_name: str, job_id: str) -> Json:
        """Hold a job's batches back. Those that are being worked on are finished."""
        return self.update_job(api_name, job_id, paused=True)

    def resume_job(self, api_name: str, job_id: str) -> Json:
        """Go on with a job that was paused."""
        return self.update_job(api_name, job_id, paused=False)

    def job_results(self, api_name: str, job_id: str, follow: bool = False) -> Iterator[Json]:
        """What the containers answered, if the job was submitted with `results`: `batch`, `reply`, in batch order.

        A batch that failed has no reply here. `follow` goes on until the job is over, restarts of the deployment too.
        """
        return (json.loads(line) for line in self.operator.results(api_name, job_id, follow=follow))

    def job_errors(self, api_name: str, job_id: str) -> Iterator[Json]:
        """A job's failed batches as one stream; what is told of each is as with `failed_batches`."""
        return (json.loads(line) for line in self.operator.errors(api_name, job_id))

    def stop_job(self, api_name: str, job_id: str, keep_cache: bool = False) -> None:
        """Stop a running job. `keep_cache` means nothing and is there because Cortex's client has it."""
        del keep_cache
        self.operator.stop(api_name, job_id)

    def job_logs(self, api_name: str, job_id: str, follow: bool = False) -> Iterator[Json]:
        """What a job's containers wrote, a line each: `time`, `worker`, `container`, `message`, `cortex.labels`.

        `follow` goes on until the job is over.
        """
        return (json.loads(line) for line in self.operator.logs(api_name, job_id, follow=follow))

    def job_trace(self, api_name: str, job_id: str) -> Json:
        """A job's spans as known now: `trace_id`, `spans`, `dropped_spans`."""
        trace: Json = json.loads(self.operator.trace(api_name, job_id))
        return trace


def _submission(
    items: Iterable[Any] | None,
    workers: int | WorkerScaling,
    batch_size: int | None,
    file_path_lister: FileSelection | None,
    delimited_files: FileSelection | None,
    fields: JobFields,
) -> Submission:
    if unknown := fields.keys() - JobFields.__annotations__.keys():
        raise TypeError(f"a job has no field {', '.join(sorted(unknown))}")
    config = fields.get("config")
    others = {name: value for name, value in fields.items() if name != "config"}
    files = {"file_path_lister": file_path_lister, "delimited_files": delimited_files}
    for name, selection in files.items():
        others[name] = selection and {"batch_size": batch_size, **selection}
    return Submission(
        {"workers": workers, **others},
        config=None if config is None else encode_value("config", config),
        items=None if items is None else encode_items(items),
        batch_size=batch_size,
    )


def config_file_name(path: str | Path) -> str:
    """The file's one name: its containers run in its directory, however the way there is written."""
    path = Path(path)
    return str(path.parent.resolve() / path.name)


def read_config_file(path: str | Path) -> bytes:
    """A configuration file's bytes. Raises `CortexException` when it cannot be read, or is empty."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise CortexException("client.file_not_readable", f"cannot read {path}: {error.strerror}") from error
    if not text:
        raise CortexException("client.file_empty", f"{path} is empty: it must hold a YAML list of APIs")
    return text
