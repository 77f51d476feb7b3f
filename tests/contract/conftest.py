"""The kinds of workers that the contract of drivers is held to."""

import pytest

from services.common.engine import ENGINES
from tests.contract.driver_kits import DriverKit, EngineKit, LocalKit


@pytest.fixture(params=["local", *ENGINES])
def kit(request: pytest.FixtureRequest) -> DriverKit:
    return LocalKit() if request.param == "local" else EngineKit(request.getfixturevalue(request.param))
