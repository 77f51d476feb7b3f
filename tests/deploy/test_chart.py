"""The chart: every values file makes objects that Kubernetes takes, and nothing is more open than it must be."""

import itertools
import json

import helm_python as helm
import kubernetes_validate
import pytest

from services.collector.settings import Settings as CollectorSettings
from services.common.settings import Environment
from services.controller.settings import Settings as ControllerSettings
from services.gateway import settings as gateway_settings
from services.scheduler.settings import Settings as SchedulerSettings
from tests.deploy.chart import CHART, CLOSED, NAMESPACE, VARIANTS, Json, objects, pods, render
from tests.deploy.queries import ALERTS, DASHBOARDS

OLDEST, NEWEST = "1.33", kubernetes_validate.latest_version()
OTHERS = {"monitoring.coreos.com/v1"}
"""Kinds that Kubernetes itself does not know."""


@pytest.fixture(params=VARIANTS)
def rendered(request: pytest.FixtureRequest) -> list[Json]:
    return render(VARIANTS[request.param])


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_one_that_kubernetes_takes(rendered: list[Json], version: str) -> None:
    checked = [one for one in rendered if one["apiVersion"] not in OTHERS]
    assert len(checked) > 20
    for one in checked:
        kubernetes_validate.validate(one, version, strict=True)


def test_no_two_objects_have_one_name(rendered: list[Json]) -> None:
    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in rendered]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("variant", VARIANTS)
def test_helm_finds_nothing_to_complain_about(variant: str) -> None:
    report = helm.lint(CHART, VARIANTS[variant], strict=True)
    assert report["errors"] == []
    assert {message["error"] for message in report["messages"]} <= {"icon is recommended"}


def test_services_run_as_nobody_with_no_rights_on_a_file_system_that_cannot_be_changed(rendered: list[Json]) -> None:
    """The Pod Security Standard `restricted`, and a bit more."""
    for name, pod in pods(rendered).items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}, name
        assert not any("hostPath" in volume for volume in pod["volumes"]), name
        for container in [*pod.get("initContainers", ()), *pod["containers"]]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["limits"]["memory"], name


def test_only_who_talks_to_kubernetes_has_a_token_for_it(rendered: list[Json]) -> None:
    with_token = {name for name, pod in pods(rendered).items() if pod.get("automountServiceAccountToken", True)}
    assert with_token <= {"cortex-cortex-batch-scheduler", "cortex-cortex-batch-controller"}
    assert all(
        not account.get("automountServiceAccountToken", True)
        for name, account in objects(rendered, "ServiceAccount").items()
        if name.endswith("-worker")
    )


def test_no_role_allows_everything_of_anything(rendered: list[Json]) -> None:
    roles = [*objects(rendered, "Role").values(), *objects(rendered, "ClusterRole").values()]
    for rule in itertools.chain.from_iterable(role["rules"] for role in roles):
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], rule
    assert not objects(render(CLOSED), "ClusterRole"), "the default is confined to its namespaces"


def test_two_schedulers_stand_by_for_each_other_and_drains_take_one_at_a_time() -> None:
    rendered = render(CLOSED)
    scheduler = objects(rendered, "Deployment")["cortex-cortex-batch-scheduler"]["spec"]
    assert scheduler["replicas"] == 2
    assert {name.rsplit("-", 1)[1] for name in objects(rendered, "PodDisruptionBudget")} == {
        "edge",
        "gateway",
        "scheduler",
    }


def environment(pod: Json) -> dict[str, str]:
    """What a pod's main container finds, with something for what comes from elsewhere."""
    elsewhere = {"CORTEX_LEDGER": CLOSED["ledger"]["url"], "CORTEX_POD_NAME": "pod-1"}
    return {one["name"]: one.get("value") or elsewhere[one["name"]] for one in pod["containers"][0]["env"]}


def test_every_service_understands_its_environment(rendered: list[Json]) -> None:
    by_name = {name.rsplit("-", 1)[1]: pod for name, pod in pods(rendered).items()}
    gateway = gateway_settings.read(Environment(environment(by_name["gateway"])))
    assert gateway.address.port == 8888
    scheduler = SchedulerSettings.from_environment(environment(by_name["scheduler"]))
    assert (scheduler.grpc_address, scheduler.metrics_address) == ("0.0.0.0:8889", "0.0.0.0:9090")
    assert scheduler.lease == "cortex-cortex-batch-scheduler"
    assert ControllerSettings.read(Environment(environment(by_name["controller"]))).scheduler == gateway.scheduler
    assert CollectorSettings.read(Environment(environment(by_name["collector"]))).address == "0.0.0.0:4317"


def test_the_url_that_chained_jobs_use_leads_to_the_edge() -> None:
    rendered = render(CLOSED)
    service = objects(rendered, "Service")["ingressgateway-operator"]
    assert service["metadata"]["namespace"] == "istio-system"
    name, namespace = service["spec"]["externalName"].split(".")[:2]
    assert namespace == NAMESPACE
    (port,) = objects(rendered, "Service")[name]["spec"]["ports"]
    assert port["port"] == 80
    assert "ingressgateway-operator" not in objects(render(CLOSED, {"chaining": {"enabled": False}}), "Service")


@pytest.mark.parametrize(("way", "ports"), [("edge", [4317, 8080, 80]), ("scheduler", [4317, 8080, 80, 8889])])
def test_workers_reach_what_their_work_needs_and_nobody_reaches_them(way: str, ports: list[int]) -> None:
    rendered = render(CLOSED, {"networkPolicy": {"workerEgress": []}, "workers": {"connect": way}})
    policies = {name.rsplit("-", 1)[1]: one["spec"] for name, one in objects(rendered, "NetworkPolicy").items()}
    worker = policies["worker"]
    assert "ingress" not in worker
    assert "Ingress" in worker["policyTypes"]
    dns, *rules = worker["egress"]
    assert [port["port"] for port in dns["ports"]] == [53, 53]
    assert [port["port"] for rule in rules for port in rule["ports"]] == ports
    assert (8889 in ports) == any("namespaceSelector" in peer for peer in callers(policies["scheduler"], 8889))


def test_the_ports_that_workers_may_use_are_those_of_pods_and_of_services() -> None:
    """Some network plugins look at a packet before a Service's address is replaced by a pod's, others after it."""
    rendered = render(CLOSED)
    service = objects(rendered, "Service")["cortex-cortex-batch-edge-in-cluster"]["spec"]
    (pod,) = (pod for name, pod in pods(rendered).items() if name.endswith("-edge"))
    named = {port["name"]: port["containerPort"] for one in pod["containers"] for port in one["ports"]}
    wanted = {number for port in service["ports"] for number in (port["port"], named[port["targetPort"]])}
    worker = objects(rendered, "NetworkPolicy")["cortex-cortex-batch-worker"]["spec"]
    given = [{port["port"] for port in rule["ports"]} for rule in worker["egress"] if "ports" in rule]
    assert wanted in given


def test_what_only_answers_may_call_nobody() -> None:
    policies = objects(render(VARIANTS["kind"]), "NetworkPolicy")
    for component in ("collector", "postgresql"):
        policy = policies[f"cortex-cortex-batch-{component}"]["spec"]
        assert ("Egress" in policy["policyTypes"], policy["egress"]) == (True, [])


def test_replicas_are_spread_over_nodes_and_zones_each_version_by_itself(rendered: list[Json]) -> None:
    for name, pod in pods(rendered).items():
        spread = {one["topologyKey"]: one for one in pod["topologySpreadConstraints"]}
        assert spread.keys() == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}, name
        assert all(one["matchLabelKeys"] == ["pod-template-hash"] for one in spread.values()), name


def test_a_pod_has_more_time_to_end_than_its_balancers_take_to_notice(rendered: list[Json]) -> None:
    for name, pod in pods(rendered).items():
        sleeps = [one["lifecycle"]["preStop"]["sleep"]["seconds"] for one in pod["containers"] if "lifecycle" in one]
        assert pod.get("terminationGracePeriodSeconds", 30) >= max(sleeps, default=0) + 25, name


def test_only_the_edge_reaches_the_gateway() -> None:
    policy = objects(render(CLOSED), "NetworkPolicy")["cortex-cortex-batch-gateway"]["spec"]
    (peer,) = callers(policy, 8888)
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "edge"


def callers(policy: Json, port: int) -> list[Json]:
    """Who may reach a port."""
    return [
        peer for rule in policy["ingress"] if port in [one["port"] for one in rule["ports"]] for peer in rule["from"]
    ]


def test_images_can_be_named_by_digest_or_tag_and_come_from_one_registry() -> None:
    digest = "sha256:" + "0" * 64
    rendered = render(
        CLOSED,
        {"imageRegistry": "registry.example.org/", "gateway": {"image": {"digest": digest}}},
        {"scheduler": {"image": {"tag": "edge"}}},
    )
    images = {name: pod["containers"][0]["image"] for name, pod in pods(rendered).items()}
    assert images["cortex-cortex-batch-gateway"] == f"registry.example.org/cortex-batch/gateway@{digest}"
    assert images["cortex-cortex-batch-scheduler"] == "registry.example.org/cortex-batch/scheduler:edge"


def test_alerts_and_dashboards_are_those_of_the_deploy_folder() -> None:
    rendered = render(VARIANTS["most"])
    (rules,) = objects(rendered, "PrometheusRule").values()
    assert [rule["alert"] for group in rules["spec"]["groups"] for rule in group["rules"]] == list(ALERTS)
    shown = {
        key.removesuffix(".json"): json.loads(text)
        for name, one in objects(rendered, "ConfigMap").items()
        if "-dashboard-" in name
        for key, text in one["data"].items()
    }
    assert shown == DASHBOARDS
