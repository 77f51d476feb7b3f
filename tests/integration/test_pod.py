"""Containers as real processes: what they see, how they end, and what is kept of them."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from google.protobuf import json_format

from cortex.batch.v1.worker_spec_pb2 import Container, EnvVar, WorkerSpec
from services.dequeuer.pod import cgroups, environment, sandbox
from tests.integration.pod_kit import WAIT_SECONDS, Fifo, Running, entries, make_spec, messages, shell

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="namespaces and cgroups are Linux's")
pytestmark = needs_linux


def processes_of(worker_id: str) -> list[int]:
    """Every live process of this machine that belongs to a worker."""
    found = []
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(environment.WORKER_ID_VARIABLE)
            if mark == worker_id and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


async def output_of(spec: WorkerSpec, container: str = "api", **environ: str) -> list[str]:
    """Run until the container's first end; what it wrote until then."""
    async with Running(spec, {**os.environ, **environ}) as running:
        await running.seen.exit_of(container)
        return messages(spec, container)


async def test_a_container_finds_the_contracts_paths_and_variables(tmp_path: Path) -> None:
    script = (
        "pwd; cat /cortex/spec/job.json; echo; ls /cortex; ls -A /mnt;"
        'echo "$CORTEX_PORT $CORTEX_LOG_LEVEL $CORTEX_CLI_CONFIG_DIR $CORTEX_VERSION";'
        'echo "$MINE $THEIRS ${CORTEX_DATA_DIR-unset}";'
        "echo '$(CORTEX_PORT) $$(CORTEX_PORT)'"
    )
    spec = make_spec(tmp_path, shell("api", script, env=[EnvVar(name="MINE", value="$(CORTEX_PORT)0")]))
    lines = await output_of(spec, THEIRS="from the shell", CORTEX_DATA_DIR="/ours")
    assert lines[:4] == [str(tmp_path / "work"), '{"job_id": "j1"}', "client", "spec"]
    assert lines[4] == f"4321 INFO /cortex/client {environment.version()}"
    assert lines[5:] == ["43210 from the shell unset", "4321 $(CORTEX_PORT)"]


async def test_a_container_inherits_no_descriptor_of_ours(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        spec = make_spec(tmp_path, shell("api", "exec ls /proc/self/fd"))
        assert await output_of(spec) == ["0", "1", "2", "3"]  # 3 is the directory that ls reads
    finally:
        os.close(reading)
        os.close(writing)


async def test_a_replaced_job_specification_is_seen_by_a_running_container(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    ready, go = Fifo(tmp_path / "ready"), Fifo(tmp_path / "go")
    script = f"cat /cortex/spec/job.json; echo; echo > {ready.path}; cat {go.path}; cat /cortex/spec/job.json; echo"
    spec.containers.append(shell("api", script))
    async with Running(spec) as running:
        await ready.read()
        (tmp_path / "new").write_text('{"total_batch_count": 7}')
        (tmp_path / "new").replace(tmp_path / "spec" / "job.json")
        await go.write("go\n")
        await running.seen.exit_of("api")
    assert messages(spec, "api") == ['{"job_id": "j1"}', "go", '{"total_batch_count": 7}']


async def test_mnt_is_shared_by_a_workers_containers_and_by_no_other_worker(tmp_path: Path) -> None:
    done = [Fifo(tmp_path / f"done{number}") for number in range(2)]
    specs = []
    for number in range(2):
        wrote = f"echo {number} > /mnt/note; echo > {done[number].path}; exec sleep 1000"
        read = f"cat {done[number].path}; cat /mnt/note; ls /mnt"
        specs.append(make_spec(tmp_path / str(number), shell("writer", wrote), shell("reader", read)))
    async with Running(specs[0]) as one, Running(specs[1]) as two:
        for number, running in enumerate((one, two)):
            await running.seen.exit_of("reader")
            assert messages(specs[number], "reader")[:3] == ["", str(number), "note"]


async def test_a_crash_has_a_reason_is_restarted_and_counted_until_a_batch_is_finished(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, shell("api", "echo 'no module named foo' >&2; exit 3"))
    async with Running(spec) as running:
        seen, pod = running.seen, running.pod
        await seen.until(lambda: pod.state.failed_starts == 2)
        first = seen.exits[0]
        assert (first.code, first.signal, first.out_of_memory) == (3, None, False)
        assert first.reason.startswith("exited with code 3 after ")
        assert first.reason.endswith("; last output: no module named foo")
        assert pod.state.backing_off
        assert not pod.state.running
        assert pod.state.reason == f"container `api` {seen.exits[-1].reason}"
        pod.made_progress()
        assert pod.state.failed_starts == 0
        told = [str(entry["message"]) for entry in entries(spec, "api")]
        assert "cortex: container `api` is started again (start 2)" in told


async def test_a_server_that_exits_with_0_has_failed_too(tmp_path: Path) -> None:
    async with Running(make_spec(tmp_path, shell("api", "exit 0"))) as running:
        ended = await running.seen.exit_of("api")
        assert "not supposed to end" in ended.reason
        assert running.pod.state.failed_starts >= 1


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            ["pyhton", "app.py"],
            "cannot be started: its command `pyhton` was not found on its PATH, which is that of `cortex up` where "
            "`env` sets no other (install it, or write its full path)",
        ),
        (["./run.sh"], "cannot be started: its command `./run.sh` does not exist (looked for {work}/run.sh)"),
        (
            ["./plain.txt"],
            "cannot be started: its command `./plain.txt` is not executable (try: chmod +x {work}/plain.txt)",
        ),
        (
            ["./script"],
            "cannot be started: its command `./script` is a script of `/no/such/python`, as its first line says, and "
            "that does not exist (install it, or correct the line)",
        ),
        (["echo", "a\0b"], "cannot be started: its command or environment holds a zero byte"),
    ],
)
async def test_a_command_that_cannot_run_is_told_so_that_it_can_be_mended(
    tmp_path: Path, command: list[str], expected: str
) -> None:
    spec = make_spec(tmp_path, Container(name="api", command=command))
    (tmp_path / "work" / "plain.txt").write_text("text")
    (tmp_path / "work" / "script").write_text("#! /no/such/python -u\n")
    (tmp_path / "work" / "script").chmod(0o700)
    async with Running(spec, {"PATH": "/usr/bin:/bin"}) as running:
        ended = await running.seen.exit_of("api")
        assert ended.reason == expected.format(work=tmp_path / "work")
        await running.seen.until(lambda: running.pod.state.cannot_start)


async def test_a_command_that_was_there_once_is_waited_for(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nrm $0; exit 1\n")
    program.chmod(0o700)
    async with Running(make_spec(tmp_path, Container(name="api", command=[str(program)]))) as running:
        await running.seen.until(lambda: len(running.seen.exits) == 2)
        assert "does not exist" in running.seen.exits[1].reason
        assert not running.pod.state.cannot_start


async def test_a_bare_sigkill_is_no_evidence_of_memory_exhaustion(tmp_path: Path) -> None:
    before = cgroups.machine_oom_kills()
    spec = make_spec(tmp_path, shell("api", "kill -9 $$$$"), shell("limited", "kill -9 $$$$", memory_bytes=256 << 20))
    async with Running(spec) as running:
        for name in ("api", "limited"):
            ended = await running.seen.exit_of(name)
            assert ended.signal == signal.SIGKILL
            if cgroups.machine_oom_kills() == before:  # else the machine itself ran out, and says so
                assert not ended.out_of_memory
                assert ended.reason.startswith("was ended by signal 9 (SIGKILL) after ")


GREEDY = "x = b'x' * (400 << 20); import time; time.sleep(60)"


async def assert_out_of_memory(tmp_path: Path) -> None:
    hungry = Container(name="api", command=[sys.executable, "-S", "-c", GREEDY], memory_bytes=100 << 20)
    async with Running(make_spec(tmp_path, hungry)) as running:
        ended = await running.seen.exit_of("api")
        assert ended.out_of_memory
        assert ended.signal == signal.SIGKILL
        assert ended.reason.startswith("used more memory")
        assert ended.reason.endswith("than its limit (compute.mem 100Mi)")
        assert running.pod.state.out_of_memory


async def test_the_kernel_holds_a_container_to_its_memory_and_leaves_evidence(tmp_path: Path) -> None:
    hierarchy = cgroups.find()
    if hierarchy is None:
        pytest.skip("this machine lets us make no memory cgroups")
    await assert_out_of_memory(tmp_path)
    assert list(hierarchy.base.glob(f"{cgroups.PREFIX}{os.getpid()}-*")) == []


async def test_without_cgroups_memory_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "find", lambda: None)
    await assert_out_of_memory(tmp_path)


async def test_leftovers_of_dead_dequeuers_are_removed() -> None:
    hierarchy = cgroups.find()
    if hierarchy is None:
        pytest.skip("this machine lets us make no memory cgroups")
    ended = subprocess.Popen(["true"])
    ended.wait()
    leftover = hierarchy.base / f"{cgroups.PREFIX}{ended.pid}-api"
    leftover.mkdir()
    cgroups.find()
    assert not leftover.exists()


async def test_stop_lets_a_container_finish(tmp_path: Path) -> None:
    ready = Fifo(tmp_path / "ready")
    script = f"trap 'echo bye; exit 0' TERM; echo > {ready.path}; while :; do sleep 1000 & wait; done"
    spec = make_spec(tmp_path, shell("api", script))
    async with Running(spec) as running:
        await ready.read()
        await running.pod.stop(WAIT_SECONDS)
        assert running.seen.exits == []  # it was asked to
    assert messages(spec, "api")[-1] == "bye"
    assert processes_of(spec.worker_id) == []


async def test_stop_ends_a_container_that_does_not_listen(tmp_path: Path) -> None:
    ready = Fifo(tmp_path / "ready")
    spec = make_spec(tmp_path, shell("api", f"trap '' TERM; echo > {ready.path}; while :; do sleep 1000; done"))
    async with Running(spec) as running:
        await ready.read()
        began = time.monotonic()
        await running.pod.stop(0.3)
        assert time.monotonic() - began >= 0.3
        assert processes_of(spec.worker_id) == []


async def test_a_container_is_started_again_when_it_should_be(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, shell("api", "exec sleep 1000"))
    async with Running(spec) as running:
        running.pod.restart("api", "its liveness probe fails: no answer")
        await running.seen.until(lambda: running.seen.started == ["api", "api"])
        assert running.seen.exits[0].reason == "was ended: its liveness probe fails: no answer"
        assert running.pod.state.failed_starts == 1


def left_running(worker_id: str, word: str) -> list[int]:
    """Processes of the worker's with this word in their command that nobody has killed."""
    found = []
    for pid in processes_of(worker_id):
        with contextlib.suppress(psutil.Error, OSError):  # it has just ended
            status = Path(f"/proc/{pid}/status").read_text()
            pending = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("ShdPnd"))
            if word in psutil.Process(pid).cmdline() and not pending & 1 << (signal.SIGKILL - 1):
                found.append(pid)
    return found


async def test_exec_runs_inside_the_container(tmp_path: Path) -> None:
    spec = make_spec(tmp_path, shell("api", "exec sleep 1000"))
    (tmp_path / "mnt" / "note").write_text("")
    async with Running(spec) as running:
        pod = running.pod
        assert await pod.exec("api", ["test", "-e", "/mnt/note"], WAIT_SECONDS) == 0
        assert await pod.exec("api", ["/bin/sh", "-c", "test $(CORTEX_PORT) = 4321 && exit 7"], WAIT_SECONDS) == 7
        assert await pod.exec("api", ["pyhton"], WAIT_SECONDS) in (126, 127)  # as a shell says it
        with pytest.raises(TimeoutError):
            await pod.exec("api", ["/bin/sh", "-c", "sleep 4242 & sleep 4242"], 0.2)
        assert left_running(spec.worker_id, "4242") == []


async def test_output_is_kept_line_by_line(tmp_path: Path) -> None:
    script = r"printf 'one\ntwo\r\n 1%%\r 2%%\rbad \377\n' >&2; printf 'no end'"
    spec = make_spec(tmp_path, shell("api", script))
    assert await output_of(spec) == ["one", "two", " 1%", " 2%", "bad \ufffd", "no end"]
    entry = entries(spec, "api")[0]
    assert list(entry) == ["time", "worker", "container", "message", "cortex.labels"]
    assert (entry["worker"], entry["container"]) == (3, "api")
    assert entry["cortex.labels"] == {"apiName": "hello", "apiKind": "BatchAPI", "apiID": "v1", "jobID": "j1"}


async def test_a_machine_without_pid_namespaces_still_gives_the_contracts_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "VARIANTS", (False,))
    ready = Fifo(tmp_path / "ready")
    script = f"cat /cortex/spec/job.json; echo; trap 'echo bye; exit 0' TERM; echo > {ready.path}; sleep 1000 & wait"
    spec = make_spec(tmp_path, shell("api", script), shell("crashing", "sleep 1000 & exit 3"))
    async with Running(spec) as running:
        await ready.read()
        assert (await running.seen.exit_of("crashing")).code == 3
        assert await running.pod.exec("api", ["test", "-e", "/cortex/spec/job.json"], WAIT_SECONDS) == 0
        await running.pod.stop(WAIT_SECONDS)
        assert processes_of(spec.worker_id) == []
    assert messages(spec, "api") == ['{"job_id": "j1"}', "bye"]


async def test_without_namespaces_the_paths_are_in_variables(tmp_path: Path) -> None:
    script = 'cat "$CORTEX_JOB_SPEC"; echo; echo "$CORTEX_MNT $CORTEX_CLI_CONFIG_DIR"; (exec sleep 1000) & exit 3'
    spec = make_spec(tmp_path, shell("api", script), mount_namespace=False)
    async with Running(spec) as running:
        ended = await running.seen.exit_of("api")
        assert ended.code == 3
    assert messages(spec, "api")[:2] == ['{"job_id": "j1"}', f"{tmp_path}/mnt {tmp_path}/client"]
    assert processes_of(spec.worker_id) == []


PARENT = """
import asyncio, sys
from google.protobuf import json_format
from cortex.batch.v1.worker_spec_pb2 import WorkerSpec
from services.dequeuer.pod.local import LocalPod
from tests.integration.pod_kit import Recorder

async def main():
    pod = LocalPod(json_format.Parse(sys.stdin.read(), WorkerSpec()), {"PATH": "/usr/bin:/bin"})
    await pod.start(Recorder())
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_kill_9_of_the_parent_leaves_no_process_not_even_a_daemon(tmp_path: Path) -> None:
    ready = Fifo(tmp_path / "ready")
    daemon = f"echo > {ready.path}; exec sleep 2000"
    script = f"sleep 1000 & trap '' TERM HUP; (setsid setsid sh -c '{daemon}' &); sleep 3000; true"
    spec = make_spec(tmp_path, shell("api", script))
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, cwd=Path(__file__).parents[2])
    try:
        assert parent.stdin is not None
        parent.stdin.write(json_format.MessageToJson(spec).encode())
        parent.stdin.close()
        await ready.read()
        alive = processes_of(spec.worker_id)
        assert len(alive) >= 5
        fds = [os.pidfd_open(pid) for pid in alive]
    finally:
        parent.kill()
        parent.wait()
    await asyncio.gather(*(ended(fd) for fd in fds))
    assert processes_of(spec.worker_id) == []


async def ended(pidfd: int) -> None:
    """Wait for the end of a process."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pidfd, event.set)
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await event.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
