"""What an API server does, told by tests that a real one passes: `make test-cluster` runs them on one."""

import asyncio

import pytest

from services.common.errors import CortexError
from services.common.kubernetes import CONFIG_MAPS, JOBS, LEASES, PODS, SECRETS, Followed, Object, follow
from tests.cluster.kit import AnyCluster
from tests.cluster.objects import config_map, eventually, job, pods_of


async def _refusal(cluster: AnyCluster, body: Object, resource: object = JOBS) -> str:
    with pytest.raises(CortexError) as caught:
        await cluster.client.create(resource, cluster.namespace, body)  # type: ignore[arg-type]  # one of ours
    return caught.value.message


async def test_what_is_made_has_an_identity_and_versions_that_grow(cluster: AnyCluster) -> None:
    first = await cluster.client.create(CONFIG_MAPS, cluster.namespace, config_map(a="b"))
    assert first["metadata"]["uid"]
    assert first["metadata"]["creationTimestamp"]
    second = await cluster.client.patch(CONFIG_MAPS, cluster.namespace, "things", {"data": {"c": "d"}})
    assert second["data"] == {"a": "b", "c": "d"}
    assert int(second["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    same = await cluster.client.patch(CONFIG_MAPS, cluster.namespace, "things", {"data": {"c": "d"}})
    assert same["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


async def test_a_second_of_the_same_name_is_refused_and_an_old_version_conflicts(cluster: AnyCluster) -> None:
    first = await cluster.client.create(CONFIG_MAPS, cluster.namespace, config_map(a="b"))
    with pytest.raises(CortexError) as caught:
        await cluster.client.create(CONFIG_MAPS, cluster.namespace, config_map(a="b"))
    assert caught.value.kind == "kubernetes.already_exists"
    await cluster.client.patch(CONFIG_MAPS, cluster.namespace, "things", {"data": {"a": "c"}})
    with pytest.raises(CortexError) as caught:
        await cluster.client.replace(CONFIG_MAPS, cluster.namespace, first)
    assert caught.value.kind == "kubernetes.conflict"
    old = {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}, "data": {"a": "d"}}
    with pytest.raises(CortexError) as caught:
        await cluster.client.patch(CONFIG_MAPS, cluster.namespace, "things", old)
    assert caught.value.kind == "kubernetes.conflict"


async def test_a_json_patch_whose_test_fails_changes_nothing(cluster: AnyCluster) -> None:
    await cluster.client.create(CONFIG_MAPS, cluster.namespace, config_map(a="b"))
    patch = [{"op": "test", "path": "/data/a", "value": "x"}, {"op": "replace", "path": "/data/a", "value": "y"}]
    with pytest.raises(CortexError) as caught:
        await cluster.client.patch(CONFIG_MAPS, cluster.namespace, "things", patch)
    assert caught.value.kind == "kubernetes.invalid"
    patch[0]["value"] = "b"
    changed = await cluster.client.patch(CONFIG_MAPS, cluster.namespace, "things", patch)
    assert changed["data"] == {"a": "y"}


async def test_apply_makes_changes_and_takes_back_what_is_not_said_any_more(cluster: AnyCluster) -> None:
    await cluster.client.apply(CONFIG_MAPS, cluster.namespace, config_map(a="1", b="2"), "one")
    await cluster.client.apply(CONFIG_MAPS, cluster.namespace, config_map(c="3"), "two")
    left = await cluster.client.apply(CONFIG_MAPS, cluster.namespace, config_map(a="1"), "one")
    assert left["data"] == {"a": "1", "c": "3"}
    managers = {one["manager"] for one in left["metadata"]["managedFields"]}
    assert managers == {"one", "two"}


async def test_deletion_by_uid_spares_another_of_the_name(cluster: AnyCluster) -> None:
    await cluster.client.create(CONFIG_MAPS, cluster.namespace, config_map(a="b"))
    assert not await cluster.client.delete(CONFIG_MAPS, cluster.namespace, "things", uid="another")
    assert await cluster.client.get(CONFIG_MAPS, cluster.namespace, "things")
    assert await cluster.client.delete(CONFIG_MAPS, cluster.namespace, "things")
    assert await cluster.client.get(CONFIG_MAPS, cluster.namespace, "things") is None
    assert not await cluster.client.delete(CONFIG_MAPS, cluster.namespace, "things")


async def test_a_watch_tells_what_comes_into_a_selection_and_what_leaves_it(cluster: AnyCluster) -> None:
    marked = config_map("marked", a="b")
    marked["metadata"]["labels"] = {"part": "of-it"}
    await cluster.client.create(CONFIG_MAPS, cluster.namespace, marked)
    seen = follow(cluster.client, CONFIG_MAPS, cluster.namespace, "part=of-it")
    async with asyncio.timeout(20):
        first = await anext(seen)
        assert isinstance(first, Followed)
        assert [one["metadata"]["name"] for one in first.objects] == ["marked"]
        await cluster.client.create(CONFIG_MAPS, cluster.namespace, config_map("plain", a="b"))
        await cluster.client.patch(CONFIG_MAPS, cluster.namespace, "marked", {"metadata": {"labels": None}})
        second = await anext(seen)
    assert not isinstance(second, Followed)
    assert (second.object["metadata"]["name"], second.deleted) == ("marked", True)


async def test_pages_of_a_list_make_the_whole(cluster: AnyCluster) -> None:
    for number in range(5):
        await cluster.client.create(CONFIG_MAPS, cluster.namespace, config_map(f"m-{number}", a="b"))
    found, version = await cluster.client.list(CONFIG_MAPS, cluster.namespace)
    assert [one["metadata"]["name"] for one in found if one["metadata"]["name"] != "kube-root-ca.crt"] == [
        f"m-{number}" for number in range(5)
    ]
    assert int(version) > 0


async def test_what_belongs_to_an_object_goes_with_it(cluster: AnyCluster) -> None:
    owner = await cluster.client.create(CONFIG_MAPS, cluster.namespace, config_map("owner", a="b"))
    names = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    owned = config_map("owned", a="b")
    owned["metadata"]["ownerReferences"] = [names]
    await cluster.client.create(CONFIG_MAPS, cluster.namespace, owned)
    await cluster.client.delete(CONFIG_MAPS, cluster.namespace, "owner")

    async def gone() -> bool:
        return await cluster.client.get(CONFIG_MAPS, cluster.namespace, "owned") is None

    await eventually("the owned one is gone", gone)


async def test_a_finalizer_holds_an_object_that_is_to_go(cluster: AnyCluster) -> None:
    held = config_map("held", a="b")
    held["metadata"]["finalizers"] = ["tests.example.com/hold"]
    await cluster.client.create(CONFIG_MAPS, cluster.namespace, held)
    await cluster.client.delete(CONFIG_MAPS, cluster.namespace, "held")
    there = await cluster.client.get(CONFIG_MAPS, cluster.namespace, "held")
    assert there is not None
    assert "deletionTimestamp" in there["metadata"]
    await cluster.client.patch(CONFIG_MAPS, cluster.namespace, "held", {"metadata": {"finalizers": None}})
    assert await cluster.client.get(CONFIG_MAPS, cluster.namespace, "held") is None


async def test_sizes_have_limits(cluster: AnyCluster) -> None:
    await cluster.client.create(CONFIG_MAPS, cluster.namespace, config_map("fits", a="x" * 1024 * 1024))
    assert "Too long" in await _refusal(cluster, config_map("large", a="x" * (1024 * 1024 + 1)), CONFIG_MAPS)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "large"}, "stringData": {"a": "x" * 1048577}}
    assert "Too long" in await _refusal(cluster, secret, SECRETS)


async def test_a_lease_is_taken_by_who_knows_its_version(cluster: AnyCluster) -> None:
    spec = {"holderIdentity": "a", "leaseDurationSeconds": 5}
    lease = {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": {"name": "leader"}, "spec": spec}
    made = await cluster.client.create(LEASES, cluster.namespace, lease)
    taken = await cluster.client.replace(LEASES, cluster.namespace, {**made, "spec": {**spec, "holderIdentity": "b"}})
    assert taken["spec"]["holderIdentity"] == "b"
    with pytest.raises(CortexError):
        await cluster.client.replace(LEASES, cluster.namespace, made)


async def test_a_job_is_filled_in(cluster: AnyCluster) -> None:
    made = await cluster.client.create(JOBS, cluster.namespace, job(podFailurePolicy={"rules": [_IGNORE]}))
    spec, uid = made["spec"], made["metadata"]["uid"]
    assert spec["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert spec["template"]["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "work"
    assert (spec["suspend"], spec["podReplacementPolicy"], spec["backoffLimit"]) == (False, "Failed", 2147483647)
    pod = spec["template"]["spec"]
    assert (pod["dnsPolicy"], pod["schedulerName"], pod["securityContext"]) == ("ClusterFirst", "default-scheduler", {})
    assert pod["containers"][0]["imagePullPolicy"] == "Always"
    assert pod["containers"][0]["terminationMessagePolicy"] == "File"
    assert made["metadata"]["generation"] == 1


async def test_a_jobs_pods_carry_their_index(cluster: AnyCluster) -> None:
    await cluster.client.create(JOBS, cluster.namespace, job(completions=2, parallelism=2))

    async def both() -> list[Object] | None:
        found = await pods_of(cluster)
        return found if len(found) == 2 else None

    pods = sorted(await eventually("two pods", both), key=lambda pod: pod["spec"]["hostname"])
    for index, pod in enumerate(pods):
        assert pod["metadata"]["name"].startswith(f"work-{index}-")
        assert pod["spec"]["hostname"] == f"work-{index}"
        assert pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] == str(index)
        assert pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] == str(index)
        assert pod["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"] == "0"
        assert pod["metadata"]["finalizers"] == ["batch.kubernetes.io/job-tracking"]
        variable = next(one for one in pod["spec"]["containers"][0]["env"] if one["name"] == "JOB_COMPLETION_INDEX")
        path = "metadata.labels['batch.kubernetes.io/job-completion-index']"
        assert variable["valueFrom"]["fieldRef"]["fieldPath"] == path
        assert {one["key"] for one in pod["spec"]["tolerations"]} == {
            "node.kubernetes.io/not-ready",
            "node.kubernetes.io/unreachable",
        }


async def test_an_indexed_job_grows_and_shrinks_only_as_a_whole(cluster: AnyCluster) -> None:
    await cluster.client.create(JOBS, cluster.namespace, job())
    with pytest.raises(CortexError) as caught:
        await cluster.client.patch(JOBS, cluster.namespace, "work", {"spec": {"completions": 3}})
    assert "in tandem with spec.parallelism" in caught.value.message
    await cluster.client.patch(JOBS, cluster.namespace, "work", {"spec": {"completions": 3, "parallelism": 3}})

    async def count() -> int:
        return len([pod for pod in await pods_of(cluster) if "deletionTimestamp" not in pod["metadata"]])

    async def three() -> bool:
        return await count() == 3

    async def one() -> bool:
        return await count() == 1

    await eventually("three pods", three)
    await cluster.client.patch(JOBS, cluster.namespace, "work", {"spec": {"completions": 1, "parallelism": 1}})
    await eventually("one pod", one)


async def test_a_jobs_template_does_not_change(cluster: AnyCluster) -> None:
    made = await cluster.client.create(JOBS, cluster.namespace, job())
    pod = made["spec"]["template"]["spec"]
    pod["containers"][0]["image"] = "another"
    patch = {"spec": {"template": {"spec": {"containers": pod["containers"]}}}}
    with pytest.raises(CortexError) as caught:
        await cluster.client.patch(JOBS, cluster.namespace, "work", patch)
    assert "field is immutable" in caught.value.message


async def test_a_suspended_job_makes_no_pods_until_it_is_resumed(cluster: AnyCluster) -> None:
    await cluster.client.create(JOBS, cluster.namespace, job(suspend=True))

    async def suspended() -> bool:
        found = await cluster.client.get(JOBS, cluster.namespace, "work") or {}
        return any(one["type"] == "Suspended" for one in (found.get("status") or {}).get("conditions") or [])

    await eventually("it is suspended", suspended)
    assert await pods_of(cluster) == []
    await cluster.client.patch(JOBS, cluster.namespace, "work", {"spec": {"suspend": False}})

    async def one() -> bool:
        return len(await pods_of(cluster)) == 1

    await eventually("a pod", one)


async def test_deleting_a_job_takes_its_pods(cluster: AnyCluster) -> None:
    await cluster.client.create(JOBS, cluster.namespace, job(completions=2, parallelism=2))

    async def two() -> bool:
        return len(await pods_of(cluster)) == 2

    await eventually("two pods", two)
    await cluster.client.delete(JOBS, cluster.namespace, "work")

    async def none() -> bool:
        return not await pods_of(cluster)

    await eventually("no pods", none)


_IGNORE = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def _exit_codes(**codes: object) -> Object:
    return {"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [64], **codes}}]}


def _with(**container: object) -> Object:
    return {"containers": [{"name": "main", "image": "main", **container}]}


def _limits(limits: Object, requests: Object) -> Object:
    return _with(resources={"limits": limits, "requests": requests})


_MOUNT = {"name": "v", "mountPath": "/x"}
_VOLUME = {"name": "v", "emptyDir": {}}
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            {"pod": {"restartPolicy": "OnFailure"}, "podFailurePolicy": {"rules": [_IGNORE]}},
            'only "Never" is supported',
        ),
        ({"pod": {"restartPolicy": "Always"}}, "spec.template.spec.restartPolicy: Required value"),
        (
            {"podFailurePolicy": _exit_codes(containerName="nobody")},
            "must be one of the container or initContainer names",
        ),
        ({"podFailurePolicy": _exit_codes(values=[0])}, "must not be 0 for the In operator"),
        ({"podFailurePolicy": _exit_codes(values=[5, 3])}, "must be ordered"),
        ({"podFailurePolicy": _exit_codes(values=[])}, "at least one value is required"),
        (
            {"backoffLimitPerIndex": None, "podFailurePolicy": _exit_codes()},
            "requires the backoffLimitPerIndex to be set",
        ),
        ({"maxFailedIndexes": 2}, "must be less than or equal to completions"),
        ({"completions": None}, "spec.completions: Required value"),
        ({"completionMode": "NonIndexed"}, "requires indexed completion mode"),
        ({"parallelism": -1}, "must be greater than or equal to 0"),
        ({"parallelism": "many"}, "cannot be handled as a Job"),
        (
            {"podReplacementPolicy": "TerminatingOrFailed", "podFailurePolicy": {"rules": [_IGNORE]}},
            "Unsupported value",
        ),
        ({"pod": _limits({"hugepages-2Mi": "3Mi"}, {"cpu": "1"})}, "is not positive integer multiple of hugepages-2Mi"),
        ({"pod": _limits({"hugepages-2Mi": "4Mi"}, {})}, "HugePages require cpu or memory"),
        (
            {"pod": _limits({"hugepages-2Mi": "4Mi", "cpu": "1"}, {"hugepages-2Mi": "2Mi"})},
            "must be equal to hugepages-2Mi limit",
        ),
        ({"pod": _limits({"nvidia.com/gpu": "2"}, {"nvidia.com/gpu": "1"})}, "must be equal to nvidia.com/gpu limit"),
        ({"pod": _limits({}, {"nvidia.com/gpu": "1"})}, "Limit must be set for non overcommitable resources"),
        ({"pod": _limits({"nvidia.com/gpu": "500m"}, {})}, "must be an integer"),
        ({"pod": _limits({"cpu": "1"}, {"cpu": "2"})}, "must be less than or equal to cpu limit"),
        ({"pod": _limits({"gpu": "1"}, {})}, "must be a standard resource for containers"),
        ({"pod": _limits({"memory": "1GB"}, {})}, "quantities must match the regular expression"),
        ({"pod": _with(volumeMounts=[_MOUNT])}, 'Not found: "v"'),
        ({"pod": {**_with(volumeMounts=[_MOUNT, _MOUNT]), "volumes": [_VOLUME]}}, "must be unique"),
        ({"pod": {"volumes": [_VOLUME, _VOLUME]}}, 'Duplicate value: "v"'),
        ({"pod": {"volumes": [{"name": "V", "emptyDir": {}}]}}, "a lowercase RFC 1123 label must consist of"),
        ({"pod": _with(name="Main")}, "a lowercase RFC 1123 label must consist of"),
        ({"pod": _with(image="")}, "spec.template.spec.containers[0].image: Required value"),
        ({"pod": _with(env=[{"name": "A=B", "value": "c"}])}, "a valid environment variable name"),
        (
            {"pod": _with(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}])},
            "error converting fieldPath",
        ),
        ({"pod": _with(readinessProbe={"periodSeconds": 1})}, "must specify a handler type"),
        ({"pod": _with(livenessProbe={"tcpSocket": {"port": 1}, "successThreshold": 2})}, "must be 1"),
        ({"pod": _with(ports=[{"containerPort": 70000}])}, "must be between 1 and 65535, inclusive"),
        (
            {"pod": {"initContainers": [{"name": "main", "image": "x", "restartPolicy": "Always"}]}},
            'Duplicate value: "main"',
        ),
        (
            {"pod": {"initContainers": [{"name": "i", "image": "x", "readinessProbe": {"tcpSocket": {"port": 1}}}]}},
            "may not be set for init containers without restartPolicy=Always",
        ),
        (
            {"pod": {"tolerations": [{"operator": "Equal", "value": "x"}]}},
            "operator must be Exists when `key` is empty",
        ),
        ({"pod": {"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]}}, "value must be empty when"),
        ({"pod": {"tolerations": [{"key": "a", "effect": "Never"}]}}, 'Unsupported value: "Never"'),
        ({"pod": {"nodeSelector": {"a": "b c"}}}, "a valid label must be an empty string or consist of"),
        (
            {"pod": {"affinity": {"nodeAffinity": {_REQUIRED: {"nodeSelectorTerms": []}}}}},
            "must have at least one node selector term",
        ),
        ({"pod": {"containers": []}}, "spec.template.spec.containers: Required value"),
    ],
)
async def test_a_wrong_job_is_refused_with_a_reason(cluster: AnyCluster, wrong: Object, sentence: str) -> None:
    assert sentence in await _refusal(cluster, job(**wrong))


@pytest.mark.parametrize(
    ("name", "completions", "refused"),
    [("a" * 61, 1, False), ("a" * 62, 1, True), ("a" * 60, 11, False), ("a" * 61, 11, True), ("A", 1, True)],
)
async def test_every_index_must_make_a_host_name(
    cluster: AnyCluster, name: str, completions: int, refused: bool
) -> None:
    body = job(name, completions=completions, parallelism=completions, suspend=True)
    if refused:
        await _refusal(cluster, body)
    else:
        await cluster.client.create(JOBS, cluster.namespace, body)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({"a b": "c"}, "name part must consist of alphanumeric characters"),
        ({"a": "x" * 64}, "must be no more than 63"),
        ({"A.Example/a": "c"}, "prefix part a lowercase RFC 1123 subdomain"),
        ({"/a": "c"}, "prefix part must be non-empty"),
        ({"a": "-"}, "a valid label must be"),
    ],
)
async def test_labels_have_a_syntax(cluster: AnyCluster, labels: Object, sentence: str) -> None:
    body = config_map(a="b")
    body["metadata"]["labels"] = labels
    assert sentence in await _refusal(cluster, body, CONFIG_MAPS)


async def test_a_pod_that_no_node_has_yet_goes_at_once(cluster: AnyCluster) -> None:
    spec = {"containers": [{"name": "main", "image": "x"}], "automountServiceAccountToken": False}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "alone"}, "spec": spec}
    made = await cluster.client.create(PODS, cluster.namespace, pod)
    assert made["status"]["phase"] == "Pending"
    assert made["status"]["qosClass"] == "BestEffort"
    await cluster.client.delete(PODS, cluster.namespace, "alone")
    assert await cluster.client.get(PODS, cluster.namespace, "alone") is None
