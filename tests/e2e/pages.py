"""Pages that people read, followed word for word: files made, commands run in order in one shell, answers compared.

A page's steps are its `sh` blocks; a `text` or `json` block right behind one is what it answers. `...` in it stands for
anything; a JSON answer may have more members. A step whose answer tells of failed batches ends with exit code 3.
"""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.system import CORTEX, System

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FAILED_BATCHES = 3


@dataclass
class Block:
    """Something in a fence."""

    line: int
    language: str
    text: str


@dataclass
class Step:
    """Commands, and what is shown as their answer."""

    line: int
    commands: str
    answer: str = ""
    language: str = ""

    @property
    def exit_code(self) -> int:
        """What the commands end with."""
        return FAILED_BATCHES if "completed_with_failures" in self.answer else 0

    def check(self, page: str, output: str) -> None:
        """The output is the answer that the page shows."""
        where = f"{page}, line {self.line}: {self.commands}\nshown:\n{self.answer}\nseen:\n{output}"
        if self.language == "json":
            shown = json.loads(re.sub(r",\s*\.\.\.\s*}", "}", self.answer))  # `...` as the last member
            assert _fits(shown, json.loads(output)), where
        elif self.language == "text":
            pattern = ".*".join(map(re.escape, self.answer.strip().split("...")))
            assert re.fullmatch(pattern, output.strip(), re.DOTALL), where


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [Block(text.count("\n", 0, found.start()) + 1, found[1], found[2]) for found in _BLOCK.finditer(text)]


def steps(page: Path) -> list[Step]:
    found: list[Step] = []
    behind = ""
    for block in blocks(page):
        if block.language == "sh":
            found.append(Step(block.line, block.text))
        elif block.language in ("json", "text") and behind == "sh":
            found[-1].answer, found[-1].language = block.text, block.language
        behind = block.language
    return found


def write_files(page: Path, directory: Path) -> None:
    """The files that a page names in the first line of their blocks."""
    for block in blocks(page):
        if found := re.match(r"# (\S+\.(py|yaml))\n", block.text):
            (directory / found[1]).write_text(block.text)


def terminal(directory: Path) -> dict[str, str]:
    """The environment of somebody at work in a terminal, who has no system yet."""
    return {
        **os.environ,
        "PATH": f"{CORTEX.parent}:{os.environ['PATH']}",
        "CORTEX_CLI_CONFIG_DIR": str(directory / "cli"),
    }


def shell(directory: Path, running: System) -> dict[str, str]:
    """The environment of somebody who uses this system."""
    environ = terminal(directory)
    configure = ["cortex", "env", "configure", "local", "--operator-endpoint", running.url]
    subprocess.run(configure, env=environ, check=True, capture_output=True)
    return environ


def follow(page: str, found: list[Step], directory: Path, environ: Mapping[str, str]) -> list[str]:
    """Do what the steps say; their outputs."""
    script = ["set -euo pipefail"]
    for number, step in enumerate(found):
        fails = f" || test $? = {step.exit_code}" if step.exit_code else ""
        script += [f"echo {step.line} > .line", f"{{\n{step.commands}}} > .out.{number}{fails}"]
    done = subprocess.run(["bash", "-c", "\n".join(script)], cwd=directory, env=environ, capture_output=True)
    line = (directory / ".line").read_text().strip()
    assert done.returncode == 0, f"{page}, line {line}: exit code {done.returncode}: {done.stderr.decode()}"
    outputs = [(directory / f".out.{number}").read_text() for number in range(len(found))]
    for step, output in zip(found, outputs, strict=True):
        step.check(page, output)
    return outputs


def _fits(shown: Any, given: Any) -> bool:
    """Whether an answer is the one that the page shows."""
    match shown:
        case "...":
            return True
        case dict():
            return all(name in given and _fits(value, given[name]) for name, value in shown.items())
        case list():
            return len(shown) == len(given) and all(map(_fits, shown, given))
        case _:
            return bool(shown == given)
