"""docs/jobs.md, word for word, with a real queue for dead letters."""

from itertools import product
from pathlib import Path

import pytest

from tests.e2e.pages import follow, shell, steps, write_files
from tests.e2e.system import system
from tests.integration.sqs_kit import ministack
from tests.ports import unused_port

PAGE = Path(__file__).parents[2] / "docs" / "jobs.md"

pytestmark = pytest.mark.timeout(120)


def test_every_example_does_what_the_page_says(tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    found = steps(PAGE)
    with ministack() as aws, system(tmp_path, aws.environ, ["--input-root", str(tmp_path)]) as running:
        here = {
            "9000": str(unused_port()),
            "http://127.0.0.1:8888": running.url,
            "arn:aws:sqs:us-west-2:123456789012:dead": aws.create("dead"),
        }
        for step, (there, value) in product(found, here.items()):
            step.commands = step.commands.replace(there, value)
        follow(PAGE.name, found, tmp_path, shell(tmp_path, running))
