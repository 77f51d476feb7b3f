"""The whole system as a user runs it: `cortex up` with its real processes, a client over HTTP and gRPC.

Data is kept below the working directory, as `cortex up` does by default: a temporary directory in memory would make
every fsync free.
"""

import http.client
import json
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil

from cortex.batch.v1 import batch_service_pb2 as pb
from cortex.batch.v1.batch_service_pb2_grpc import BatchServiceStub
from cortex.batch.v1.resources_pb2 import Job

READY = re.compile(r"cortex is ready at http://127\.0\.0\.1:(\d+) \(gRPC (127\.0\.0\.1:\d+)\)")
API = "bench"
INPUTS = "inputs"
STOP_SECONDS = 15.0
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
JOB_SECONDS = 120
"""A job that takes longer hangs: it is stopped, and the benchmark fails."""

FINAL = frozenset(
    (
        Job.STATUS_SUCCEEDED,
        Job.STATUS_ENQUEUE_FAILED,
        Job.STATUS_COMPLETED_WITH_FAILURES,
        Job.STATUS_WORKER_ERROR,
        Job.STATUS_WORKER_OOM,
        Job.STATUS_TIMED_OUT,
        Job.STATUS_STOPPED,
        Job.STATUS_UNEXPECTED_ERROR,
    )
)


@dataclass(frozen=True)
class Submitted:
    """An accepted job."""

    job_id: str
    asked: float
    """When the request was sent, on the monotonic clock."""
    answered: float
    """When its answer was read."""


@dataclass(frozen=True)
class Seen:
    """One message of WatchJob."""

    at: float
    """When it came, on the monotonic clock."""
    wall_ns: int
    """The same on the wall clock."""
    job: Job

    @property
    def final_batches(self) -> int:
        """Batches with an outcome that is on disk."""
        return self.job.batch_counts.succeeded + self.job.batch_counts.failed


class System:
    """A running `cortex up`."""

    def __init__(
        self, process: psutil.Process, port: int, grpc_address: str, started_in: float, directory: Path
    ) -> None:
        self.process = process
        self.started_in = started_in
        """Seconds from its start to its ready line."""
        self.directory = directory
        """Where it keeps its data."""
        self.inputs = directory.resolve() / INPUTS
        """A directory whose files its jobs may read."""
        self._port = port
        options = [("grpc.max_send_message_length", MAX_MESSAGE_BYTES)]
        self._channel = grpc.insecure_channel(grpc_address, options)
        self._stub = BatchServiceStub(self._channel)

    def deploy(self, command: Sequence[str], max_concurrency: int = 8) -> None:
        """Deploy the one API under a container's command."""
        container = {"name": "api", "image": "bench", "command": list(command)}
        config = [
            {"name": API, "kind": "BatchAPI", "pod": {"max_concurrency": max_concurrency, "containers": [container]}}
        ]
        self._stub.DeployApis(pb.DeployApisRequest(file_name="bench.yaml", config=json.dumps(config).encode()))

    @property
    def ledger_bytes(self) -> int:
        """The size of the ledger as it would be without its write-ahead log."""
        with closing(sqlite3.connect(f"file:{self.directory / 'ledger.db'}?mode=ro", uri=True)) as ledger:
            (pages,), (size,) = (ledger.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
        return int(pages * size)

    def submit(
        self, items: Sequence[str], workers: int, batch_size: int = 1, fields: Mapping[str, object] | None = None
    ) -> Submitted:
        """Submit items, given as JSON text, over HTTP. `fields` are the job's others."""
        return self._submit(
            workers, fields or {}, f'"item_list":{{"batch_size":{batch_size},"items":[{",".join(items)}]}}'
        )

    def submit_file(self, file: Path, workers: int, batch_size: int) -> Submitted:
        """Submit the JSON values in a file."""
        selection = {"s3_paths": [file.as_uri()], "batch_size": batch_size}
        return self._submit(workers, {}, f'"delimited_files":{json.dumps(selection)}')

    def _submit(self, workers: int, fields: Mapping[str, object], given: str) -> Submitted:
        others = json.dumps({"workers": workers, "timeout": JOB_SECONDS, **fields})
        body = f"{others[:-1]},{given}}}".encode()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.connect()
        asked = time.monotonic()
        connection.request("POST", f"/batch/{API}", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        answered = time.monotonic()
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"the submission was answered {answer.status}: {text.decode()}")
        return Submitted(json.loads(text)["job_id"], asked, answered)

    def stream(self, messages: Iterator[pb.SubmitJobStreamRequest]) -> Iterator[pb.SubmitJobStreamResponse]:
        """Submit a job whose items come one after the other; what the scheduler tells of it meanwhile."""
        answers: Iterator[pb.SubmitJobStreamResponse] = self._stub.SubmitJobStream(messages)
        return answers

    def watch(self, job_id: str, interval: float = 0.0) -> Iterator[Seen]:
        """What WatchJob shows, to the job's final status."""
        request = pb.WatchJobRequest(api_name=API, job_id=job_id, min_interval_seconds=interval)
        for answer in self._stub.WatchJob(request):
            yield Seen(time.monotonic(), time.time_ns(), answer.job)

    def stop(self, job_id: str) -> None:
        """Stop a job."""
        self._stub.StopJob(pb.StopJobRequest(api_name=API, job_id=job_id))

    def await_no_workers(self) -> None:
        """Return when the last job's workers are gone, so that they do not count for the next one."""
        deadline = time.monotonic() + STOP_SECONDS
        while any("services.dequeuer" in command for command in alive(self.process).values()):
            if time.monotonic() > deadline:
                raise RuntimeError("the workers of a job that is over do not end")
            time.sleep(0.02)

    def close(self) -> None:
        """Let go of the connection."""
        self._channel.close()


def must_succeed(seen: Seen) -> None:
    """Raise unless the job has succeeded."""
    if seen.job.status != Job.STATUS_SUCCEEDED:
        raise RuntimeError(f"the job ended as {Job.Status.Name(seen.job.status)}: {seen.job.reason or 'no reason'}")


def alive(process: psutil.Process) -> dict[psutil.Process, list[str]]:
    """The descendants that live and can be looked at, each with its command line: asked again it may be gone."""
    found = {}
    for child in process.children(recursive=True):
        try:
            if child.status() != psutil.STATUS_ZOMBIE and (command := child.cmdline()):
                found[child] = command
        except psutil.NoSuchProcess:
            continue
    return found


@contextmanager
def running() -> Iterator[System]:
    """The system, ready; ended at the end."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=".") as directory:
        inputs = Path(directory).resolve() / INPUTS
        inputs.mkdir()
        command = [
            *(str(Path(sys.executable).with_name("cortex")), "up"),
            *("--port", "0", "--grpc-port", "0", "--data-dir", directory, "--input-root", str(inputs)),
        ]
        messages = Path(directory, "messages")
        began = time.monotonic()
        with (
            messages.open("w") as stderr,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
        ):
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                took = time.monotonic() - began
                found = READY.search(line)
                if found is None:
                    raise RuntimeError(f"`cortex up` did not become ready: {line}{messages.read_text()}")
                system = System(psutil.Process(process.pid), int(found[1]), found[2], took, Path(directory))
                try:
                    yield system
                finally:
                    system.close()
            finally:
                process.terminate()
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
