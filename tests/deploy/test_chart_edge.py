"""What the chart tells the driver and the edge, as they understand it."""

import subprocess
from pathlib import Path

import pytest

from services.common.channels import has_replicas
from services.gateway.envoy import bootstrap
from services.gateway.envoy import settings as edge_settings
from services.scheduler.adapters.kubernetes_workers.settings import KubernetesWorkerSettings, load_settings
from tests.deploy.chart import CLOSED, NAMESPACE, VALUES, VARIANTS, Json, objects, render
from tests.edge_kit import ENVOY, Issuer, certificate


@pytest.fixture(params=VARIANTS)
def rendered(request: pytest.FixtureRequest) -> list[Json]:
    return render(VARIANTS[request.param])


def test_the_driver_and_the_edge_understand_what_they_are_told(rendered: list[Json], tmp_path: Path) -> None:
    maps = objects(rendered, "ConfigMap")
    (tmp_path / "kubernetes.yaml").write_text(maps["cortex-cortex-batch-scheduler"]["data"]["kubernetes.yaml"])
    driver = load_settings(tmp_path / "kubernetes.yaml")
    edge = edge_settings.parse(maps["cortex-cortex-batch-edge"]["data"]["settings.yaml"])
    bootstrap.document(edge)
    services = objects(rendered, "Service")
    for host, port in (
        _host_and_port(driver.scheduler_address),
        (driver.public_url.removeprefix("http://"), 80),
        *((address.host, address.port) for address in (*edge.gateway, *edge.scheduler)),
    ):
        name, namespace, *rest = host.split(".")
        assert (namespace, rest) == (NAMESPACE, ["svc", "cluster", "local"])
        assert port in [one["port"] for one in services[name]["spec"]["ports"]], f"{host} does not listen at {port}"


def test_envoy_takes_what_the_edge_makes_of_it(rendered: list[Json], tmp_path: Path) -> None:
    text = objects(rendered, "ConfigMap")["cortex-cortex-batch-edge"]["data"]["settings.yaml"]
    tls = certificate(tmp_path)
    (tmp_path / "jwks.json").write_text(Issuer().jwks())
    here = {
        "/etc/tls/tls.crt": tls["certificate"],
        "/etc/tls/tls.key": tls["key"],
        "/etc/ssl/certs/ca-certificates.crt": tls["certificate"],
        "/etc/edge/jwks.json": str(tmp_path / "jwks.json"),
    }
    made = bootstrap.document(edge_settings.parse(text))
    for there, file in here.items():
        made = made.replace(there, file)
    (tmp_path / "envoy.yaml").write_text(made)
    command: list[str | Path] = [ENVOY, "--mode", "validate", "--log-level", "warning", "-c", tmp_path / "envoy.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr, done.stderr


def _host_and_port(target: str) -> tuple[str, int]:
    host, port = target.removeprefix("dns:///").rsplit(":", 1)
    return host, int(port)


def told_to_the_driver(directory: Path, *values: Json) -> KubernetesWorkerSettings:
    data = objects(render(*values), "ConfigMap")["cortex-cortex-batch-scheduler"]
    file = directory / "settings.yaml"
    file.write_text(data["data"]["kubernetes.yaml"])
    return load_settings(file)


def test_on_a_laptop_workers_run_on_the_node_that_there_is(tmp_path: Path) -> None:
    """An empty map in a values file changes nothing: Helm lays maps over each other."""
    driver = told_to_the_driver(tmp_path, VALUES["kind"])
    assert (driver.node_selector, driver.tolerations) == ({}, ())


def test_workers_find_the_leader_by_the_edge_or_by_themselves(tmp_path: Path) -> None:
    def address(way: str) -> str:
        return told_to_the_driver(tmp_path, CLOSED, {"workers": {"connect": way}}).scheduler_address

    assert not has_replicas(address("edge")), "the edge answers no questions about leaders"
    assert has_replicas(address("scheduler"))


def test_the_edge_is_closed_unless_values_open_it() -> None:
    def told(values: Json) -> edge_settings.Settings:
        text = objects(render(values), "ConfigMap")["cortex-cortex-batch-edge"]["data"]["settings.yaml"]
        return edge_settings.parse(text)

    assert told(CLOSED).jwt is not None
    assert not told(CLOSED).open
    assert told(VALUES["kind"]).open, "a laptop"
    assert not told(VALUES["eks"]).open
