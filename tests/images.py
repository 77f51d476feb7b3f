"""The container image for tests, made of this machine's own files: nothing is fetched from anywhere.

It holds this Python with its standard library, and the few programs that tests' scripts use, each with the
libraries that it needs.
"""

import io
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

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


def write_image(file: Path) -> None:
    """The image, as a tar file of its root."""
    with tarfile.open(file, "w") as tar:
        _fill(tar)


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
