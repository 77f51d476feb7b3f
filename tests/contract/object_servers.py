"""Servers that speak S3 and SQS, as fixtures: started when a test asks for one, ended with the tests.

Each is a process on loopback with ports of its own, and dies with the process that started it, whatever happens to it.
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.ports import free_ports, unused_port

PATIENCE_S = 60.0
BIN = Path(sys.executable).parent
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")


@dataclass(frozen=True)
class AwsServer:
    """A server that is running."""

    name: str
    endpoint: str

    @property
    def environ(self) -> Mapping[str, str]:
        """What a program needs in its environment to use it and nothing else."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "everything",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def s3(self) -> Any:  # boto3 makes its clients' types at run time
        """A client, to put things there and to look at them."""
        keys = {"aws_access_key_id": "everything", "aws_secret_access_key": "secret"}
        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", **keys)

    @property
    def environ_of_nobody(self) -> Mapping[str, str]:
        """The same for somebody who is known and may do nothing; only seaweedfs tells the two apart."""
        return {**self.environ, "AWS_ACCESS_KEY_ID": "nothing", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsServer]:
    """S3 and SQS."""
    with running_ministack(tmp_path_factory.mktemp("ministack")) as server:
        yield server


@contextmanager
def running_ministack(directory: Path) -> Iterator[AwsServer]:
    """The same, with its data in an empty directory."""
    port = unused_port()
    environ = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "SERVICES": "s3,sqs"}
    with running("ministack", [str(BIN / "ministack")], port, directory, environ) as server:
        yield server


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsServer]:
    """S3 and SQS, by somebody else."""
    port = unused_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running("moto", command, port, tmp_path_factory.mktemp("moto"), {}) as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsServer]:
    """A real S3 store, which asks who is there."""
    with running_seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@contextmanager
def running_seaweedfs(directory: Path) -> Iterator[AwsServer]:
    """The same, with its data in an empty directory."""
    names = ["volume.port", "volume.port.grpc", "master.port", "master.port.grpc", "filer.port", "filer.port.grpc"]
    ports = dict(zip([*names, "s3.port", "s3.port.grpc"], free_ports(8), strict=True))
    actions = {"everything": ["Admin", "Read", "Write", "List"], "nothing": ["Read:another-bucket"]}
    config = [
        {"name": name, "credentials": [{"accessKey": name, "secretKey": "secret"}], "actions": allowed}
        for name, allowed in actions.items()
    ]
    (directory / "s3.json").write_text(json.dumps({"identities": config}))
    options = {
        **ports,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "dir": directory,
        "master.telemetry": "false",
        "volume.max": 1000,
        "master.volumeSizeLimitMB": 64,
        "s3.config": directory / "s3.json",
        "s3.iam": "false",
        "s3.autoCreateBucket": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": directory / "s3.sock",
        "filer.localSocket": directory / "filer.sock",
    }
    command = [str(BIN / "weed"), "server", "-filer", "-s3", *(f"-{name}={value}" for name, value in options.items())]

    def has_volumes() -> bool:
        """It takes requests before it has a place for data."""
        with urllib.request.urlopen(f"http://127.0.0.1:{ports['master.port']}/dir/assign") as answer:
            return "fid" in json.load(answer)

    with running("seaweedfs", command, ports["s3.port"], directory, {}, has_volumes) as server:
        try:
            yield server
        finally:
            for port in ports.values():  # it keeps sockets there under names of its own
                for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                    left.unlink()


@contextmanager
def running(
    name: str,
    command: list[str],
    port: int,
    directory: Path,
    environ: Mapping[str, str],
    ready: Callable[[], bool] = lambda: True,
) -> Iterator[AwsServer]:
    """A server's process, from when it answers until the end of the block."""
    endpoint = f"http://127.0.0.1:{port}"
    log = directory / "log"
    # Killed, it leaves its logs and pid files in the directory for temporary files: that is the tests' as well.
    environ = {**os.environ, "TMPDIR": str(directory), **environ}
    with log.open("wb") as output:
        process = subprocess.Popen([*DIES_WITH_US, *command], cwd=directory, env=environ, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not (_answers(endpoint) and _is(ready)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{name} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        yield AwsServer(name, endpoint)
    finally:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _is(ready: Callable[[], bool]) -> bool:
    with suppress(OSError, ValueError):
        return ready()
    return False
