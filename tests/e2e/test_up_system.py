"""`cortex up` as a user starts it: one at a time, on ports that outlive its parts, and gone without a trace."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3

from tests.e2e.system import CORTEX, System, system
from tests.waiting import left_after, wait_for

pytestmark = pytest.mark.timeout(120)


def refused(*arguments: object, cwd: Path, code: int = 1) -> str:
    """Start it where it cannot; what it says."""
    done = subprocess.run(
        [CORTEX, "up", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == code, done
    assert done.stdout == ""
    return done.stderr


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for the tests that leave it as it was."""
    directory = tmp_path_factory.mktemp("up")
    (directory / "services").mkdir()  # of the user's: not ours
    (directory / "services" / "__init__.py").write_text("raise RuntimeError('the wrong services')")
    with system(directory) as found:
        yield found


def descendants(running: System) -> list[psutil.Process]:
    return psutil.Process(running.process.pid).children(recursive=True)


def test_a_second_one_on_the_same_data_directory_is_refused(running: System, tmp_path: Path) -> None:
    said = refused("--port", 0, "--grpc-port", 0, "--data-dir", running.data_dir, cwd=tmp_path)
    assert said.startswith(f"error: `cortex up` (process {running.process.pid}) already runs on {running.data_dir}")


def test_ports_in_use_are_named_with_the_option_that_changes_them(running: System, tmp_path: Path) -> None:
    http, grpc = (address.rsplit(":", 1)[1] for address in (running.url, running.grpc_address))
    assert f"error: port {http} on 127.0.0.1 is in use; choose another with --port" in refused(
        "--port", http, "--grpc-port", 0, cwd=tmp_path
    )
    assert f"error: port {grpc} on 127.0.0.1 is in use; choose another with --grpc-port" in refused(
        "--port", 0, "--grpc-port", grpc, cwd=tmp_path
    )


@pytest.mark.parametrize("part", ["services.gateway", "services.scheduler", "services.collector"])
def test_a_killed_part_comes_back_on_its_address(running: System, part: str) -> None:
    [before] = running.processes(part)
    before.kill()
    psutil.wait_procs([before])
    [after] = wait_for(f"a new {part}", lambda: running.processes(part), 2.0)
    assert after.pid != before.pid
    wait_for("readiness on the same port", lambda: ready(running.url), 20.0)
    host, port = running.grpc_address.rsplit(":", 1)
    wait_for("gRPC on the same port", lambda: connects(host, int(port)), 20.0)


def ready(url: str) -> bool:
    # Refused connections would raise: while the gateway is away, they wait in the backlog.
    return urllib3.request("GET", f"{url}/readyz", timeout=20, retries=False).status == 200


def connects(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def test_another_program_cannot_take_the_grpc_port_while_the_scheduler_is_away(running: System) -> None:
    host, port = running.grpc_address.rsplit(":", 1)
    [scheduler] = running.processes("services.scheduler")
    scheduler.kill()
    psutil.wait_procs([scheduler])
    with socket.socket() as thief, pytest.raises(OSError, match="in use"):
        thief.bind((host, int(port)))
    wait_for("the scheduler", lambda: connects(host, int(port)), 20.0)


def test_what_the_parts_write_is_kept(running: System) -> None:
    logs = running.data_dir / "logs" / "system"
    assert {file.name for file in logs.iterdir()} >= {"gateway.jsonl", "scheduler.jsonl"}


def test_kill_9_leaves_nothing_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with system(tmp_path) as first:
        first.deploy()
        job = first.submit([{"sleep": 0.01} for _ in range(300)], workers=2)
        wait_for("containers", lambda: len(first.containers()) == 2)
        below = descendants(first)
        first.process.kill()
        first.process.wait()
        assert not left_after(2.0, below)
        assert len(below) >= 7
    with system(tmp_path) as second:
        assert second.wait(job)["job_status"]["status"] == "succeeded"
        below = descendants(second)
        assert second.stop() == 0
        assert not left_after(0, below)


def test_ctrl_c_in_the_middle_of_a_job_ends_everything_in_time(tmp_path: Path) -> None:
    with system(tmp_path) as running:
        running.deploy()
        running.submit([{"sleep": 60}] * 4, workers=2)
        wait_for("containers", lambda: len(running.containers()) == 2)
        below = descendants(running)
        running.process.send_signal(signal.SIGINT)
        host, port = running.url.removeprefix("http://").split(":")
        wait_for("connections to be refused", lambda: not connects(host, int(port)), 5.0)
        assert running.process.poll() is None, "nobody is told that it is over before the workers are"
        assert running.process.wait(12) == 0  # ten seconds to drain, and the end itself
        assert not left_after(0, below)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 can be reached from other machines"),
        (["--host", "host.invalid"], "--host host.invalid: no such address"),
        (["--data-dir", "file"], "cannot use file as data directory: Not a directory"),
        (["--data-dir", "/proc/nothing"], "cannot use /proc/nothing as data directory"),
        (["--data-dir", "x" * 300], "as data directory: File name too long"),
        (["--data-dir", "broken"], "error: scheduler: "),
        (["--ledger", "mysql://h/d"], "--ledger mysql://h/d: the ledger is kept in PostgreSQL, at postgresql://"),
        (["--ledger", "postgresql://u:a@secret@h/d"], "--ledger holds a password"),
        (["--gpus", "-1"], "--gpus -1: give how many GPUs there are"),
    ],
)
def test_what_cannot_work_is_told_in_one_sentence(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "ledger.db").write_bytes(os.urandom(8192))
    said = refused("--port", 0, "--grpc-port", 0, *arguments, cwd=tmp_path)
    assert message in said
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1


def test_insecure_serves_every_address_and_says_so(tmp_path: Path) -> None:
    command: list[Any] = [CORTEX, "up", "--host", "0.0.0.0", "--insecure", "--port", "0", "--grpc-port", "0"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "everyone who can reach 0.0.0.0:" in process.stderr.readline()
        assert process.stdout.readline().startswith("cortex is ready at http://0.0.0.0:")
        process.terminate()
        process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0


def test_without_the_services_packages_it_says_what_to_install(tmp_path: Path) -> None:
    hide = "import sys; sys.modules['uvicorn'] = None\nfrom cortex.cli import main; sys.argv = ['cortex', 'up']; main()"
    done = subprocess.run([sys.executable, "-c", hide], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'cortex-batch[local]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
