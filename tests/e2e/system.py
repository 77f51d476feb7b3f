"""The whole system as a user starts it: `cortex up` as a real process, its parts found by pid, a client of it."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from cortex._client import Client
from cortex.environments import Environment
from tests.waiting import left_after

CORTEX = Path(sys.executable).with_name("cortex")
CONTAINER = Path(__file__).with_name("container.py")
READY = re.compile(r"cortex is ready at (\S+) \(gRPC (\S+)\)")
START_SECONDS = 30


class System:
    """A running `cortex up`."""

    def __init__(self, directory: Path, environ: Mapping[str, str] | None = None, options: Sequence[str] = ()) -> None:
        """`options` are more of those of `cortex up`."""
        self.data_dir = directory / "data"
        self.notes = directory / "notes"
        self.notes.mkdir(exist_ok=True)
        self._log = (directory / "up.log").open("ab")
        self.process = subprocess.Popen(
            [CORTEX, "up", "--port", "0", "--grpc-port", "0", "--data-dir", self.data_dir, *options],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **(environ or {})},
            cwd=directory,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        ready = READY.match(line)
        assert ready, f"{line!r}; {(directory / 'up.log').read_text()}"
        self.url, self.grpc_address = ready[1], ready[2]
        self.client = Client(Environment.of("test", self.url))

    def deploy(self, name: str = "hello", *, env: dict[str, str] | None = None, **pod: Any) -> None:
        """Deploy the journeys' container."""
        container = {
            "name": "api",
            "image": "none",
            "command": [sys.executable, str(CONTAINER)],
            "env": {"NOTES": str(self.notes), "WHERE": "$(CORTEX_PORT)", **(env or {})},
            **pod.pop("container", {}),
        }
        self.client.deploy({"name": name, "kind": "BatchAPI", "pod": {**pod, "containers": [container]}})

    def submit(self, items: list[Any], name: str = "hello", **fields: Any) -> str:
        """Submit a job; its id."""
        fields = {"batch_size": 1, "workers": 1, **fields}
        return str(self.client.submit_job(name, items=items, **fields)["job_id"])

    def job(self, job_id: str, name: str = "hello") -> dict[str, Any]:
        """The job's status now."""
        answer: dict[str, Any] = self.client.get_job(name, job_id)["job_status"]
        return answer

    def wait(self, job_id: str, name: str = "hello") -> dict[str, Any]:
        """Wait for the job's end; its `GET` answer."""
        answer: dict[str, Any] = self.client.wait(name, job_id)
        return answer

    def processes(self, module: str) -> list[psutil.Process]:
        """The parts of this system that run a module, such as `services.dequeuer`."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if module in process.cmdline():
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def containers(self) -> list[psutil.Process]:
        """The users' containers' own processes (not the sandbox around them)."""
        return [process for process in self.processes(str(CONTAINER)) if "bwrap" not in process.name()]

    def done(self) -> Counter[str]:
        """How often each item was done, by its JSON."""
        counts: Counter[str] = Counter()
        for file in self.notes.iterdir():
            if file.name != "COMPLETED":
                for line in file.read_text().splitlines():
                    counts.update(json.dumps(item) for item in json.loads(line)["items"])
        return counts

    def completions(self) -> list[dict[str, Any]]:
        """The calls of /on-job-complete."""
        file = self.notes / "COMPLETED"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def stop(self) -> int:
        """Stop it as a user does, with Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20)

    def close(self) -> None:
        """Make sure that nothing is left of it."""
        if self.process.poll() is None:
            children = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            self.process.wait()
            left_after(10.0, children)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()


@contextmanager
def system(directory: Path, environ: Mapping[str, str] | None = None, options: Sequence[str] = ()) -> Iterator[System]:
    """A system for one test."""
    running = System(directory, environ, options)
    try:
        yield running
    finally:
        running.close()
