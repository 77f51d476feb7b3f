"""Network namespaces for workers, by `unshare` of util-linux.

Root makes one directly. An ordinary user makes it inside a user namespace that keeps his user id; the capabilities that
come with it let the dequeuer bring its loopback interface up, after which it gives them up.
"""

import os
import shutil
import subprocess
from functools import cache

_TRIAL_SECONDS = 10


def entering() -> list[str]:
    """What to put in front of a command so that it runs in a network namespace of its own.

    Raises OSError with a reason for people where this machine gives none.
    """
    prefix, why = found()
    if not prefix:
        raise OSError(why)
    return list(prefix)


@cache
def found() -> tuple[tuple[str, ...], str]:
    """Tries it once: what to put in front, or why there is nothing to put."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return (), "the program `unshare` is not installed"
    options = ("--net",) if os.geteuid() == 0 else ("--user", "--map-current-user", "--keep-caps", "--net")
    prefix = (unshare, *options, "--")
    try:
        trial = subprocess.run(
            [*prefix, "/bin/sh", "-c", ":"],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TRIAL_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), str(error)
    if trial.returncode != 0:
        return (), trial.stderr.strip() or f"unshare exited with code {trial.returncode}"
    return prefix, ""
