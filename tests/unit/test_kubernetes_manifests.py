"""What Kubernetes is given for a job: the mapping by example, and the schemas for whatever an API may say."""

import base64
import hashlib
import re
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cortex.version import version
from services.scheduler.adapters.kubernetes_workers.manifests import (
    Work,
    document_maps,
    job_manifest,
    parts_for,
    token_secret,
    worker_map,
)
from services.scheduler.adapters.kubernetes_workers.settings import NodeGroup
from services.scheduler.adapters.kubernetes_workers.worker_spec import worker_spec
from tests.unit.kubernetes_work import JOB_ID, job, of_api, work

VERSIONS = ("1.33", "1.37")
Json = dict[str, Any]


def pod(of: Work, parts: int = 0) -> Json:
    """The template's pod specification."""
    found: Json = job_manifest(of, parts)["spec"]["template"]["spec"]
    return found


def container(of: Work, index: int = 0) -> Json:
    found: Json = pod(of)["initContainers"][index]
    return found


def owner(of: Work) -> Json:
    """The Job as the API server knows it."""
    manifest = job_manifest(of, 0)
    manifest["metadata"]["uid"] = "0a0b"
    return manifest


def test_a_job_has_an_index_for_each_worker_and_ends_by_the_dequeuers_exit_codes() -> None:
    spec = job_manifest(work(), 0)["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert (spec["podReplacementPolicy"], "suspend" in spec) == ("Failed", False)
    assert spec["podFailurePolicy"]["rules"] == [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailIndex", "onExitCodes": {"containerName": "dequeuer", "operator": "In", "values": [64]}},
        {"action": "FailJob", "onExitCodes": {"containerName": "dequeuer", "operator": "In", "values": [65]}},
        {"action": "Ignore", "onExitCodes": {"containerName": "dequeuer", "operator": "In", "values": [66]}},
    ]


def test_the_users_containers_are_sidecars_and_the_dequeuer_is_the_main_one() -> None:
    found = pod(work({"name": "api", "args": ["$(CORTEX_PORT)"], "env": {"A": "$(CORTEX_PORT)"}}, {"name": "model"}))
    assert [each["name"] for each in found["containers"]] == ["dequeuer"]
    assert [(each["name"], each["restartPolicy"]) for each in found["initContainers"]] == [
        ("api", "Always"),
        ("model", "Always"),
    ]
    first = found["initContainers"][0]
    assert (first["image"], first["command"], first["args"]) == ("hello:1", ["python", "app.py"], ["$(CORTEX_PORT)"])
    assert {each["name"]: each["value"] for each in first["env"]} == {
        "CORTEX_PORT": "8080",
        "CORTEX_VERSION": version(),
        "CORTEX_CLI_CONFIG_DIR": "/cortex/client",
        "CORTEX_LOG_LEVEL": "INFO",
        "A": "$(CORTEX_PORT)",
    }
    assert first["env"][-1]["name"] == "A"  # may refer to what stands before it
    assert (found["restartPolicy"], found["automountServiceAccountToken"]) == ("Never", False)
    assert found["enableServiceLinks"] is False


def test_containers_share_mnt_and_find_the_contracts_files_in_directories() -> None:
    found = pod(work({"name": "api"}, {"name": "model"}))
    for each in found["initContainers"]:
        assert {mount["mountPath"]: mount["name"] for mount in each["volumeMounts"]} == {
            "/mnt": "mnt",
            "/cortex/spec": "spec",
            "/cortex/client": "client",
        }
        assert not any("subPath" in mount for mount in each["volumeMounts"])
    volumes = {volume["name"]: volume for volume in found["volumes"]}
    assert volumes["mnt"] == {"name": "mnt", "emptyDir": {}}
    assert volumes["spec"]["configMap"] == {"name": f"hello-{JOB_ID}-spec"}
    assert volumes["client"]["configMap"]["items"] == [{"key": "cli.yaml", "path": "cli.yaml"}]


def test_the_token_is_the_dequeuers_alone() -> None:
    found = pod(work())
    assert "token" in {mount["name"] for mount in found["containers"][0]["volumeMounts"]}
    assert "token" not in {mount["name"] for each in found["initContainers"] for mount in each["volumeMounts"]}


def test_the_dequeuer_asks_for_little_may_do_little_and_knows_itself_by_its_pod() -> None:
    (found,) = pod(work())["containers"]
    assert found["resources"] == {"requests": {"cpu": "100m", "memory": "100Mi"}}
    security = found["securityContext"]
    assert (security["runAsNonRoot"], security["readOnlyRootFilesystem"]) == (True, True)
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert {
        "name": "CORTEX_WORKER_ID",
        "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}},
    } in found["env"]


@pytest.mark.parametrize(
    ("compute", "requests", "limits"),
    [
        ({}, {"cpu": "200m"}, {}),
        ({"cpu": None}, {}, {}),
        ({"cpu": 2, "mem": "1Gi"}, {"cpu": "2", "memory": "1Gi"}, {"memory": "1Gi"}),
        ({"cpu": 0.5, "mem": "1.5G"}, {"cpu": "500m", "memory": "1500000000"}, {"memory": "1500000000"}),
        ({"cpu": "1", "gpu": 2}, {"cpu": "1", "nvidia.com/gpu": "2"}, {"nvidia.com/gpu": "2"}),
        (
            {"cpu": None, "inf": 2},
            {"cpu": "20m", "aws.amazon.com/neuron": "2", "hugepages-2Mi": "512Mi"},
            {"aws.amazon.com/neuron": "2", "hugepages-2Mi": "512Mi"},
        ),
    ],
)
def test_compute_becomes_requests_and_limits(compute: Json, requests: Json, limits: Json) -> None:
    found = container(work({"compute": compute}))["resources"]
    assert found.get("requests", {}) == requests
    assert found.get("limits", {}) == limits


def test_shared_memory_is_memory_of_the_containers_own() -> None:
    of = work({"name": "a", "compute": {"mem": "1Gi", "shm": "64Mi"}}, {"name": "b"})
    assert {"name": "shm-0", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}} in pod(of)["volumes"]
    assert {"name": "shm-0", "mountPath": "/dev/shm"} in container(of, 0)["volumeMounts"]
    assert "/dev/shm" not in {mount["mountPath"] for mount in container(of, 1)["volumeMounts"]}


def test_containers_are_privileged_only_where_the_operator_wants_it() -> None:
    assert "securityContext" not in container(work())
    assert container(work({"compute": {"inf": 1}}))["securityContext"] == {
        "capabilities": {"add": ["SYS_ADMIN", "IPC_LOCK"]}
    }
    assert container(work(settings={"privileged": True}))["securityContext"] == {"privileged": True}


def test_liveness_is_asked_by_kubernetes_and_readiness_by_the_dequeuer() -> None:
    probes = {
        "readiness_probe": {"http_get": {"port": 8080, "path": "/ready"}},
        "liveness_probe": {"exec": {"command": ["true"]}, "period_seconds": 3, "failure_threshold": 5},
    }
    of = work(probes)
    assert container(of)["livenessProbe"] == {
        "exec": {"command": ["true"]},
        "initialDelaySeconds": 0,
        "timeoutSeconds": 1,
        "periodSeconds": 3,
        "successThreshold": 1,
        "failureThreshold": 5,
    }
    assert "readinessProbe" not in container(of)
    (told,) = worker_spec(of).containers
    assert told.readiness_probe.http_get.path == "/ready"
    assert not told.HasField("liveness_probe")


def test_workers_go_where_the_operator_says_and_bear_the_taints() -> None:
    found = pod(work())
    assert found["nodeSelector"] == {"workload": "true"}
    assert [(each["key"], each["effect"]) for each in found["tolerations"]] == [
        ("workload", "NoSchedule"),
        ("nvidia.com/gpu", "NoSchedule"),
        ("aws.amazon.com/neuron", "NoSchedule"),
    ]
    assert "affinity" not in found
    assert "nodeSelector" not in pod(work(settings={"node_selector": {}}))


GROUPS = (NodeGroup("spot", 50, ("spot-a", "spot-b")), NodeGroup("gpu", 5), NodeGroup("big"))


def test_node_groups_are_required_and_their_priorities_preferred() -> None:
    found = pod(work(settings={"node_groups": GROUPS}, node_groups=["spot", "gpu"]))["affinity"]["nodeAffinity"]
    (term,) = found["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [
        {"key": "eks.amazonaws.com/nodegroup", "operator": "In", "values": ["spot-a", "spot-b", "gpu"]}
    ]
    preferred = found["preferredDuringSchedulingIgnoredDuringExecution"]
    assert [each["weight"] for each in preferred] == [50, 5]


def test_an_api_without_node_groups_may_go_anywhere_and_prefers_by_priority() -> None:
    found = pod(work(settings={"node_groups": GROUPS}))["affinity"]["nodeAffinity"]
    assert "requiredDuringSchedulingIgnoredDuringExecution" not in found
    assert [each["weight"] for each in found["preferredDuringSchedulingIgnoredDuringExecution"]] == [50, 5, 1]


def test_pods_carry_the_contracts_labels_and_are_not_moved_to_save_nodes() -> None:
    of = work()
    metadata = job_manifest(of, 0)["spec"]["template"]["metadata"]
    labels = metadata["labels"]
    assert labels["apiName"] == "hello"
    assert labels["apiKind"] == "BatchAPI"
    assert labels["apiID"] == of.api.api_id
    assert labels["jobID"] == JOB_ID
    assert len(labels["specID"]) == 32
    assert re.fullmatch("[0-9a-f]{63}", labels["podID"])  # a label's value has 63 characters at most
    assert (labels["cortex.dev/api"], labels["cortex.dev/batch"]) == ("true", "worker")
    assert metadata["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert metadata["annotations"]["karpenter.sh/do-not-disrupt"] == "true"


def test_the_operators_own_labels_do_not_replace_ours() -> None:
    metadata = job_manifest(work(settings={"pod_labels": {"team": "a", "jobID": "x"}}), 0)["spec"]["template"][
        "metadata"
    ]
    assert (metadata["labels"]["team"], metadata["labels"]["jobID"]) == ("a", JOB_ID)


def test_the_operators_account_secrets_and_policies_are_used() -> None:
    told = {
        "service_account": "worker",
        "image_pull_secrets": ("hub",),
        "image_pull_policy": "Always",
        "grace_seconds": 90,
        "priority_class": "low",
        "dequeuer_command": ("python", "-m", "d"),
    }
    found = pod(work(settings=told))
    assert (found["serviceAccountName"], found["imagePullSecrets"]) == ("worker", [{"name": "hub"}])
    assert (found["terminationGracePeriodSeconds"], found["priorityClassName"]) == (90, "low")
    assert {each["imagePullPolicy"] for each in found["initContainers"] + found["containers"]} == {"Always"}
    assert found["containers"][0]["command"] == ["python", "-m", "d"]


def test_spans_go_where_the_operator_says_unless_the_container_says_so() -> None:
    of = work(
        {"name": "a"},
        {"name": "b", "env": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://mine"}},
        settings={"otlp_endpoint": "http://collector:4317"},
    )
    ends = [
        [each["value"] for each in every["env"] if each["name"] == "OTEL_EXPORTER_OTLP_ENDPOINT"]
        for every in pod(of)["initContainers"] + pod(of)["containers"]
    ]
    assert ends == [["http://collector:4317"], ["http://mine"], ["http://collector:4317"]]


@pytest.mark.parametrize(
    ("of_api_", "of_job", "queue"),
    [({}, {}, None), ({"queue_name": "a"}, {}, "a"), ({"queue_name": "a"}, {"queue_name": "b"}, "b")],
)
def test_a_job_with_a_queue_waits_for_kueue_and_may_change_its_size(of_api_: Json, of_job: Json, queue: str) -> None:
    of = work(**of_api_)
    manifest = job_manifest(Work(of.settings, of.namespace, of.api, of.config, job(**of_job), 7), 0)
    metadata = manifest["metadata"]
    assert metadata["labels"].get("kueue.x-k8s.io/queue-name") == queue
    assert manifest["spec"].get("suspend") == (True if queue else None)
    assert metadata["annotations"].get("kueue.x-k8s.io/elastic-job") == ("true" if queue else None)
    assert "kueue.x-k8s.io/queue-name" not in manifest["spec"]["template"]["metadata"]["labels"]


@pytest.mark.parametrize("name", ["a", "a" * 42, "a" * 39 + "-bc"])
def test_the_hostname_of_the_last_of_100000_pods_fits(name: str) -> None:
    api = {"name": name, "kind": "BatchAPI", "pod": {"containers": [{"name": "c", "image": "i", "command": ["c"]}]}}
    hostname = f"{of_api(api).name}-99999"
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", hostname)
    assert "--" not in hostname


def test_everything_belongs_to_the_job() -> None:
    of = work()
    for each in (
        worker_map(of, owner(of), worker_spec(of)),
        token_secret(owner(of), "t"),
        *document_maps(owner(of), "{}", 0),
    ):
        (reference,) = each["metadata"]["ownerReferences"]
        assert (reference["kind"], reference["name"], reference["uid"]) == ("Job", of.name, "0a0b")
        assert each["metadata"]["labels"]["jobID"] == JOB_ID


def test_the_client_configuration_leads_to_this_deployment() -> None:
    of = work()
    told = yaml.safe_load(worker_map(of, owner(of), worker_spec(of))["data"]["cli.yaml"])
    assert told == {
        "default_environment": "cortex",
        "environments": [{"name": "cortex", "operator_endpoint": "http://gateway.cortex.svc"}],
    }


def test_a_secret_holds_the_token() -> None:
    data = token_secret(owner(work()), "abc")["data"]
    assert base64.b64decode(data["token"]) == b"abc"


@pytest.mark.parametrize("document", ["é" * 460_801, "a" * 3_000_000, "😀" * 700_001])
def test_a_large_document_is_split_into_config_maps_that_fit_and_put_together_by_the_dequeuer(document: str) -> None:
    of = work()
    parts = parts_for(document)
    maps = document_maps(owner(of), document, parts)
    assert len(maps) == parts > 1
    texts = {name: text for each in maps for name, text in each["data"].items()}
    digest = texts.pop("digest")
    assert "".join(texts[name] for name in sorted(texts)) == document
    assert hashlib.sha256(document.encode()).hexdigest() == digest
    assert max(sum(map(len, map(str.encode, each["data"].values()))) for each in maps) < 2**20
    found = pod(of, parts)
    writer = found["initContainers"][0]
    assert writer["args"] == ["write-job-spec"]
    assert writer.get("restartPolicy") is None
    volumes = {volume["name"]: volume for volume in found["volumes"]}
    assert volumes["spec"] == {"name": "spec", "emptyDir": {}}
    assert [each["configMap"]["name"] for each in volumes["parts"]["projected"]["sources"]] == [
        each["metadata"]["name"] for each in maps
    ]
    for version_ in VERSIONS:
        kubernetes_validate.validate(job_manifest(of, parts), version_, strict=True)


def test_a_document_that_fits_is_one_file() -> None:
    assert parts_for("a" * 900 * 1024) == 0
    (found,) = document_maps(owner(work()), '{"a":1}', 0)
    assert found["data"] == {"job.json": '{"a":1}'}


names = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
ports = st.integers(1, 65535).filter(lambda port: port not in (8888, 15000))
handlers = st.one_of(
    st.fixed_dictionaries({"http_get": st.fixed_dictionaries({"port": ports}, optional={"path": st.just("/x")})}),
    st.fixed_dictionaries({"tcp_socket": st.fixed_dictionaries({"port": ports})}),
)
numbers = {
    name: st.integers(0, 1000)
    for name in ("initial_delay_seconds", "timeout_seconds", "period_seconds", "failure_threshold")
}
liveness: st.SearchStrategy[Json] = st.one_of(handlers, st.just({"exec": {"command": ["test", "-f", "/x"]}}))
computes = st.fixed_dictionaries(
    {},
    optional={
        "cpu": st.none() | st.integers(1, 200) | st.floats(0.02, 99) | st.sampled_from(["1", "20m", "1e2", ".5", "3."]),
        "mem": st.sampled_from(["1Gi", "1e9", "2.5G", "21Mi", 10**9, "100000000000m", "0.5Ti", "1Pi"]),
        "gpu": st.integers(0, 8),
        "shm": st.none() | st.sampled_from(["0", "1Mi", "1e6"]),
    },
)


@st.composite
def any_api(draw: st.DrawFn) -> Json:
    """An API that may be deployed."""
    required: dict[str, st.SearchStrategy[Any]] = {
        "name": names.filter(lambda name: name not in ("dequeuer", "proxy")),
        "image": st.just("r.example/a/b:1"),
        "command": st.lists(texts.filter(bool), min_size=1, max_size=3),
        "compute": computes,
    }
    optional: dict[str, st.SearchStrategy[Any]] = {
        "args": st.lists(texts, max_size=3),
        "env": st.dictionaries(st.from_regex(r"[A-BD-Z][A-Z_]{0,8}", fullmatch=True), texts, max_size=3),
        "readiness_probe": handlers,
        "liveness_probe": st.tuples(liveness, st.fixed_dictionaries({}, optional=numbers)).map(
            lambda both: both[0] | both[1]
        ),
    }
    containers = st.fixed_dictionaries(required, optional=optional)
    several = draw(st.lists(containers, min_size=1, max_size=3, unique_by=lambda each: str(each["name"])))
    if not any(each["compute"].get("gpu") for each in several):
        for each in several:
            each["compute"] = each["compute"] | {"inf": draw(st.integers(0, 4))}
    more = st.fixed_dictionaries(
        {}, optional={"node_groups": st.lists(names, min_size=1, max_size=3), "queue_name": names}
    )
    return {"name": draw(names.filter(lambda name: not name.startswith("b-"))), "kind": "BatchAPI", **draw(more)} | {
        "pod": {"port": draw(ports), "containers": several}
    }


any_settings = st.fixed_dictionaries(
    {},
    optional={
        "privileged": st.booleans(),
        "otlp_endpoint": st.just("http://collector:4317"),
        "node_groups": st.just(GROUPS),
        "service_account": names,
        "image_pull_secrets": st.tuples(names),
        "priority_class": names,
        "node_selector": st.dictionaries(names, names, max_size=2),
        "tolerations": st.just(()),
        "image_pull_policy": st.sampled_from(["Always", "IfNotPresent", "Never"]),
        "dequeuer_command": st.tuples(names),
    },
)


@hypothesis_settings(max_examples=30, deadline=None)  # other work shares the machine
@given(any_api(), any_settings, st.integers(0, 3))
def test_whatever_an_api_says_kubernetes_schemas_accept_it(api: Json, told: Json, parts: int) -> None:
    of = of_api(api, told)
    manifests = [
        job_manifest(of, parts),
        worker_map(of, owner(of), worker_spec(of)),
        token_secret(owner(of), "t"),
        *document_maps(owner(of), "{}", parts),
    ]
    for manifest in manifests:
        for version_ in VERSIONS:
            kubernetes_validate.validate(manifest, version_, strict=True)
