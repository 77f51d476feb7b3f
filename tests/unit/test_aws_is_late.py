"""AWS's libraries are imported by who uses them, when they are used."""

import subprocess
import sys

import pytest

AWS = ("aioboto3", "aiobotocore", "aiohttp", "boto3", "botocore")

PROGRAM = """
import sys
import services.scheduler.__main__, services.scheduler.wiring
from services.scheduler.adapters.aws.session import AwsSession
from services.scheduler.adapters.object_stores import ObjectStores
ObjectStores(AwsSession({}), [])
print(*(name for name in sys.argv[1:] if name in sys.modules))
"""


def test_a_scheduler_that_uses_no_aws_does_not_load_it() -> None:
    found = subprocess.run([sys.executable, "-c", PROGRAM, *AWS], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


@pytest.mark.parametrize("name", AWS)
def test_it_is_installed_with_the_scheduler(name: str) -> None:
    __import__(name)
