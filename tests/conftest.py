"""What tests of several kinds share."""

import signal
import tempfile
from collections.abc import Iterator

import pytest

from services.common.engine import ENGINES
from tests.contract.object_servers import ministack, moto, seaweedfs
from tests.engines import RealEngine, usable
from tests.integration.postgres_kit import postgres

__all__ = ["ministack", "moto", "postgres", "seaweedfs"]

# Somebody who runs the tests in the background may have Ctrl-C ignored, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def podman() -> Iterator[RealEngine]:
    """Found in the environment by all that is started meanwhile."""
    yield from _usable("podman")


@pytest.fixture(scope="session")
def docker() -> Iterator[RealEngine]:
    """Found in the environment by all that is started meanwhile."""
    yield from _usable("docker")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> RealEngine:
    """Each of them."""
    found: RealEngine = request.getfixturevalue(request.param)
    return found


def _usable(program: str) -> Iterator[RealEngine]:
    with usable(program) as found, pytest.MonkeyPatch.context() as patch:
        for name, value in found.environ.items():
            patch.setenv(name, value)
        yield found


@pytest.fixture(scope="session", autouse=True)
def directories_for_sockets() -> Iterator[None]:
    """A system that is killed leaves its own behind for the next one on the same data: here they go with the tests."""
    with tempfile.TemporaryDirectory(prefix="cb-") as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", directory)
        yield
