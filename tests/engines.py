"""Container engines for tests: podman and docker, each with a storage of the tests' own that goes with them.

Docker's daemon is one of the tests' own too. It runs in a network namespace of its own, so that its bridge is in
nobody's way: neither in that of this machine's docker, nor in that of another run of the tests.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.common.engine import WORKER_LABEL, container_name
from tests.images import IMAGE, write_image
from tests.waiting import wait_for

INFRA_IMAGE = "localhost/cortex-infra:1"
"""What holds a worker's network with docker."""

_INFRA_COMMAND = 'CMD ["/bin/sleep", "1000000"]'
_START_SECONDS = 60
_STOP_SECONDS = 30


@dataclass(frozen=True)
class RealEngine:
    """An engine that runs containers here."""

    program: str
    """`podman` or `docker`."""
    environ: Mapping[str, str]
    """What it and all that starts it must find in the environment."""

    def __call__(self, *words: str) -> str:
        """Run it; what it says."""
        told = subprocess.run(
            [self.program, *words], env={**os.environ, **self.environ}, check=True, capture_output=True, text=True
        )
        return told.stdout

    def containers(self, label: str = WORKER_LABEL) -> set[str]:
        """The names of all containers with a label, running or not."""
        return set(self("ps", "--all", "--format", "{{.Names}}", "--filter", f"label={label}").split())

    def container(self, name: str) -> str:
        """The one container of an API's `name`, as the engine calls it."""
        (found,) = (each for each in self.containers() if f"-{name}-" in each)
        return found

    @contextmanager
    def infra(self) -> Iterator[str]:
        """What holds a network of a worker's own, where containers need something to join; its name."""
        if self.program == "podman":
            yield ""
            return
        name = container_name("tests", "infra", 0)
        self("run", "--detach", f"--name={name}", INFRA_IMAGE)
        try:
            yield name
        finally:
            self("rm", "--force", name)


@contextmanager
def usable(program: str) -> Iterator[RealEngine]:
    """An engine with `IMAGE` in it. Skips the test where there is none that works."""
    missing = [each for each in _NEEDED[program] if shutil.which(each) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (apt-get install podman docker.io)")
    if os.geteuid() != 0:
        pytest.skip("real containers in one network namespace take root")
    directory = Path(tempfile.mkdtemp(prefix=f"cb-{program}-"))
    try:
        write_image(directory / "image.tar")
        with _running_docker(directory) if program == "docker" else _prepared_podman(directory) as engine:
            yield engine
            if left := engine("ps", "--all", "--quiet").split():
                engine("rm", "--force", *left)
    finally:
        for mounted in _mounts_below(directory):
            subprocess.run(["umount", "--lazy", mounted], check=False, capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)


_NEEDED = {"podman": ("podman",), "docker": ("docker", "dockerd", "containerd", "runc", "nsenter", "unshare")}


@contextmanager
def _prepared_podman(directory: Path) -> Iterator[RealEngine]:
    why = ""
    for driver in ("overlay", "vfs"):
        podman = RealEngine("podman", _podman_configuration(directory / driver, driver))
        try:
            podman("import", "--quiet", str(directory / "image.tar"), IMAGE)
            _try(podman)
        except subprocess.CalledProcessError as error:
            why = error.stderr.strip()
        else:
            yield podman
            return
    pytest.skip(f"podman does not work here: {why}")


def _podman_configuration(directory: Path, driver: str) -> dict[str, str]:
    """No systemd, no journal, and limits that can be set without CAP_SYS_RESOURCE."""
    directory.mkdir()
    engine = ['cgroup_manager = "cgroupfs"', 'events_logger = "file"']
    if shutil.which("runc"):
        engine.append('runtime = "runc"')
    limits = '[containers]\ndefault_ulimits = ["nproc=32768:32768", "nofile=20000:20000"]\n'
    (directory / "containers.conf").write_text(f"{limits}[engine]\n" + "\n".join(engine) + "\n")
    (directory / "storage.conf").write_text(
        f'[storage]\ndriver = "{driver}"\ngraphroot = "{directory}/storage"\nrunroot = "{directory}/run"\n'
    )
    return {
        "CONTAINERS_CONF": str(directory / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
    }


@contextmanager
def _running_docker(directory: Path) -> Iterator[RealEngine]:
    address = f"unix://{directory}/docker.sock"
    flags = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
    command = ["unshare", "--net", "--", "dockerd", f"--host={address}"]
    command += [f"--{flag}={directory / name}" for flag, name in flags.items()]
    # Of the machine's settings it changes none: its containers reach nothing but each other.
    command += ["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
    docker = RealEngine("docker", {"DOCKER_HOST": address, "CORTEX_INFRA_IMAGE": INFRA_IMAGE})
    log = directory / "log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_for("docker answers, or is gone", lambda: daemon.poll() is not None or _answers(docker), _START_SECONDS)
        try:
            docker("import", str(directory / "image.tar"), IMAGE)
            docker("import", f"--change={_INFRA_COMMAND}", str(directory / "image.tar"), INFRA_IMAGE)
            _try(docker)
        except subprocess.CalledProcessError as error:
            last = log.read_text().strip().rpartition("\n")[2]
            pytest.skip(f"docker does not work here: {error.stderr.strip()}: {last}")
        yield docker
    finally:
        daemon.terminate()
        try:
            daemon.wait(_STOP_SECONDS)
        finally:
            daemon.kill()
            daemon.wait()


def _answers(docker: RealEngine) -> bool:
    try:
        docker("version")
    except subprocess.CalledProcessError:
        return False
    return True


def _try(engine: RealEngine) -> None:
    engine("run", "--rm", "--network=none", "--log-driver=none", IMAGE, "/bin/sh", "-c", ":")


def _mounts_below(directory: Path) -> list[str]:
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [point for point in reversed(points) if Path(point).is_relative_to(directory)]
