"""The kinds of workers that the contract of drivers is held to."""

import pytest

from tests.contract.driver_kits import DriverKit, LocalKit, PodmanKit


@pytest.fixture(params=["local", "podman"])
def kit(request: pytest.FixtureRequest) -> DriverKit:
    if request.param == "podman":
        return PodmanKit(request.getfixturevalue("podman"))
    return LocalKit()
