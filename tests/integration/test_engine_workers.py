"""Workers whose containers podman or docker runs: what they find, how their ends are told, and that none is left."""

import asyncio
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cortex.batch.v1.worker_spec_pb2 import Container, EngineRuntime, EnvVar, WorkerSpec
from services.common.engine import ContainerPlan, Engine, Resources
from services.dequeuer.pod.engine import EnginePod
from services.scheduler.domain.model.worker import Health, Phase
from tests.engines import RealEngine
from tests.images import IMAGE, PYTHON
from tests.integration.local_worker_kit import WAIT_SECONDS, Workers, api, script
from tests.integration.pod_kit import Recorder, make_spec, messages


def shell(name: str, text: str, **more: Any) -> Container:
    return Container(name=name, image=IMAGE, command=["/bin/sh", "-c", text], **more)


def spec_of(directory: Path, *containers: Container) -> WorkerSpec:
    return make_spec(directory, *containers, stop_grace_seconds=1.0)


EAT = "hoard = []\nwhile True: hoard.append(b'x' * (4 << 20))"
HUNGRY = Container(name="hungry", image=IMAGE, command=[PYTHON, "-c", EAT], memory_bytes=64 << 20)


@asynccontextmanager
async def running(spec: WorkerSpec, engine: RealEngine) -> AsyncIterator[tuple[EnginePod, Recorder]]:
    with engine.infra() as infra:
        spec.local.engine.CopyFrom(EngineRuntime(program=engine.program, system=spec.local.directory, infra=infra))
        pod, seen = EnginePod(spec, os.environ), Recorder()
        await pod.start(seen)
        try:
            yield pod, seen
        finally:
            await pod.stop(0.0)


def said(spec: WorkerSpec, container: str) -> list[str]:
    """What a container has written so far."""
    written = Path(spec.local.log_directory, f"{container}.jsonl").exists()
    return messages(spec, container) if written else []


async def until(condition: Callable[[], object]) -> None:
    """For what no event tells of: an engine's own doings."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.05)


async def test_what_a_container_finds(engine: RealEngine, tmp_path: Path) -> None:
    text = (  # all in one stream: between two an engine keeps no order
        "exec 2>&1;"
        ' echo "port $(CORTEX_PORT) greeting $GREETING"; cat /cortex/spec/job.json; echo; ls /cortex/client -d;'
        " echo shared > /mnt/file; df /dev/shm | grep -o ' 16384 '; env | grep -c HOME; touch /cortex/spec/x || echo ro"
    )
    env = [EnvVar(name="GREETING", value="two\nlines $(CORTEX_PORT) $$(CORTEX_PORT)")]
    text = text.replace("env | grep -c HOME; ", "")
    spec = spec_of(tmp_path, shell("api", text + "; exec sleep 1000", env=env, shm_bytes=16 << 20))
    async with running(spec, engine) as (_, seen):
        await until(lambda: said(spec, "api")[-1:] == ["ro"])
        assert seen.started == ["api"]
        assert (tmp_path / "mnt" / "file").read_text() == "shared\n"
    found = said(spec, "api")
    assert found[:4] == ["port 4321 greeting two", "lines 4321 $(CORTEX_PORT)", '{"job_id": "j1"}', "/cortex/client"]
    assert " 16384 " in found
    assert engine.containers() == set()


async def test_containers_of_a_worker_share_loopback_and_mnt(engine: RealEngine, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:  # it is free now, and in any case shared with us here
        port = free.getsockname()[1]
    serve = f"import http.server; http.server.test(http.server.SimpleHTTPRequestHandler, port={port}, bind='127.0.0.1')"
    server = Container(name="server", image=IMAGE, command=[PYTHON, "-c", serve])
    ask = (
        "import time, urllib.request\nfor _ in range(100):\n  try:\n"
        f"    print('status', urllib.request.urlopen('http://localhost:{port}/').status, flush=True); break\n"
        "  except OSError: time.sleep(0.1)\ntime.sleep(1000)"
    )
    asker = Container(name="asker", image=IMAGE, command=[PYTHON, "-c", ask])
    spec = spec_of(tmp_path, server, asker)
    async with running(spec, engine):
        await until(lambda: "status 200" in said(spec, "asker"))


async def test_how_a_container_ended_is_told_and_it_is_started_again(engine: RealEngine, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, shell("api", "echo last words; exit 3"))
    async with running(spec, engine) as (_, seen):
        await seen.until(lambda: len(seen.exits) >= 2)
        assert (seen.exits[0].code, seen.exits[0].signal, seen.exits[0].out_of_memory) == (3, None, False)
        assert "exited with code 3" in seen.exits[0].reason
        assert "last words" in seen.exits[0].reason
        assert [state.failed_starts for state in seen.states if state.backing_off][:2] == [1, 2]


async def test_a_container_that_is_killed_is_no_evidence_of_anything(engine: RealEngine, tmp_path: Path) -> None:
    """Nor is it that the kernel ends another container for its memory meanwhile."""
    spec = spec_of(tmp_path, shell("api", "exec sleep 1000"), HUNGRY)
    async with running(spec, engine) as (_, seen):
        assert (await seen.exit_of("hungry")).out_of_memory
        engine("kill", "--signal=KILL", engine.container("api"))
        ended = await seen.exit_of("api")
        assert (ended.signal, ended.out_of_memory) == (signal.SIGKILL, False)


async def test_a_container_over_its_memory_limit_is_ended_and_that_is_told(
    engine: RealEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    async with running(spec_of(tmp_path, HUNGRY), engine) as (_, seen):
        ended = await seen.exit_of("hungry")
        assert ended.out_of_memory
        assert ended.reason == "used more memory than its limit (compute.mem 64Mi)"
    assert list(here.iterdir()) == []  # podman's monitor writes a file `oom` where it was started


async def test_a_command_that_the_image_does_not_have_is_tried_once(engine: RealEngine, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, Container(name="api", image=IMAGE, command=["/no/such/program"]))
    async with running(spec, engine) as (pod, seen):
        ended = await seen.exit_of("api")
        assert "/no/such/program" in ended.reason
        assert "last output" not in ended.reason, "the engine's words are told once"
        assert re.search("[0-9a-f]{13}", ended.reason) is None, "ids are as engines show them"
        assert pod.state.cannot_start


async def test_commands_run_inside(engine: RealEngine, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, shell("api", "exec sleep 1000"))
    async with running(spec, engine) as (pod, _):
        assert await pod.exec("api", ["/bin/sh", "-c", "test $CORTEX_PORT = $(CORTEX_PORT)"], 10) == 0
        assert await pod.exec("api", ["/bin/sh", "-c", "exit 4"], 10) == 4
        with pytest.raises(TimeoutError):
            await pod.exec("api", ["/bin/sleep", "1000"], 0.5)


async def test_a_container_has_its_grace_to_end(engine: RealEngine, tmp_path: Path) -> None:
    polite = (
        "import signal, sys\nsignal.signal(15, lambda *_: (print('bye', flush=True), sys.exit()))\n"
        "print('up', flush=True)\nsignal.pause()"
    )
    spec = spec_of(tmp_path, Container(name="api", image=IMAGE, command=[PYTHON, "-c", polite]))
    async with running(spec, engine) as (pod, _):
        await until(lambda: "up" in said(spec, "api"))
        await pod.stop(WAIT_SECONDS)
    assert said(spec, "api")[-1] == "bye"
    assert engine.containers() == set()


async def test_an_image_that_cannot_be_had_is_told_until_it_is_there(engine: RealEngine, tmp_path: Path) -> None:
    image = "localhost/cortex-missing:1"
    heard: asyncio.Queue[Health] = asyncio.Queue()
    async with Workers(tmp_path, engine=engine.program) as workers:
        workers.driver.on_health(lambda _, health: heard.put_nowait(health))
        version = api(script("api", "echo here; exec sleep 1000", image=image))
        starting = asyncio.create_task(workers.start(version))
        async with asyncio.timeout(WAIT_SECONDS):
            health = await heard.get()
        assert health.phase is Phase.ERR_IMAGE_PULL
        assert health.reason.startswith(f"image {image} cannot be had: {engine.program}: ")
        engine("tag", IMAGE, image)
        await starting
        await workers.says("api", "here")
    engine("rmi", image)


async def test_nothing_is_left_when_the_dequeuer_is_killed_and_nobody_sees_it(
    engine: RealEngine, tmp_path: Path
) -> None:
    async with Workers(tmp_path, engine=engine.program) as workers:
        worker = await workers.start(api(script("api", "echo here; exec sleep 1000", image=IMAGE)))
        await workers.says("api", "here")
        workers.driver._live[worker.worker_id].watched._close()  # this scheduler does not see it
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        await until(lambda: not engine.containers())
        os.waitpid(worker.pid, 0)
        del workers.driver._live[worker.worker_id]


def test_the_words_for_dockers_and_podmans_devices_and_networks() -> None:
    plan = ContainerPlan("n", "i", ["c", "a"], "", resources=Resources(64 << 20, 1 << 20, 500, ("0", "2"), ("1",)))
    podman, docker = Engine("podman"), Engine("docker")
    both = {"--memory=67108864b", "--memory-swap=67108864b", "--shm-size=1048576b", "--cpu-shares=512"}
    both |= {"--device=/dev/neuron1", "--entrypoint=c"}
    assert both | {"--device=nvidia.com/gpu=0", "--device=nvidia.com/gpu=2"} <= set(podman.create(plan))
    assert both | {'--gpus="device=0,2"'} <= set(docker.create(plan))
    assert podman.create(plan)[-2:] == docker.create(plan)[-2:] == ["i", "a"]
    assert podman.network_of(12, "infra") == "ns:/proc/12/ns/net"
    assert docker.network_of(12, "infra") == "container:infra"
