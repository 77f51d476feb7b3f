"""What tests of several kinds share."""

import signal
import tempfile
from collections.abc import Iterator

import pytest

from tests.contract.object_servers import ministack, moto, seaweedfs
from tests.images import Podman, usable_podman
from tests.integration.postgres_kit import postgres

__all__ = ["ministack", "moto", "postgres", "seaweedfs"]

# Somebody who runs the tests in the background may have Ctrl-C ignored, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """Found in the environment by all that is started meanwhile."""
    with usable_podman() as found, pytest.MonkeyPatch.context() as patch:
        for name, value in found.environ.items():
            patch.setenv(name, value)
        yield found


@pytest.fixture(scope="session", autouse=True)
def directories_for_sockets() -> Iterator[None]:
    """A system that is killed leaves its own behind for the next one on the same data: here they go with the tests."""
    with tempfile.TemporaryDirectory(prefix="cb-") as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", directory)
        yield
