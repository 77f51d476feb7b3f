"""The `cortex` command as a process, in a terminal or without one, that talks to a server of `client_kit`."""

import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.integration.client_kit import JOB_ID, Server, job_status

CORTEX = str(Path(sys.executable).with_name("cortex"))
WATCH = f"GET /batch/digits?jobID={JOB_ID}&watch=true"
ENDED = job_status("completed_with_failures", done=10, failed=2, reason="2 batches failed")


def environment_of(server: Server, directory: Path) -> dict[str, str]:
    """The variables under which `cortex` talks to this server."""
    (directory / "cli.yaml").write_text(f"environments: [{{name: test, operator_endpoint: '{server.url}'}}]")
    return {**os.environ, "CORTEX_CLI_CONFIG_DIR": str(directory)}


class Cli:
    def __init__(self, environ: dict[str, str]) -> None:
        self.environ = environ
        self.directory: Path | None = None
        """Where it is run, if that matters."""

    def __call__(self, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [CORTEX, *arguments], input=given, capture_output=True, env=self.environ, cwd=self.directory, timeout=30
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def json(self, *arguments: str) -> Any:
        done = self(*arguments, "-o", "json")
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)


def in_a_terminal(
    environ: dict[str, str], *arguments: str, typed: bytes | None = None, **changes: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a terminal; `stdout` is what came to the screen. `changes` are of its environment.

    With `typed` its input is the terminal too, and that is typed there.
    """
    ours, theirs = pty.openpty()
    terminal = {**environ, "TERM": "xterm-256color", "COLUMNS": "100", **changes}
    stdin = None if typed is None else theirs
    process = subprocess.Popen([CORTEX, *arguments], stdin=stdin, stdout=theirs, stderr=theirs, env=terminal)
    os.close(theirs)
    os.write(ours, typed or b"")
    screen = b""
    try:
        with contextlib.suppress(OSError):  # so a terminal says that nobody is at its other end any more
            while piece := os.read(ours, 65536):
                screen += piece
    finally:
        os.close(ours)
        code = process.wait(10)
    return subprocess.CompletedProcess(arguments, code, screen.decode())
