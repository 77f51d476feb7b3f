"""The examples as their READMEs tell them: every command as it stands there, against a system of its own.

Its steps are those of `pages`; an answer is what a person sees in a terminal. `JOB` and `RETRY` are the ids of the jobs
that were submitted and retried last.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.contract.object_servers import AwsServer
from tests.e2e.pages import Step, shell, steps, terminal
from tests.e2e.system import system

EXAMPLES = Path(__file__).parents[2] / "examples"
SUBMITTED = re.compile(r"^submitted job (\w{16}) to \w+(, the failed batches of)?", re.MULTILINE)

pytestmark = pytest.mark.timeout(180)


class Reader:
    """Someone who follows a README in a terminal, in a copy of its folder."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self._jobs = {"JOB": "JOB", "RETRY": "RETRY"}

    def follow(self, step: Step) -> None:
        seen = self._run(replace(step, commands=self._named(step.commands)))
        for job, retried in SUBMITTED.findall(seen):
            self._jobs["RETRY" if retried else "JOB"] = job
        replace(step, answer=self._named(step.answer)).check(self._folder.name, seen)

    def _named(self, text: str) -> str:
        return re.sub(r"\b(JOB|RETRY)\b", lambda name: self._jobs[name[0]], text)

    def _run(self, step: Step) -> str:
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", step.commands],
            cwd=self._folder,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        where = f"{step.commands}\nended with exit code {done.returncode}:\n{done.stdout}"
        assert done.returncode == step.exit_code, where
        return done.stdout


@dataclass(frozen=True)
class Example:
    """A running copy of an example."""

    reader: Reader
    steps: list[Step]


@contextmanager
def example(name: str, directory: Path, environ: Mapping[str, str] | None = None) -> Iterator[Example]:
    """An example, copied, with the system that its README starts, on free ports; `environ` is in that one's shell."""
    folder = directory / name
    shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    first, *others = steps(folder / "README.md")
    assert first.commands.startswith("cortex up"), f"{name} does not begin with the system that its commands need"
    options = first.commands.replace('"$PWD"', str(folder)).split()[2:]
    with system(directory, {**terminal(directory), **(environ or {})}, options) as running:
        yield Example(Reader(folder, {**shell(directory, running), **(environ or {})}), others)


@pytest.mark.parametrize("name", ["digits", "photos", "languages", "tuning"])
def test_the_commands_of_its_readme_do_what_it_says(name: str, tmp_path: Path) -> None:
    with example(name, tmp_path) as found:
        for step in found.steps:
            if "s3://" in step.commands:  # see below
                break
            found.reader.follow(step)


def test_photos_in_a_bucket_are_found_as_well(ministack: AwsServer, tmp_path: Path) -> None:
    with example("photos", tmp_path, ministack.environ) as found:
        start = next(index for index, step in enumerate(found.steps) if "s3://" in step.commands)
        found.reader.follow(found.steps[0])  # makes the album
        s3 = ministack.s3()
        s3.create_bucket(Bucket="my-bucket")
        for file in (tmp_path / "photos" / "album").rglob("*.*"):
            s3.upload_file(str(file), "my-bucket", str(file.relative_to(tmp_path / "photos")))
        for step in found.steps[start:]:
            found.reader.follow(step)


def test_every_example_is_in_the_table() -> None:
    listed = re.findall(r"^\| \[(\w+)\]\(\1/README.md\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.parent.name for path in EXAMPLES.glob("*/cortex.yaml"))
