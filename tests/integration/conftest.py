"""The server of `client_kit`, and the command line that talks to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli_kit import Cli, environment_of
from tests.integration.client_kit import Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


@pytest.fixture
def environ(server: Server, tmp_path: Path) -> dict[str, str]:
    return environment_of(server, tmp_path)


@pytest.fixture
def cli(environ: dict[str, str]) -> Cli:
    return Cli(environ)
