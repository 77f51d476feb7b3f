"""The supervisor of `cortex up` with small stand-ins as parts: starting, restarting, giving up, ending everything.

A stand-in tells what happens to it as a warning, which the supervisor shows on standard error; so the tests wait for
lines, not for time.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import gone_within

pytestmark = pytest.mark.timeout(120)

SUPERVISE = """
import asyncio, json, sys
from pathlib import Path
from cortex.up.errors import UpError
from cortex.up.plan import Part, Plan
from cortex.up.supervisor import Supervisor

async def main(plan):
    say = lambda line: print(line, file=sys.stderr, flush=True)
    return await Supervisor(plan, say).run(lambda: print("ready", flush=True))

class Never:
    async def holds(self):
        await asyncio.Event().wait()

given = json.loads(sys.argv[1])
checks = () if given["ready"] else (Never(),)
parts = tuple(Part(name, (sys.executable, "-S", "-c", script), stop_grace_s=5.0) for name, script in given["parts"])
try:
    sys.exit(0 if asyncio.run(main(Plan(parts, checks, Path(given["logs"])))) else 130)
except UpError as error:
    print("gave up:", error.message, file=sys.stderr)
    sys.exit(1)
"""

TELL = """
import json, os, signal, sys, threading, time
def tell(message):
    line = json.dumps({"level": "warning", "message": message})
    os.write(2, line.encode() + bytes([10]))  # in one piece, though others write there too
"""

GOOD = (
    TELL
    + """
def on_term(*_):
    tell("ended by SIGTERM")
    os._exit(0)
signal.signal(signal.SIGTERM, on_term)
def watch_lifeline():
    os.read(int(os.environ["CORTEX_LIFELINE_FD"]), 1)
    os._exit(3)
threading.Thread(target=watch_lifeline, daemon=True).start()
tell(f"pid {os.getpid()}")
while True:
    signal.pause()
"""
)

STUBBORN = (
    TELL
    + """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
tell(f"pid {os.getpid()}")
while True:
    time.sleep(60)
"""
)

WITH_ORPHAN = GOOD.replace(
    'tell(f"pid {os.getpid()}")',
    """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        tell(f"orphan {os.getpid()}")
        time.sleep(600)
    os._exit(0)
os.wait()
tell(f"pid {os.getpid()}")
""",
)


class Supervised:
    """A running supervisor."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self, pattern: str) -> re.Match[str]:
        """Read standard error up to the line that matches."""
        assert self.process.stderr is not None
        seen = []
        while line := self.process.stderr.readline():
            seen.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"no line matches {pattern!r} in {seen}")

    def pid(self, part: str) -> int:
        """The pid that a part tells when it has started."""
        return int(self.line(rf"^{part}: warning: pid (\d+)")[1])


@contextmanager
def supervised(directory: Path, *, ready: bool = True, **parts: str) -> Iterator[Supervised]:
    """A supervisor of stand-ins, given by name and script. Not `ready`: it stays at its very start."""
    given = json.dumps({"parts": list(parts.items()), "logs": str(directory), "ready": ready})
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, given], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield Supervised(process)
    finally:
        process.kill()
        process.communicate()


def test_sigterm_ends_the_parts_in_their_order_and_exits_0(tmp_path: Path) -> None:
    with supervised(tmp_path, first=GOOD, second=GOOD) as system:
        told = [system.line(r"^(\w+): warning: pid (\d+)") for _ in range(2)]
        pids = {found[1]: int(found[2]) for found in told}
        assert set(pids) == {"first", "second"}
        system.process.send_signal(signal.SIGTERM)
        assert system.line(r"^(\w+): warning: ended by SIGTERM")[1] == "first"
        assert system.line(r"^(\w+): warning: ended by SIGTERM")[1] == "second"
        assert system.process.wait(5) == 0
        assert all(gone_within(pid, 0) for pid in pids.values())


def test_a_part_that_dies_is_started_again_and_the_others_are_left_alone(tmp_path: Path) -> None:
    with supervised(tmp_path, only=GOOD) as system:
        first = system.pid("only")
        os.kill(first, signal.SIGKILL)
        system.line("^only was ended by SIGKILL; starting it again")
        second = system.pid("only")
        assert second != first
        assert system.process.poll() is None


def test_kill_9_of_the_supervisor_takes_the_parts_down_within_two_seconds(tmp_path: Path) -> None:
    with supervised(tmp_path, only=GOOD) as system:
        pid = system.pid("only")
        system.process.kill()
        assert gone_within(pid, 2.0)


def test_nothing_outlives_the_supervisor_not_even_an_orphan_that_ignores_sigterm(tmp_path: Path) -> None:
    with supervised(tmp_path, only=WITH_ORPHAN) as system:
        lines = [system.line(r"(pid|orphan) (\d+)") for _ in range(2)]
        told = {line[1]: line[2] for line in lines}
        orphan = int(told["orphan"])
        system.process.send_signal(signal.SIGINT)
        assert system.process.wait(5) == 0
        assert gone_within(orphan, 0)


def test_a_second_signal_ends_everything_at_once(tmp_path: Path) -> None:
    with supervised(tmp_path, only=STUBBORN) as system:
        pid = system.pid("only")
        system.process.send_signal(signal.SIGINT)
        system.line("^stopping")
        system.process.send_signal(signal.SIGINT)
        assert system.process.wait(2) == 130
        assert gone_within(pid, 0)


@pytest.mark.parametrize("code", [1, 2])
def test_a_part_that_says_why_it_cannot_start_is_not_tried_again(tmp_path: Path, code: int) -> None:
    script = TELL + f"print('error: the ledger is broken', file=sys.stderr); sys.exit({code})"
    with supervised(tmp_path, ready=False, bad=script, good=GOOD) as system:
        system.line("^gave up: bad: the ledger is broken$")
        assert system.process.wait(5) == 1


def test_a_part_that_keeps_dying_at_the_start_is_given_up(tmp_path: Path) -> None:
    script = TELL + "raise RuntimeError('no such luck')"
    with supervised(tmp_path, ready=False, bad=script) as system:
        system.line("^bad exited with code 1: RuntimeError: no such luck; starting it again")
        system.line(
            "^gave up: bad cannot be started: it exited with code 1: RuntimeError: no such luck, 5 times in a row"
        )
        assert system.process.wait(5) == 1


def test_a_part_that_keeps_dying_later_is_started_again_and_again(tmp_path: Path) -> None:
    with supervised(tmp_path, bad=TELL + "os._exit(7)") as system:
        for _ in range(6):  # one more than are tolerated at the start
            system.line("^bad exited with code 7; starting it again")


@pytest.mark.parametrize("text", ["plain words", '{"level":"info","message":"hello"}', "[1]", '"x"'])
def test_everything_a_part_writes_is_kept_in_its_log(tmp_path: Path, text: str) -> None:
    script = GOOD.replace('tell(f"pid', f'print({text!r}, flush=True)\ntell(f"pid')
    with supervised(tmp_path, only=script) as system:
        system.pid("only")
        assert (tmp_path / "only.jsonl").read_text().splitlines()[0] == text
