"""What becomes of pods, by the kubelet of the tests and the controllers of ours or of a real control plane."""

import pytest

from services.common.kubernetes import CONFIG_MAPS, JOBS, NODES, PODS, Object, Resource
from tests.cluster.kit import AnyCluster
from tests.cluster.objects import (
    config_map,
    container_state,
    ended,
    eventually,
    job,
    pod_that,
    pods_of,
    true_conditions,
)

_PODS = "pods"
_POLICY = {
    "rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
        {"action": "Ignore", "onExitCodes": {"containerName": "main", "operator": "In", "values": [66]}},
        {"action": "FailIndex", "onExitCodes": {"containerName": "main", "operator": "In", "values": [64]}},
        {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [65]}},
    ]
}
_WAIT = "trap 'exit 0' TERM; sleep 600 & wait"


def _running(pod: Object) -> bool:
    return bool(pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"])


async def _make(cluster: AnyCluster, body: Object) -> Object:
    return await cluster.client.create(JOBS, cluster.namespace, body)


async def test_a_job_completes_with_its_sidecar_beside_it(cluster_with_nodes: AnyCluster) -> None:
    cluster = cluster_with_nodes
    script = "until [ -e /mnt/up ]; do sleep 0.05; done; cat /mnt/up; test $JOB_COMPLETION_INDEX -lt 2"
    mount = {"volumeMounts": [{"name": "mnt", "mountPath": "/mnt"}]}
    body = job(script=script, sidecar=f"echo ready > /mnt/up; {_WAIT}", completions=2, parallelism=2)
    pod = body["spec"]["template"]["spec"]
    pod["volumes"] = [{"name": "mnt", "emptyDir": {}}]
    for container in pod["containers"] + pod["initContainers"]:
        container |= mount
    await _make(cluster, body)
    status = await ended(cluster)
    assert true_conditions(status) == {"SuccessCriteriaMet", "Complete"}
    assert (status["succeeded"], status["completedIndexes"], status.get("failed", 0)) == (2, "0,1", 0)
    for one in await pods_of(cluster):
        assert one["status"]["phase"] == "Succeeded"
        assert container_state(one, "user")["state"]["terminated"]["exitCode"] == 0


@pytest.mark.parametrize(
    ("code", "reason", "failed", "indexes"),
    [(64, "FailedIndexes", 1, "0"), (65, "PodFailurePolicy", 1, ""), (1, "FailedIndexes", 2, "0")],
)
async def test_exit_codes_decide_what_fails(
    cluster_with_nodes: AnyCluster, code: int, reason: str, failed: int, indexes: str
) -> None:
    cluster = cluster_with_nodes
    await _make(cluster, job(script=f"exit {code}", podFailurePolicy=_POLICY))
    status = await ended(cluster)
    condition = next(one for one in status["conditions"] if one["type"] == "Failed")
    assert condition["reason"] == reason
    assert (status["failed"], status["failedIndexes"]) == (failed, indexes)
    assert "FailureTarget" in true_conditions(status)
    if code == 65:
        assert "failed with exit code 65 matching FailJob rule at index 3" in condition["message"]


async def test_an_ignored_failure_is_replaced_and_not_counted(cluster_with_nodes: AnyCluster) -> None:
    cluster = cluster_with_nodes
    body = job(script="exit 66", podFailurePolicy=_POLICY, backoffLimitPerIndex=0)
    await _make(cluster, body)
    annotation = "batch.kubernetes.io/job-index-ignored-failure-count"
    again = await pod_that(cluster, "replaces the first", lambda pod: annotation in pod["metadata"]["annotations"])
    assert again["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"] == "0"
    found = await cluster.client.get(JOBS, cluster.namespace, "work") or {}
    assert found["status"].get("failed", 0) == 0


async def test_a_deleted_pod_is_replaced_when_it_has_ended(cluster_with_nodes: AnyCluster) -> None:
    cluster = cluster_with_nodes
    await _make(cluster, job(script=_WAIT.replace("exit 0", "exit 66"), podFailurePolicy=_POLICY))
    first = await pod_that(cluster, "runs", _running)
    await cluster.client.delete(PODS, cluster.namespace, first["metadata"]["name"])
    second = await pod_that(
        cluster, "replaces it", lambda pod: _running(pod) and pod["metadata"]["uid"] != first["metadata"]["uid"]
    )
    assert second["spec"]["hostname"] == "work-0"


async def test_a_sidecar_restarts_in_place_and_backs_off(cluster_with_nodes: AnyCluster) -> None:
    cluster = cluster_with_nodes
    await _make(cluster, job(script=_WAIT, sidecar="sleep 0.3; exit 3"))

    def restarted(pod: Object) -> bool:
        return bool(container_state(pod, "user").get("restartCount", 0) >= 3)

    pod = await pod_that(cluster, "has a restarted sidecar", restarted)
    state = container_state(pod, "user")
    ended_states = [state["state"].get("terminated"), state["lastState"].get("terminated")]
    assert {one["exitCode"] for one in ended_states if one} == {3}
    assert pod["status"]["phase"] == "Running"


async def test_a_container_over_its_memory_is_killed(cluster_with_nodes: AnyCluster) -> None:
    cluster = cluster_with_nodes
    body = job(script=_WAIT, sidecar="exec python -c 'x = bytearray(200_000_000); import time; time.sleep(60)'")
    body["spec"]["template"]["spec"]["initContainers"][0]["resources"] = {"limits": {"memory": "100Mi"}}
    await _make(cluster, body)

    def killed(pod: Object) -> bool:
        state = container_state(pod, "user")
        return bool((state.get("lastState") or {}).get("terminated"))

    pod = await pod_that(cluster, "was out of memory", killed)
    last = container_state(pod, "user")["lastState"]["terminated"]
    assert (last["reason"], last["exitCode"]) == ("OOMKilled", 137)


async def test_a_missing_image_keeps_the_pod_waiting_until_it_is_there(cluster_with_nodes: AnyCluster) -> None:
    cluster = cluster_with_nodes
    cluster.images.missing.add("main")
    await _make(cluster, job())

    def waiting(pod: Object) -> bool:
        state = container_state(pod, "main").get("state") or {}
        return (state.get("waiting") or {}).get("reason") == "ImagePullBackOff"

    pod = await pod_that(cluster, "waits for its image", waiting)
    assert pod["status"]["phase"] == "Pending"
    cluster.images.missing.clear()
    assert "Complete" in true_conditions(await ended(cluster))


async def test_an_evicted_pod_is_no_failure(cluster_with_nodes: AnyCluster) -> None:
    cluster = cluster_with_nodes
    await _make(cluster, job(script=_WAIT, podFailurePolicy=_POLICY, backoffLimitPerIndex=0))
    first = await pod_that(cluster, "runs", _running)
    cluster.kubelet.evict(first["metadata"]["name"])
    await pod_that(
        cluster, "replaces it", lambda pod: _running(pod) and pod["metadata"]["uid"] != first["metadata"]["uid"]
    )
    found = await cluster.client.get(JOBS, cluster.namespace, "work") or {}
    assert found["status"].get("failed", 0) == 0


async def test_a_lost_nodes_pods_are_replaced_once_the_node_is_gone(cluster_with_nodes: AnyCluster) -> None:
    cluster = cluster_with_nodes
    toleration = {
        "key": "node.kubernetes.io/unreachable",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 1,
    }
    gpu = {"key": "nvidia.com/gpu", "operator": "Exists"}
    pod = {"tolerations": [toleration, gpu], "nodeSelector": {"node-group": "gpu"}}
    await _make(cluster, job(script=_WAIT, podFailurePolicy=_POLICY, backoffLimitPerIndex=0, pod=pod))
    first = await pod_that(cluster, "runs", _running)
    cluster.kubelet.lose("gpu")
    doomed = await pod_that(cluster, "is to go", lambda pod: "deletionTimestamp" in pod["metadata"])
    disrupted = next(one for one in doomed["status"]["conditions"] if one["type"] == "DisruptionTarget")
    assert disrupted["reason"] == "DeletionByTaintManager"
    await cluster.client.delete(NODES, None, "gpu")
    uid = first["metadata"]["uid"]
    if not cluster.real:  # a real garbage collector of pods waits for a minute
        await pod_that(cluster, "replaces it", lambda pod: pod["metadata"]["uid"] != uid)


async def test_gpus_are_shared_out_and_taints_are_kept(cluster_with_nodes: AnyCluster) -> None:
    cluster = cluster_with_nodes
    pod: Object = {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]}
    body = job(script=_WAIT, sidecar=_WAIT, completions=3, parallelism=3, pod=pod)
    body["spec"]["template"]["spec"]["initContainers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    await _make(cluster, body)

    async def settled() -> list[Object] | None:
        pods = await pods_of(cluster)
        waiting = [
            one
            for one in pods
            if any(c.get("reason") == "Unschedulable" for c in one["status"].get("conditions") or [])
        ]
        return waiting if len([one for one in pods if _running(one)]) == 2 and waiting else None

    (third,) = await eventually("two run and one waits", settled)
    condition = next(one for one in third["status"]["conditions"] if one["type"] == "PodScheduled")
    assert "Insufficient nvidia.com/gpu" in condition["message"]
    assert {one["spec"].get("nodeName") for one in await pods_of(cluster)} == {"gpu", None}


async def test_a_mounted_config_map_follows_its_object(cluster_with_nodes: AnyCluster) -> None:
    cluster = cluster_with_nodes
    await cluster.client.create(CONFIG_MAPS, cluster.namespace, config_map("spec", text="old"))
    script = "until grep -q new /cortex/spec/text; do sleep 0.1; done"
    pod = {"volumes": [{"name": "spec", "configMap": {"name": "spec"}}]}
    body = job(script=script, pod=pod)
    body["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = [{"name": "spec", "mountPath": "/cortex/spec"}]
    await _make(cluster, body)
    await pod_that(cluster, "runs", _running)
    await cluster.client.patch(CONFIG_MAPS, cluster.namespace, "spec", {"data": {"text": "new"}})
    assert "Complete" in true_conditions(await ended(cluster))


async def test_pods_have_ports_of_their_own_and_reach_services(cluster_with_nodes: AnyCluster) -> None:
    cluster = cluster_with_nodes
    server = "python -m http.server 8080 --bind 127.0.0.1"
    fetch = "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/')"
    body = job(
        script=f'until python -c "{fetch}"; do sleep 0.1; done', sidecar=f"exec {server}", completions=2, parallelism=2
    )
    probe = {"httpGet": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 20}
    body["spec"]["template"]["spec"]["initContainers"][0]["startupProbe"] = probe
    await _make(cluster, body)
    assert "Complete" in true_conditions(await ended(cluster))


async def test_logs_are_read_through_the_api_server(cluster_with_nodes: AnyCluster) -> None:
    cluster = cluster_with_nodes
    await _make(cluster, job(script="echo one; echo two >&2"))
    await ended(cluster)
    (pod,) = await pods_of(cluster)
    path = Resource("v1", "Pod", _PODS).path(cluster.namespace, pod["metadata"]["name"], "log")
    async with cluster.client.stream(path, {"container": "main"}, 10) as pieces:
        text = b"".join([piece async for piece in pieces])
    assert sorted(text.decode().split()) == ["one", "two"]


async def test_a_pod_that_is_deleted_stops_its_main_container_before_its_sidecar(
    cluster_with_nodes: AnyCluster,
) -> None:
    cluster = cluster_with_nodes
    volume = {"volumes": [{"name": "out", "hostPath": {"path": str(cluster.kubeconfig.parent)}}]}
    tell = "trap 'echo {0} >> /out/order; exit 0' TERM; touch /out/{0}; sleep 600 & wait"
    body = job(script=tell.format("main"), sidecar=tell.format("sidecar"), pod=volume)
    out = cluster.kubeconfig.parent
    pod = body["spec"]["template"]["spec"]
    for container in pod["containers"] + pod["initContainers"]:
        container["volumeMounts"] = [{"name": "out", "mountPath": "/out"}]
    await _make(cluster, body)
    first = await pod_that(cluster, "runs", lambda pod: _running(pod) and container_state(pod, "main").get("ready"))

    async def both_listen() -> bool:
        return (out / "main").exists() and (out / "sidecar").exists()

    await eventually("both wait for their signals", both_listen)
    await cluster.client.delete(JOBS, cluster.namespace, "work")

    async def gone() -> bool:
        return await cluster.client.get(PODS, cluster.namespace, first["metadata"]["name"]) is None

    await eventually("the pod is gone", gone)
    assert (out / "order").read_text().split() == ["main", "sidecar"]
