"""docs/kubernetes.md: what can be checked of it without a cluster of one's own."""

import asyncio
import itertools
import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from cortex.cli import app
from services.common.kubernetes import BATCH_APIS, BATCH_JOBS
from tests.cluster.kit import TestCluster
from tests.deploy.chart import CHART, VALUES, pods, render
from tests.e2e.pages import blocks
from tests.integration.controller_kit import CRDS, KUBECTL, needs_kubectl

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "kubernetes.md"
TEXT = PAGE.read_text()
COMMANDS = [
    shlex.split(line.partition("#")[0], posix=True)
    for block in blocks(PAGE)
    if block.language == "sh"
    for line in block.text.replace("\\\n", " ").splitlines()
]


def lines(*beginning: str) -> list[list[str]]:
    found = [command for command in COMMANDS if command[: len(beginning)] == list(beginning)]
    assert found, f"the page has no {' '.join(beginning)}"
    return found


@needs_kubectl
async def test_its_resources_are_taken_by_an_api_server() -> None:
    assert KUBECTL is not None
    manifests = [block.text for block in blocks(PAGE) if block.language == "yaml"]
    async with TestCluster() as cluster:
        for arguments, given in ((["-f", str(CRDS)], ""), (["-f", "-"], "\n---\n".join(manifests))):
            kubectl = await asyncio.create_subprocess_exec(
                KUBECTL,
                "apply",
                *arguments,
                env={"KUBECONFIG": str(cluster.kubeconfig), "HOME": str(cluster.kubeconfig.parent)},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            said, _ = await kubectl.communicate(given.encode())
            assert kubectl.returncode == 0, said.decode()
        kept = [await cluster.client.list(resource, "default") for resource in (BATCH_APIS, BATCH_JOBS)]
        assert [len(objects) for objects, _ in kept] == [1, 1]


def test_its_helm_commands_name_the_chart_and_values_that_there_are() -> None:
    for command in (*lines("helm", "install"), *lines("helm", "upgrade")):
        assert command[2] == "cortex"
        assert (ROOT / command[3]) == CHART
        files = [ROOT / value for option, value in itertools.pairwise(command) if option == "-f"]
        assert [file.exists() for file in files] == [True]


def test_its_images_are_those_of_the_chart_for_a_laptop() -> None:
    (named,) = re.findall(r"for service in (.*); do", TEXT)
    built = {f"cortex-batch/{service}" for service in named.split()}
    (version,) = set(re.findall(r"cortex-batch/\$service:(\S+)", TEXT))
    rendered = render(VALUES["kind"])
    images = [container["image"] for pod in pods(rendered).values() for container in pod["containers"]]
    ours = {image for image in images if image.startswith("cortex-batch/")}
    assert ours == {f"{image}:{version}" for image in built - {"cortex-batch/dequeuer"}}
    assert version == yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert all((ROOT / "deploy/docker" / f"{service}.Dockerfile").exists() for service in named.split())


def test_objects_that_it_names_are_there() -> None:
    names = {one["metadata"]["name"] for one in render(VALUES["kind"])}
    mentioned = set(re.findall(r"(?:deployment|service)/(cortex-[a-z-]+)", TEXT))
    assert mentioned
    assert mentioned <= names


@pytest.mark.parametrize("command", [command for command in COMMANDS if command[:1] == ["cortex"]], ids=" ".join)
def test_its_cortex_commands_and_options_exist(command: list[str]) -> None:
    found = app.cortex.get_command(click.Context(app.cortex), command[1])
    assert found is not None
    known = {name for parameter in found.params for name in parameter.opts}
    assert {word for word in command if word.startswith("--")} <= known
