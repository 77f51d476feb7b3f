"""docs/jobs.md, word for word: its files are made, its commands run in order in one shell, its answers compared.

An answer is the block behind a command. `...` in it stands for anything; a JSON answer may have more members.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.system import CORTEX, system
from tests.integration.sqs_kit import ministack

PAGE = Path(__file__).parents[2] / "docs" / "jobs.md"

pytestmark = pytest.mark.timeout(120)


@dataclass
class Command:
    """A shell block, and the answer that the page shows for it."""

    line: int
    text: str
    answer: str = ""
    language: str = ""


def blocks() -> Iterator[tuple[int, str, str]]:
    """Line, language and text of each block."""
    page = PAGE.read_text()
    for match in re.finditer(r"^```(\w+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        yield page.count("\n", 0, match.start()) + 1, match[1], match[2]


def commands() -> list[Command]:
    found: list[Command] = []
    behind = ""
    for line, language, text in blocks():
        if language == "sh":
            found.append(Command(line, text))
        elif language in ("json", "text") and behind == "sh":
            found[-1].answer, found[-1].language = text, language
        behind = language
    return found


def write_files(directory: Path) -> None:
    for _, language, text in blocks():
        if language in ("python", "yaml"):
            (directory / text.splitlines()[0].removeprefix("# ")).write_text(text)


def run(found: list[Command], directory: Path, environ: dict[str, str]) -> list[str]:
    """The output of each command, all in one shell."""
    script = "".join(f"echo {c.line} > line\n{{\n{c.text}}} > out.{n}\n" for n, c in enumerate(found))
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=directory, env=environ, capture_output=True)
    where = (directory / "line").read_text().strip()
    assert done.returncode == 0, f"{PAGE.name}, line {where}: {done.stderr.decode()}"
    return [(directory / f"out.{n}").read_text() for n in range(len(found))]


def fits(shown: Any, given: Any) -> bool:
    """Whether an answer is the one that the page shows."""
    match shown:
        case "...":
            return True
        case dict():
            return all(name in given and fits(value, given[name]) for name, value in shown.items())
        case list():
            return len(shown) == len(given) and all(map(fits, shown, given))
        case _:
            return bool(shown == given)


def pattern(shown: str) -> str:
    return ".*".join(map(re.escape, shown.split("...")))


def check(command: Command, output: str) -> None:
    where = f"{PAGE.name}, line {command.line}: {output}"
    if command.language == "json":
        shown = json.loads(re.sub(r",\s*\.\.\.\s*}", "}", command.answer))  # `...` as the last member
        assert fits(shown, json.loads(output)), where
    elif command.language == "text":
        assert re.fullmatch(pattern(command.answer.strip()), output.strip(), re.DOTALL), where


def test_every_example_does_what_the_page_says(tmp_path: Path) -> None:
    write_files(tmp_path)
    found = commands()
    with ministack() as aws, system(tmp_path, aws.environ, ["--input-root", str(tmp_path)]) as running:
        here = {"http://127.0.0.1:8888": running.url, "arn:aws:sqs:us-west-2:123456789012:dead": aws.create("dead")}
        for command, (there, value) in product(found, here.items()):
            command.text = command.text.replace(there, value)
        environ = {
            **os.environ,
            "PATH": f"{CORTEX.parent}:{os.environ['PATH']}",
            "CORTEX_CLI_CONFIG_DIR": str(tmp_path / "cli"),
        }
        configure = ["cortex", "env", "configure", "local", "--operator-endpoint", running.url]
        subprocess.run(configure, env=environ, check=True, capture_output=True)
        for command, output in zip(found, run(found, tmp_path, environ), strict=True):
            check(command, output)
