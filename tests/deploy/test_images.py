"""The images: what their files say, and that what they install is all that their service needs.

No image is built here. Instead each service is imported in a process that sees only the distributions which its image
installs: a dependency that is missing from an extra shows as it would in the image.
"""

import json
import re
import subprocess
import sys
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.deploy.chart import CLOSED, pods, render

ROOT = Path(__file__).parents[2]
FILES = {path.stem: path.read_text() for path in (ROOT / "deploy" / "docker").glob("*.Dockerfile")}

PROGRAM = """
import importlib, json, pkgutil, sys
service, hidden = sys.argv[1], set(json.loads(sys.argv[2]))

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"{name} is not in the image", name=name)

sys.meta_path.insert(0, Hide())
package = importlib.import_module(f"services.{service}")
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
"""


def extras(dockerfile: str) -> set[str]:
    found = re.search(r'"cortex-batch\[([a-z,]+)\] @', dockerfile)
    assert found
    return set(found[1].split(","))


def installed(dockerfile: str) -> set[str]:
    """The distributions that an installer would bring along, by their names in lower case with dashes."""
    done: set[tuple[str, str]] = set()
    due = [("cortex-batch", extra) for extra in extras(dockerfile)]
    while due:
        name, extra = due.pop()
        if (name, extra) in done:
            continue
        done.add((name, extra))
        for requirement in map(Requirement, distribution(name).requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                due += [(plain(requirement.name), more) for more in {"", *requirement.extras}]
    return {name for name, _ in done}


def plain(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


@pytest.mark.parametrize("service", FILES)
def test_an_images_extras_bring_all_that_its_service_imports(service: str) -> None:
    there = installed(FILES[service])
    hidden = [
        module for module, owners in packages_distributions().items() if not there & {plain(owner) for owner in owners}
    ]
    assert "pytest" in hidden
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, service, json.dumps(hidden)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("service", FILES)
def test_an_image_runs_its_service_as_nobody(service: str) -> None:
    text = FILES[service]
    last = text[text.rindex("FROM ") :]
    assert "USER 65532:65532" in last
    assert f'ENTRYPOINT ["python", "-P", "-m", "services.{service}"]' in last
    assert "RUN" not in last, "what builds stays in the first stage"


def test_the_chart_runs_these_images_at_the_ports_that_they_open() -> None:
    by_image = {
        container["image"].partition(":")[0].removeprefix("cortex-batch/"): container
        for pod in pods(render(CLOSED)).values()
        for container in pod["containers"]
    }
    assert set(by_image) - {"envoyproxy/envoy"} == set(FILES) - {"dequeuer"}
    for service, container in by_image.items():
        if service in FILES:
            opened = re.search(r"^EXPOSE (.*)$", FILES[service], re.MULTILINE)
            assert opened
            assert opened[1].split() == [str(port["containerPort"]) for port in container["ports"]]
