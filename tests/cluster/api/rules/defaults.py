"""What the server fills in."""

import base64
from typing import Any

from tests.cluster.api.kinds import Kind, Object

_MAX = 2**31 - 1
_UNLIMITED_BACKOFF = _MAX
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_GONE_SECONDS = 300


def fill(kind: Kind, thing: Object, creating: bool) -> None:
    """Change the (fresh) object into what is stored."""
    match kind.key:
        case "pods.":
            pod_spec(thing["spec"])
            if creating:
                _tolerate(thing["spec"])
        case "jobs.batch":
            _job(thing, creating)
        case "namespaces.":
            thing.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
            thing["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = thing["metadata"]["name"]
            thing.setdefault("status", {"phase": "Active"})
        case "secrets.":
            _secret(thing)
        case "services.":
            _service(thing["spec"])
        case "events.":
            thing.setdefault("source", {})


def fresh_status(kind: Kind, thing: Object) -> Object | None:
    """The status of a new object; callers have no say in it. None for no status."""
    match kind.key:
        case "pods.":
            return {"phase": "Pending", "qosClass": _quality(thing["spec"])}
        case "namespaces.":
            return {"phase": "Active"}
        case "nodes.":  # a kubelet registers itself with its status
            return thing.get("status")
        case "jobs.batch" | "services." | "poddisruptionbudgets.policy":
            return {}
    return None


def pod_spec(spec: Object) -> None:
    """A pod's, or a template's."""
    _set(spec, restartPolicy="Always", dnsPolicy="ClusterFirst", terminationGracePeriodSeconds=30)
    _set(spec, schedulerName="default-scheduler", securityContext={})
    if spec["terminationGracePeriodSeconds"] < 0:
        spec["terminationGracePeriodSeconds"] = 1
    for container in spec.get("initContainers") or []:
        _container(container)
    for container in spec.get("containers") or []:
        _container(container)
    for volume in spec.get("volumes") or []:
        _volume(volume)


def _tolerate(spec: Object) -> None:
    """What admission adds to pods alone."""
    _set(
        spec, serviceAccountName="default", enableServiceLinks=True, priority=0, preemptionPolicy="PreemptLowerPriority"
    )
    spec["serviceAccount"] = spec["serviceAccountName"]
    tolerations = spec.setdefault("tolerations", [])
    for name in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(
            one.get("key") in (name, None) and one.get("effect") in ("NoExecute", None, "") for one in tolerations
        ):
            tolerations.append(
                {"key": name, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _GONE_SECONDS}
            )


def _container(container: Object) -> None:
    image = container.get("image") or ""
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    always = "@" not in image and tag in ("", "latest")
    _set(container, imagePullPolicy="Always" if always else "IfNotPresent", resources={})
    _set(container, terminationMessagePath="/dev/termination-log", terminationMessagePolicy="File")
    for port in container.get("ports") or []:
        _set(port, protocol="TCP")
    resources = container["resources"]
    if limits := resources.get("limits"):
        resources["requests"] = {**limits, **(resources.get("requests") or {})}
    for variable in container.get("env") or []:
        if field := (variable.get("valueFrom") or {}).get("fieldRef"):
            _set(field, apiVersion="v1")
        if resource := (variable.get("valueFrom") or {}).get("resourceFieldRef"):
            _set(resource, divisor="0")
    for name in _PROBES:
        if probe := container.get(name):
            _set(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
            if action := probe.get("httpGet"):
                _set(action, path="/", scheme="HTTP")


def _volume(volume: Object) -> None:
    if len(volume) == 1:
        volume["emptyDir"] = {}
    for name in ("configMap", "secret", "downwardAPI", "projected"):
        if name in volume:
            _set(volume[name], defaultMode=0o644)
    items = [*((volume.get("downwardAPI") or {}).get("items") or [])]
    for source in (volume.get("projected") or {}).get("sources") or []:
        items += (source.get("downwardAPI") or {}).get("items") or []
        if token := source.get("serviceAccountToken"):
            _set(token, expirationSeconds=3600)
    for item in items:
        if "fieldRef" in item:
            _set(item["fieldRef"], apiVersion="v1")


def _job(job: Object, creating: bool) -> None:
    spec = job["spec"]
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = spec["parallelism"] = 1
    _set(spec, parallelism=1, completionMode="NonIndexed", suspend=False)
    _set(spec, backoffLimit=_UNLIMITED_BACKOFF if spec.get("backoffLimitPerIndex") is not None else 6)
    _set(spec, podReplacementPolicy="Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed")
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or []:
        for pattern in rule.get("onPodConditions") or []:
            _set(pattern, status="True")
    template = spec["template"]
    if creating and not spec.get("manualSelector"):
        uid, name = job["metadata"]["uid"], job["metadata"]["name"]
        metadata = template.setdefault("metadata", {})
        marks = {"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name}
        marks |= {"controller-uid": uid, "job-name": name}
        metadata["labels"] = {**(metadata.get("labels") or {}), **marks}
        spec.setdefault("selector", {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}})
    if creating and not job["metadata"].get("labels"):
        job["metadata"]["labels"] = dict(template.get("metadata", {}).get("labels") or {})
    pod_spec(template.setdefault("spec", {}))


def _secret(secret: Object) -> None:
    _set(secret, type="Opaque")
    plain = secret.pop("stringData", None) or {}
    if plain:
        encoded = {name: base64.b64encode(value.encode()).decode() for name, value in plain.items()}
        secret["data"] = {**(secret.get("data") or {}), **encoded}


def _service(spec: Object) -> None:
    _set(spec, type="ClusterIP", sessionAffinity="None", internalTrafficPolicy="Cluster")
    for port in spec.get("ports") or []:
        _set(port, protocol="TCP", targetPort=port["port"])


def _quality(spec: Object) -> str:
    needs = [container.get("resources") or {} for container in spec.get("containers") or []]
    if not any(one.get("requests") or one.get("limits") for one in needs):
        return "BestEffort"
    full = all(
        all((one.get("limits") or {}).get(name) not in (None, "0") for name in ("cpu", "memory"))
        and all(
            (one.get("requests") or {}).get(name) == (one.get("limits") or {}).get(name) for name in ("cpu", "memory")
        )
        for one in needs
    )
    return "Guaranteed" if full else "Burstable"


def _set(thing: Object, **defaults: Any) -> None:
    for name, value in defaults.items():
        if thing.get(name) is None:
            thing[name] = value
