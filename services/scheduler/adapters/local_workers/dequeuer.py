"""A dequeuer as a process of this machine: what it is started with, and what its end means."""

import errno
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from cortex.batch.v1 import worker_spec_pb2 as pb
from services.common.lifecycle import LIFELINE_VARIABLE
from services.scheduler.adapters.local_workers.settings import LocalWorkerSettings

WORKER_ID_VARIABLE = "CORTEX_WORKER_ID"
"""In the environment of a dequeuer and of everything that it starts."""

WORKER_SPEC_VARIABLE = "CORTEX_WORKER_SPEC"
"""Tells a dequeuer where its WorkerSpec is."""

OWN_LOG = "dequeuer.jsonl"
"""A dequeuer's own log, beside its containers' output."""

_LAST_WORDS_BYTES = 4096


def spawn(
    settings: LocalWorkerSettings,
    environ: Mapping[str, str],
    spec: pb.WorkerSpec,
    spec_file: Path,
    prefix: Sequence[str],
) -> int:
    """Start a dequeuer that is told `spec` by its file; its pid. `prefix`: what runs its command. Raises OSError."""
    program = settings.dequeuer[0]
    if prefix and shutil.which(program) is None:  # else only what is in front of it could tell
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), program)
    variables = {
        name: value for name, value in environ.items() if not name.startswith("CORTEX_") or name == "CORTEX_LOG_LEVEL"
    }
    variables[WORKER_SPEC_VARIABLE] = str(spec_file)
    variables[WORKER_ID_VARIABLE] = spec.worker_id
    kept = [spec.local.uplink_fd] if spec.local.HasField("uplink_fd") else []
    if settings.lifeline_fd is not None:
        variables[LIFELINE_VARIABLE] = str(settings.lifeline_fd)
        kept.append(settings.lifeline_fd)
    with Path(spec.local.log_directory, OWN_LOG).open("ab") as output:
        process = subprocess.Popen(
            [*prefix, *settings.dequeuer],
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=kept,
            start_new_session=True,
        )
    process.returncode = 0  # tells Popen that it need not wait for it: `Watched` does
    return process.pid


def how_it_ended(status: int | None, logs: Path) -> str:
    """The end of one, for people. `status` is its exit status, None where nobody knows; `logs` its directory."""
    if status is None:
        what = "its dequeuer is gone"
    elif status < 0:
        name = next((each.name for each in signal.Signals if each == -status), "unknown")
        return f"its dequeuer was ended by signal {-status} ({name})"
    elif status == 0:
        return "its dequeuer has ended"
    else:
        what = f"its dequeuer exited with code {status}"
    words = _last_words(logs / OWN_LOG)
    return f"{what}: {words}" if words else what


def _last_words(own_log: Path) -> str:
    """The error in the last line of a log, if there is one."""
    try:
        with own_log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    last = lines[-1] if lines else ""
    if last.startswith("error: "):
        return last.removeprefix("error: ")
    try:
        entry = json.loads(last)
    except ValueError:
        return last
    return str(entry.get("message", "")) if entry.get("level") in ("error", "critical") else ""
