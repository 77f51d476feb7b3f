"""Workers of this machine as the scheduler starts them: real dequeuers, real containers, real namespaces."""

import asyncio
import errno
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from services.common.errors import Category, CortexError
from services.scheduler.adapters.local_workers import namespaces
from services.scheduler.adapters.local_workers.directories import WorkerDirectories
from tests.integration.local_worker_kit import Workers, api, job, processes_of, script
from tests.ports import unused_port
from tests.waiting import wait_for

SERVER = r"""
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        print("asked on port", self.server.server_port, flush=True)
http.server.HTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
"""
ASK = r"""
import os, re, urllib.request
text = open(os.environ["CORTEX_CLI_CONFIG_DIR"] + "/cli.yaml").read()
url = re.search(r"operator_endpoint: (\S+)", text)[1]
print("the operator says", urllib.request.urlopen(url, timeout=20).read().decode(), flush=True)
import time; time.sleep(1000)
"""


def server(port: str, probe: int) -> dict[str, object]:
    """A container with a real HTTP server, probed there."""
    probed = {"http_get": {"port": probe, "path": "/healthz"}, "period_seconds": 1}
    return {"name": "api", "command": [sys.executable, "-S", "-c", SERVER, port], "readiness_probe": probed}


def namespaces_or_skip() -> None:
    try:
        namespaces.entering()
    except OSError as error:
        pytest.skip(f"this machine gives no network namespaces: {error}")


async def test_several_workers_with_a_hard_coded_port_run_at_once(tmp_path: Path) -> None:
    namespaces_or_skip()
    port = unused_port()
    version = api(server(str(port), port), port=port)
    async with Workers(tmp_path) as workers:
        records = [await workers.start(version, slot) for slot in range(3)]
        for slot in range(3):
            await workers.says("api", f"asked on port {port}", slot)
        assert [record.detail for record in records] == [
            f'{{"api": "hello", "ports": [{port}]}}',
            '{"api": "hello", "ports": []}',
            '{"api": "hello", "ports": []}',
        ]


async def test_workers_that_follow_cortex_port_get_ports_of_their_own_and_their_probes_too(tmp_path: Path) -> None:
    version = api(server("$(CORTEX_PORT)", 8080))
    async with Workers(tmp_path) as workers:
        ports = set()
        for slot in range(2):
            await workers.start(version, slot)
            line = await workers.says("api", "asked on port", slot)
            ports.add(int(line.rpartition(" ")[2]))
        assert len(ports) == 2
        assert 8080 not in ports


async def test_a_freed_port_is_used_again(tmp_path: Path) -> None:
    port = unused_port()
    version = api(server(str(port), port), port=port)
    async with Workers(tmp_path) as workers:
        for _ in range(2):
            worker = await workers.start(version)
            await workers.says("api", "asked on port")
            assert worker.detail == f'{{"api": "hello", "ports": [{port}]}}'
            await workers.driver.kill(worker)


async def test_without_network_namespaces_a_taken_port_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    namespaces.found.cache_clear()
    try:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            async with Workers(tmp_path) as workers:
                with pytest.raises(
                    CortexError, match=rf"port {port} is in use .*`unshare` is not installed.*CORTEX_PORT"
                ):
                    await workers.start(api(server(str(port), port), port=port))
    finally:
        namespaces.found.cache_clear()


async def test_the_operator_is_reached_from_inside_a_network_namespace(tmp_path: Path) -> None:
    namespaces_or_skip()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    directory = Path(tempfile.mkdtemp(prefix="cortex-"))  # a unix socket's path is short
    try:
        gateway = await asyncio.start_unix_server(answer, directory / "http.sock")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            ask = {"name": "api", "command": [sys.executable, "-S", "-c", ASK]}
            async with Workers(tmp_path, http_socket=str(directory / "http.sock")) as workers, gateway:
                await workers.start(api(ask, port=port))
                assert await workers.says("api", "the operator says") == "the operator says hello"
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize("elsewhere", ["/nowhere", "/" + "x" * 5000, "/a\0b"])
async def test_a_directory_that_is_not_here_is_said_with_the_command_and_never_tried(
    tmp_path: Path, elsewhere: str
) -> None:
    version = api(script("api", "exec sleep 1000"), port=unused_port(), file_name=f"{elsewhere}/a.yaml")
    async with Workers(tmp_path) as workers:
        with pytest.raises(CortexError) as error:
            await workers.start(version)
    assert error.value.category is Category.INVALID
    assert error.value.message.startswith(f"`/bin/sh` of hello is to run in {elsewhere[:200]}, where its file was")


async def test_an_api_file_of_an_unknown_place_leaves_the_default_directory(tmp_path: Path) -> None:
    version = api(script("api", "echo in $PWD; exec sleep 1000"), port=unused_port(), file_name="../up/a.yaml")
    async with Workers(tmp_path) as workers:
        await workers.start(version)
        assert await workers.says("api", "in ") == f"in {tmp_path}"


async def test_what_a_worker_finds_in_its_directory(tmp_path: Path) -> None:
    text = 'pwd; echo "otlp=$OTEL_EXPORTER_OTLP_ENDPOINT,$OTEL_EXPORTER_OTLP_PROTOCOL"; cat /cortex/client/cli.yaml'
    (tmp_path / "apis").mkdir()
    version = api(
        script("api", text + "; exec sleep 1000"), port=unused_port(), file_name=str(tmp_path / "apis" / "a.yaml")
    )
    async with Workers(tmp_path, collector_port=4317) as workers:
        worker = await workers.start(version)
        await workers.says("api", "operator_endpoint")
        assert await workers.says("api", "otlp=") == "otlp=http://127.0.0.1:4317,grpc"
        assert await workers.says("api", "/apis") == str(tmp_path / "apis")
        own = tmp_path / "workers" / worker.job_id / "0"
        assert yaml.safe_load((own / "client" / "cli.yaml").read_text()) == {
            "default_environment": "cortex",
            "environments": [{"name": "cortex", "operator_endpoint": "http://127.0.0.1:8888"}],
        }
        assert (own / "worker.json").stat().st_mode & 0o777 == 0o600  # it holds the token


async def test_a_full_disk_is_told_apart_from_a_worker_that_cannot_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(WorkerDirectories, "make", no_room)
    async with Workers(tmp_path) as workers:
        with pytest.raises(CortexError, match="No space left") as error:
            await workers.start(api(script("api", "exec sleep 1000"), port=unused_port()))
    assert error.value.category is Category.STORAGE_FULL


async def test_a_new_worker_in_a_slot_finds_mnt_empty(tmp_path: Path) -> None:
    version = api(
        script("api", 'echo "mnt:$$(ls -A /mnt | wc -l)"; mkdir -m 500 /mnt/x; exec sleep 1000'), port=unused_port()
    )
    async with Workers(tmp_path) as workers:
        for number in range(2):
            worker = await workers.start(version, of=job(f"{number}"))
            assert await workers.says("api", "mnt:", of=job(f"{number}")) == "mnt:0"
            again = await workers.start(version, slot=1, of=job(f"{number}"))
            await workers.driver.kill(again)
            await workers.driver.kill(worker)
        third = await workers.start(version, of=job("0"))
        kept = tmp_path / "logs" / "hello" / "0" / "0" / "api.jsonl"
        await asyncio.to_thread(wait_for, "the third says it too", lambda: kept.read_text().count("mnt:") == 2)
        assert re.findall(r"mnt:(\d)", kept.read_text()) == ["0", "0"]
        assert third.pid in processes_of(third)


async def test_dequeuers_end_with_the_system(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        async with Workers(tmp_path, lifeline_fd=reading) as workers:
            worker = await workers.start(api(script("api", "echo up; exec sleep 1000"), port=unused_port()))
            await workers.says("api", "up")
            os.close(writing)
            writing = -1
            await workers.exit_of(worker)
            assert processes_of(worker) == set()
    finally:
        os.close(reading)
        if writing != -1:
            os.close(writing)


def ordinary_user() -> tuple[list[str], dict[str, str]]:
    """How to run this interpreter as an ordinary user: a command's beginning and environment variables. Or skips."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0:
        pytest.skip("these tests run as an ordinary user already")
    if setpriv is None:
        pytest.skip("setpriv is not installed, so that root cannot become an ordinary user")
    become = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    paths = [str(Path(__file__).parents[2]), *(path for path in sys.path if path.endswith("site-packages"))]
    variables = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    again = (
        "subprocess.run([sys.executable, '-c', ''], check=True)"  # setpriv may still be root when it starts the first
    )
    check = f"import grpc, pytest, services.dequeuer, subprocess, sys, uvloop; {again}"
    for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        command = [*become, python]
        trial = subprocess.run(
            [*command, "-c", check], env={**os.environ, **variables}, capture_output=True, check=False
        )
        if trial.returncode == 0:
            return command, variables
    pytest.skip("an ordinary user can run no interpreter of this version with these packages here")


DIFFERENT = " or ".join(
    (
        "paths",
        "specification",
        "mnt",
        "exec",
        "measured",
        "kill_9",
        "stop",
        "hard_coded",
        "operator",
        "exit_is_told",
        "adopts",
    )
)
"""What the system does in another way for an ordinary user."""


def test_an_ordinary_user_gets_all_of_this_too() -> None:
    command, variables = ordinary_user()
    home = Path(tempfile.mkdtemp(prefix="cortex-user-"))
    try:
        os.chown(home, 65534, 65534)
        tests = [str(Path(__file__).with_name(name)) for name in ("test_pod.py", "test_local_workers.py")]
        tests.append(str(Path(__file__).parents[1] / "contract" / "test_worker_driver.py"))
        run = subprocess.run(
            [*command, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={home}/tests", "-k", DIFFERENT, *tests],
            env={**os.environ, **variables, "HOME": str(home), "TMPDIR": str(home)},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    finally:
        shutil.rmtree(home, ignore_errors=True)
