"""What `cortex up` takes before it starts anything: directories, sockets' paths and ports."""

import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cortex.up import data_dir, plan, ports, supervisor
from cortex.up.errors import UpError
from cortex.up.part_log import readable
from cortex.up.supervisor import how_it_ended
from services.gateway import server
from services.scheduler.settings import Settings


def test_the_sockets_directory_is_private_and_the_same_every_time(tmp_path: Path) -> None:
    with data_dir.claim(tmp_path / "data") as first:
        assert stat.S_IMODE(first.run.stat().st_mode) == 0o700
    assert not first.run.exists()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    with data_dir.claim(tmp_path / "link") as second:
        assert second.run == first.run
    with data_dir.claim(tmp_path / "other") as other:
        assert other.run != first.run


def test_an_input_root_is_a_directory_as_jobs_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("real", "one:two"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    assert plan.input_root(Path("real/../link")) == tmp_path / "link"
    for wrong, why in (("nothing", "no such directory"), ("one:two", "give a link to it")):
        with pytest.raises(UpError, match=f"--input-root {wrong}: .*{why}"):
            plan.input_root(Path(wrong))


def test_the_scheduler_is_told_the_input_roots_and_nobody_else(tmp_path: Path) -> None:
    with data_dir.claim(tmp_path / "data") as directories:
        address = ports.resolve("127.0.0.1", 0)
        endpoints = plan.Endpoints(http=address, http_fd=0, grpc=address, collector=address)
        system = plan.local_system(directories, endpoints, insecure=False, input_roots=[Path("/a"), Path("/b c")])
    told = {part.name: part.environment.get("CORTEX_INPUT_ROOTS") for part in system.parts}
    assert told == {"gateway": None, "scheduler": "/a:/b c", "collector": None}
    settings = Settings.from_environment({"CORTEX_DATA_DIR": "x", "CORTEX_INPUT_ROOTS": "/a:/b c/../d:"})
    assert settings.input_roots == (Path("/a"), Path("/d"))


def test_a_runtime_directory_with_a_long_path_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with data_dir.claim(tmp_path / "data") as directories:
        assert len(os.fsencode(directories.socket("collector"))) <= data_dir.MAX_SOCKET_PATH
        assert long not in directories.run.parents


def test_a_sockets_directory_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    with data_dir.claim(tmp_path / "data") as directories:
        run = directories.run
    run.mkdir(mode=0o755)
    with pytest.raises(UpError, match="is not a directory that is yours alone"), data_dir.claim(tmp_path / "data"):
        pass


def test_the_lock_names_its_process_and_is_free_again_afterwards(tmp_path: Path) -> None:
    with (
        data_dir.claim(tmp_path),
        pytest.raises(UpError, match=rf"process {os.getpid()}\) already runs"),
        data_dir.claim(tmp_path),
    ):
        pass
    with data_dir.claim(tmp_path):
        pass


def test_the_parts_of_a_killed_predecessor_are_waited_for(tmp_path: Path) -> None:
    with data_dir.claim(tmp_path) as directories:
        # A part inherits the lock and outlives its `cortex up` by a moment.
        part = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(0.3)"], pass_fds=[directories.parts_lock_fd]
        )
        run = directories.run
        os.rename(run, run.with_name("kept"))  # noqa: PTH104  # kill -9 leaves the directory as it was
    os.rename(run.with_name("kept"), run)  # noqa: PTH104
    started = time.monotonic()
    with data_dir.claim(tmp_path):
        assert part.wait(5) == 0
        assert time.monotonic() - started < data_dir.PREDECESSOR_PATIENCE_S


def test_a_reserved_port_is_free_for_a_part_and_for_nobody_else() -> None:
    with ports.reserve(ports.resolve("127.0.0.1", 0), "--grpc-port") as held:
        address = ports.resolve("127.0.0.1", ports.bound_port(held))
        with socket.socket() as part:
            part.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            part.bind((address.host, address.port))
            part.listen()
            with socket.create_connection((address.host, address.port), timeout=5):
                part.accept()[0].close()
            with pytest.raises(UpError, match=f"port {address.port} on 127.0.0.1 is in use; .* --grpc-port"):
                ports.reserve(address, "--grpc-port")
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind((address.host, address.port))


@pytest.mark.parametrize(
    ("host", "loopback", "text", "reachable"),
    [
        ("127.0.0.1", True, "127.0.0.1:1", "127.0.0.1:1"),
        ("127.0.0.5", True, "127.0.0.5:1", "127.0.0.5:1"),
        ("::1", True, "[::1]:1", "[::1]:1"),
        ("0.0.0.0", False, "0.0.0.0:1", "127.0.0.1:1"),
        ("::", False, "[::]:1", "[::1]:1"),
        ("192.0.2.7", False, "192.0.2.7:1", "192.0.2.7:1"),
    ],
)
def test_addresses(host: str, loopback: bool, text: str, reachable: str) -> None:
    address = ports.resolve(host, 1)
    assert (address.is_loopback, str(address), address.reachable) == (loopback, text, reachable)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"level": "warning", "message": "slow"}', ("warning", "slow")),
        ('{"level": "error", "message": "no", "exception": "Traceback\\n  x\\nE: y\\n"}', ("error", "no (E: y)")),
        ("MemoryError", ("", "MemoryError")),
        ("[1]", ("", "[1]")),
        ("{}", ("", "{}")),
    ],
)
def test_a_line_of_a_part_in_readable_form(line: str, expected: tuple[str, str]) -> None:
    assert readable(line) == expected


@pytest.mark.parametrize(
    ("code", "last", "expected"),
    [
        (0, "bye", "exited with code 0"),
        (1, "MemoryError", "exited with code 1: MemoryError"),
        (3, "", "exited with code 3"),
        (-9, "whatever", "was ended by SIGKILL"),
        (-63, "", "was ended by signal 63"),
    ],
)
def test_how_a_part_ended_in_words(code: int, last: str, expected: str) -> None:
    assert how_it_ended(code, last) == expected


def test_the_parts_share_the_time_there_is_for_stopping() -> None:
    shares = (plan.GATEWAY_STOP_S, plan.SCHEDULER_STOP_S, plan.COLLECTOR_STOP_S)
    assert sum(shares) == supervisor.DRAIN_S
    assert server.DRAIN_S <= plan.GATEWAY_STOP_S
