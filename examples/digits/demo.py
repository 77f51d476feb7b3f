"""The whole system at work, from nothing to a checked result: `make demo`, or `python -m examples.digits.demo`.

It starts `cortex up` in a temporary directory, deploys the example, submits a job, follows it to its end, shows what
came of it and checks everything that can be known about it. Exit code 0 means that all of it was right.
"""

import json
import math
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from examples.digits.items import items

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent  # where this environment's `cortex` and `python` are
CORTEX = str(BIN / "cortex")
WORKERS = 3
BATCH_SIZE = 2  # small, so that there is something to watch
START_S = 60.0
STOP_S = 30.0
TRACE_S = 10.0


class DemoError(Exception):
    """Something was not as it should be; the message says what."""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="cortex-demo-") as name:
        try:
            run(Path(name))
        except DemoError as error:
            print(f"\nThe demo failed: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    print("\nAll of it was right.")
    return 0


def run(directory: Path) -> None:
    say(1, "starting the system (cortex up)")
    with system(directory) as cortex:
        say(2, "deploying examples/digits")
        results = directory / "results"
        cortex.show("deploy", str(prepare(directory / "digits", results)))

        item_file = directory / "items.ndjson"
        count = write_items(item_file)
        say(3, f"submitting {count} digits, {BATCH_SIZE} a batch, to {WORKERS} workers that learn when they start")
        options = ["--batch-size", str(BATCH_SIZE), "--workers", str(WORKERS)]
        cortex.show("submit", "digits", "--items", str(item_file), *options, "--watch")

        job = cortex.json("get", "digits")[0]["batch_job_statuses"][0]["job_id"]
        say(4, "the job, and what the example made of it")
        cortex.show("get", "digits", job)
        summary = read_summary(results / job / "accuracy.json")
        files = len(list((results / job).glob("*.ndjson")))
        print(f"\naccuracy {summary['accuracy']:.1%}: {summary['correct']} of {summary['items']} digits recognised,")
        print(f"gathered from the files of {files} of the {WORKERS} workers")

        say(5, "where the time went")
        trace = whole_trace(cortex, job)
        cortex.show("trace", "digits", job)

        check_job(cortex.json("get", "digits", job), count)
        check_results(results / job, summary, count)
        check_trace(trace)


def say(step: int, what: str) -> None:
    print(f"\n{step}/5 {what}", flush=True)


def prepare(directory: Path, results: Path) -> Path:
    """A copy of the example that writes its results where we look for them. Returns its configuration file."""
    shutil.copytree(HERE, directory, ignore=shutil.ignore_patterns("__pycache__"))
    api_file = directory / "cortex.yaml"
    apis = yaml.safe_load(api_file.read_text())
    apis[0]["pod"]["containers"][0]["env"]["RESULTS_DIR"] = str(results)
    api_file.write_text(yaml.safe_dump(apis, sort_keys=False))
    return api_file


def write_items(path: Path) -> int:
    lines = [json.dumps(item) for item in items()]
    path.write_text("\n".join(lines) + "\n")
    return len(lines)


class Cortex:
    """The `cortex` command, pointed at the system of this demo."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    def show(self, *arguments: str) -> None:
        """Run a command as a person would, in this terminal."""
        done = subprocess.run([CORTEX, *arguments], env=self._environment)
        if done.returncode != 0:
            raise DemoError(f"`cortex {' '.join(arguments)}` ended with exit code {done.returncode}")

    def json(self, *arguments: str) -> Any:
        """Run a command as a program would."""
        command = [CORTEX, *arguments, "--output", "json"]
        done = subprocess.run(command, env=self._environment, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise DemoError(f"`cortex {' '.join(arguments)} --output json` ended with exit code {done.returncode}")
        return json.loads(done.stdout)


@contextmanager
def system(directory: Path) -> Iterator[Cortex]:
    """`cortex up`, from its ready line to its end by Ctrl-C's signal."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},  # traces stay here
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",  # the example's `python` is this one
        "CORTEX_CLI_CONFIG_DIR": str(directory / "client"),
    }
    command = [CORTEX, "up", "--port", "0", "--grpc-port", "0", "--data-dir", str(directory / "data")]
    with (directory / "up.log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        try:
            url = ready_url(process)
            cortex = Cortex(environment)
            cortex.show("env", "configure", "demo", "--operator-endpoint", url)
            yield cortex
        except DemoError:
            show_logs([directory / "up.log", *sorted((directory / "data" / "logs" / "system").glob("*.jsonl"))])
            raise
        finally:
            stop(process)


def show_logs(paths: list[Path]) -> None:
    """What each part of the system said last."""
    for path in paths:
        lines = path.read_text().splitlines()[-10:]
        print(f"\n{path.name}:", *lines, sep="\n  ", file=sys.stderr)


def ready_url(process: "subprocess.Popen[str]") -> str:
    """Wait for the one line that says where the system is."""
    assert process.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=lambda out: lines.put(out.readline()), args=[process.stdout], daemon=True).start()
    try:
        line = lines.get(timeout=START_S)
    except queue.Empty:
        raise DemoError(f"`cortex up` was not ready after {START_S:.0f} s") from None
    print(line, end="")
    words = line.split()
    if words[:4] != ["cortex", "is", "ready", "at"]:
        raise DemoError("`cortex up` ended before it was ready")
    return words[4]


def stop(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGINT)
    try:
        code = process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise DemoError(f"`cortex up` did not end within {STOP_S:.0f} s after SIGINT") from None
    if code != 0 and sys.exc_info()[0] is None:
        raise DemoError(f"`cortex up` ended with exit code {code} after SIGINT")


def read_summary(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise DemoError(f"the worker that got /on-job-complete did not write {path.name}")
    summary: dict[str, Any] = json.loads(path.read_text())
    return summary


def whole_trace(cortex: Cortex, job: str) -> list[dict[str, Any]]:
    """The job's spans, when all are there: they travel a moment behind what they tell of, each service's by itself."""
    deadline = time.monotonic() + TRACE_S
    while True:
        spans: list[dict[str, Any]] = cortex.json("trace", "digits", job)["spans"]
        ended = {"cortex-scheduler job", "cortex-dequeuer on-job-complete"} <= kinds(spans)
        if (ended and not orphans(spans)) or time.monotonic() > deadline:
            return spans
        time.sleep(0.2)


def orphans(spans: list[dict[str, Any]]) -> list[str]:
    """Spans whose cause is missing."""
    known = {span["span_id"] for span in spans}
    return [span["name"] for span in spans if span["parent_span_id"] and span["parent_span_id"] not in known]


def kinds(spans: list[dict[str, Any]]) -> set[str]:
    return {f"{span['service']} {span['name']}" for span in spans}


def check_job(body: dict[str, Any], items: int) -> None:
    job, metrics = body["job_status"], body["metrics"]
    batches = math.ceil(items / BATCH_SIZE)
    expect("the job's status", job["status"], "succeeded")
    expect("the job's batches", job["total_batch_count"], batches)
    expect("batches by state", job["batch_counts"], {"pending": 0, "leased": 0, "succeeded": batches, "failed": 0})
    expect("successful attempts", metrics["succeeded"], batches)
    expect("failed attempts", metrics["failed"], 0)


def check_results(directory: Path, summary: dict[str, Any], count: int) -> None:
    lines = [json.loads(line) for path in directory.glob("*.ndjson") for line in path.read_text().splitlines()]
    expect("items with a prediction", {line["id"] for line in lines}, {item["id"] for item in items()})
    expect("predictions written", len(lines), count)
    expect("items in the summary", summary["items"], count)
    if summary["accuracy"] < 0.9:
        raise DemoError(f"the accuracy is {summary['accuracy']:.1%}, less than 90%")


def check_trace(spans: list[dict[str, Any]]) -> None:
    services = {span["service"] for span in spans}
    for service in ("cortex-gateway", "cortex-scheduler", "cortex-dequeuer"):
        if service not in services:
            raise DemoError(f"the trace has no span of {service}, only of {', '.join(sorted(services)) or 'nobody'}")
    if "cortex-dequeuer on-job-complete" not in kinds(spans):
        raise DemoError("the trace does not show /on-job-complete")
    expect("spans without the span that caused them", orphans(spans), [])


def expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise DemoError(f"{what}: found {found}, expected {wanted}")


if __name__ == "__main__":
    sys.exit(main())
