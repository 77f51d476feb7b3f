"""Container images for tests, made of this machine's own files: nothing is fetched from anywhere.

An image holds this Python with its standard library, and the few programs that tests' scripts use, each with the
libraries that it needs. It is kept in a storage of the tests' own, which goes with them.
"""

import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

IMAGE = "localhost/cortex-tests:1"

PYTHON = os.path.realpath(sys.executable)
"""Where Python is in the image."""

PROGRAMS = (
    "/bin/sh",
    "/bin/cat",
    "/bin/chmod",
    "/bin/df",
    "/bin/grep",
    "/bin/ls",
    "/bin/mkdir",
    "/bin/sleep",
    "/bin/touch",
)
_LEFT_OUT = re.compile(r"/(site-packages|dist-packages|test|tests|idlelib|tkinter|ensurepip|config-[^/]*)(/|$)")


@dataclass(frozen=True)
class Podman:
    """A podman that runs containers here."""

    environ: dict[str, str]
    """What it and all that starts it must find in the environment."""

    def __call__(self, *words: str) -> str:
        """Run it; what it says."""
        told = subprocess.run(
            ["podman", *words], env={**os.environ, **self.environ}, check=True, capture_output=True, text=True
        )
        return told.stdout

    def containers(self, label: str = "cortex.worker") -> set[str]:
        """The names of all containers with a label, running or not."""
        return set(self("ps", "--all", "--format", "{{.Names}}", "--filter", f"label={label}").split())


@contextmanager
def usable_podman() -> Iterator[Podman]:
    """A podman with a storage of its own and `IMAGE` in it. Skips the test where there is none that works."""
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed (apt-get install podman)")
    if os.geteuid() != 0:
        pytest.skip("real containers in one network namespace take root")
    directory = Path(tempfile.mkdtemp(prefix="cb-podman-"))
    try:
        podman = _prepared(directory)
        yield podman
        podman("rm", "--force", "--all")
    finally:
        for mounted in _mounts_below(directory):
            subprocess.run(["umount", "--lazy", mounted], check=False, capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)


def _prepared(directory: Path) -> Podman:
    image = directory / "image.tar"
    with tarfile.open(image, "w") as tar:
        _fill(tar)
    why = ""
    for driver in ("overlay", "vfs"):
        podman = Podman(_configuration(directory / driver, driver))
        try:
            podman("import", "--quiet", str(image), IMAGE)
            podman("run", "--rm", "--network=none", "--log-driver=none", IMAGE, "/bin/sh", "-c", ":")
            return podman
        except subprocess.CalledProcessError as error:
            why = error.stderr.strip()
    pytest.skip(f"podman does not work here: {why}")


def _configuration(directory: Path, driver: str) -> dict[str, str]:
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


def _fill(tar: tarfile.TarFile) -> None:
    library = Path(sysconfig.get_path("stdlib"))
    files = {Path(program) for program in (*PROGRAMS, PYTHON) if Path(program).exists()}
    files |= {path for path in library.rglob("*") if path.is_file() and not _LEFT_OUT.search(str(path))}
    files |= _libraries([each for each in files if each.suffix == ".so" or each.parent.name in ("bin", "sbin")])
    for path in sorted(files):
        content = path.read_bytes()
        entry = tarfile.TarInfo(str(path).lstrip("/"))
        entry.size, entry.mode = len(content), path.stat().st_mode & 0o777
        tar.addfile(entry, io.BytesIO(content))
    temporary = tarfile.TarInfo("tmp")
    temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
    tar.addfile(temporary)


def _libraries(programs: list[Path]) -> set[Path]:
    told = subprocess.run(["ldd", *map(str, programs)], check=False, capture_output=True, text=True)
    return {Path(path) for path in re.findall(r"(/\S+) \(0x", told.stdout)}


def _mounts_below(directory: Path) -> list[str]:
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [point for point in reversed(points) if Path(point).is_relative_to(directory)]
