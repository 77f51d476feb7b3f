"""Outgoing network of workers that have a network namespace of their own."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.integration.local_worker_kit import Workers, api, script
from tests.integration.outgoing_network import HOST
from tests.integration.test_local_workers import namespaces_or_skip, ordinary_user

OWN_MACHINE = f"""
ip link set lo up && ip address add {HOST}/32 dev lo && mount --bind "$1" /etc/resolv.conf \
&& echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start || exit 99
shift
exec "$@"
"""
"""Makes a machine whose resolver, which a test is, is on loopback."""


def run_in_a_network_of_nobody(python: list[str], variables: dict[str, str], directory: Path) -> None:
    """Run outgoing_network.py as on a machine that is connected to nothing else. Everything ends with the namespace."""
    for program in ("slirp4netns", "unshare", "ip"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("this machine has no /dev/net/tun for us")
    unshare = ["unshare", "--net", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    names = directory / "names.conf"
    names.write_text("nameserver 127.0.0.1\n")
    tests = str(Path(__file__).with_name("outgoing_network.py"))
    options = ["-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={directory}/tests", "-o", "addopts="]
    run = subprocess.run(
        [*unshare, "--", "sh", "-c", OWN_MACHINE, "sh", str(names), *python, "-m", "pytest", *options, tests],
        env={**os.environ, **variables},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode == 99 or "unshare: " in run.stderr:
        pytest.skip(f"this machine gives no network to test in: {run.stderr}")
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]


def test_outgoing_network(tmp_path: Path) -> None:
    namespaces_or_skip()
    run_in_a_network_of_nobody([sys.executable], {}, tmp_path)


def test_an_ordinary_users_outgoing_network() -> None:
    command, variables = ordinary_user()
    home = Path(tempfile.mkdtemp(prefix="cortex-user-"))
    try:
        os.chown(home, 65534, 65534)
        run_in_a_network_of_nobody(command, {**variables, "HOME": str(home), "TMPDIR": str(home)}, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.parametrize("slirp4netns", ["echo no tun device >&2; exit 1", None])
async def test_a_worker_without_outgoing_network_runs_and_says_why(
    slirp4netns: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespaces_or_skip()
    why = "slirp4netns is not installed"
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("unshare", "sh", "sleep"):
        (programs / name).symlink_to(str(shutil.which(name)))
    if slirp4netns is not None:
        why = "slirp4netns failed: no tun device"
        (programs / "slirp4netns").write_text(f"#!/bin/sh\n{slirp4netns}\n")
        (programs / "slirp4netns").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        version = api(script("api", "echo up; exec sleep 1000"), port=taken.getsockname()[1])
        async with Workers(tmp_path) as workers:
            worker = await workers.start(version)
            await workers.says("api", "up")
            told = (tmp_path / "logs" / "hello" / worker.job_id / "0" / "dequeuer.jsonl").read_text()
            assert f"reach nothing but each other and the operator ({why})" in told
