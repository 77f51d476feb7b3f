"""Builds kube-apiserver, kube-controller-manager and etcd from their published Go modules.

`k8s.io/kubernetes` refers to its own parts by paths inside of its repository; what replaces them are the same parts as
they are published, version 0.x.y for Kubernetes 1.x.y. The binaries are kept outside of the checkout, and once built
they are used for good: it takes about ten minutes of two cores, at the lowest priority.

    python -m tests.cluster.real.build      # prints the directory with the binaries
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

KUBERNETES = "v1.36.3"
ETCD = "v3.6.6"
_PROGRAMS = ("kube-apiserver", "kube-controller-manager")
_STAGED = re.compile(r"^\s*(k8s\.io/\S+) => \./staging", re.MULTILINE)
_ETCD_MAIN = """package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
"""


class CannotBuildError(Exception):
    """What is missing."""


def binaries() -> Path:
    """The directory with all three, built if need be. Raises `CannotBuildError`."""
    directory = _cache() / f"control-plane-{KUBERNETES}-{ETCD}"
    programs = directory / "bin"
    if not all((programs / name).exists() for name in (*_PROGRAMS, "etcd")):
        if shutil.which("go") is None:
            raise CannotBuildError("no Go toolchain is installed (https://go.dev/doc/install)")
        programs.mkdir(parents=True, exist_ok=True)
        _build_etcd(directory / "etcd", programs)
        _build_kubernetes(directory / "kubernetes", programs)
    return programs


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CORTEX_TEST_CACHE") or Path(base) / "cortex-batch")


def _build_etcd(module: Path, programs: Path) -> None:
    module.mkdir(exist_ok=True)
    (module / "main.go").write_text(_ETCD_MAIN)
    (module / "go.mod").write_text(f"module etcd\n\ngo 1.24\n\nrequire go.etcd.io/etcd/server/v3 {ETCD}\n")
    _go(module, "mod", "tidy")
    _go(module, "build", "-ldflags=-s -w", "-o", str(programs / "etcd"), ".")


def _build_kubernetes(module: Path, programs: Path) -> None:
    module.mkdir(exist_ok=True)
    (module / "go.mod").write_text("module control-plane\n")
    told = json.loads(_go(module, "mod", "download", "-json", f"k8s.io/kubernetes@{KUBERNETES}"))
    theirs = Path(told["GoMod"]).read_text()
    staged = "v0" + KUBERNETES.removeprefix("v1")
    go = next(line for line in theirs.splitlines() if line.startswith("go "))
    lines = ["module control-plane", go, f"require k8s.io/kubernetes {KUBERNETES}"]
    lines += [f"replace {name} => {name} {staged}" for name in _STAGED.findall(theirs)]
    (module / "go.mod").write_text("\n".join(lines) + "\n")
    imports = "".join(f'import _ "k8s.io/kubernetes/cmd/{name}"\n' for name in _PROGRAMS)
    (module / "programs.go").write_text(f"//go:build tools\n\npackage programs\n\n{imports}")
    shutil.copyfile(Path(told["Dir"]) / "go.sum", module / "go.sum")
    major, minor = KUBERNETES.removeprefix("v").split(".")[:2]
    facts = {"gitVersion": KUBERNETES, "gitMajor": major, "gitMinor": minor}
    flags = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in facts.items())
    names = [f"k8s.io/kubernetes/cmd/{name}" for name in _PROGRAMS]
    _go(module, "build", f"-ldflags=-s -w {flags}", "-o", f"{programs}{os.sep}", *names)


def _go(directory: Path, *arguments: str) -> str:
    environment = {**os.environ, "GOFLAGS": "-p=2 -buildvcs=false -mod=mod", "CGO_ENABLED": "0"}
    command = ["nice", "-n", "19", "go", *arguments]
    done = subprocess.run(command, cwd=directory, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise CannotBuildError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    try:
        print(binaries())
    except CannotBuildError as error:
        sys.exit(f"{error}")
