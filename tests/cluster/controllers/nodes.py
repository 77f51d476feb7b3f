"""Nodes and what is left on them.

A kubelet renews its Lease in `kube-node-lease`. A node without news is NotReady and tainted, and its pods that do not
tolerate that go, marked as disrupted. Pods that nobody will ever end (no node, or a node that is gone) are ended here.
"""

import time

from tests.cluster.api.api import Api, Write
from tests.cluster.api.clock import now
from tests.cluster.api.deletion import Deletion
from tests.cluster.api.kinds import Kind, Object
from tests.cluster.api.store import Change
from tests.cluster.controllers.loop import Key, Loop

_UNREACHABLE = "node.kubernetes.io/unreachable"
_STATUS = Write(subresource="status")
_FINISHED = ("Succeeded", "Failed")


class NodeController:
    """Looks at nodes, and at pods that end."""

    def __init__(self, api: Api, grace_seconds: float, eviction_seconds: float | None) -> None:
        self._api = api
        self._nodes, self._pods = api.kinds.named("nodes"), api.kinds.named("pods")
        self._leases = api.kinds.named("leases", "coordination.k8s.io")
        self._grace = grace_seconds
        self._eviction = eviction_seconds
        """Instead of what the pods tolerate, because five minutes are long in a test; None: what they tolerate."""
        self._heard: dict[str, float] = {}
        self._tainted: dict[str, float] = {}
        self.loop = Loop(api, "node controller", self._keys, self._sync)

    def _keys(self, kind: Kind, change: Change) -> set[Key]:
        metadata = change.last["metadata"]
        if kind is self._leases and metadata["namespace"] == "kube-node-lease":
            self._heard[metadata["name"]] = time.monotonic()
            return {("", metadata["name"])}
        if kind is self._nodes:
            if change.after is None:
                return {("", metadata["name"]), *self._pods_of(metadata["name"])}
            return {("", metadata["name"])}
        if kind is self._pods and change.after is not None and "deletionTimestamp" in metadata:
            return {(metadata["namespace"], metadata["name"])}
        return set()

    def _sync(self, key: Key) -> float | None:
        if key[0]:
            self._end(key)
            return None
        node = self._api.store.get(self._nodes, "", key[1])
        if node is None:
            self._heard.pop(key[1], None)
            return None
        silent = time.monotonic() - self._heard.setdefault(key[1], time.monotonic())
        if silent < self._grace:
            self._back(node)
            return self._grace - silent
        self._lost(node)
        return self._evict(key[1])

    def _end(self, key: Key) -> None:
        """A pod that nobody runs ends at once, as the pod garbage collector has it."""
        pod = self._api.store.get(self._pods, *key)
        if pod is None or "deletionTimestamp" not in pod["metadata"]:
            return
        node = pod["spec"].get("nodeName")
        if node and self._api.store.get(self._nodes, "", node) is not None:
            return
        if (pod.get("status") or {}).get("phase") not in _FINISHED:
            self._set_status(pod, phase="Failed")
        self._api.delete(self._pods, *key, Deletion(uid=pod["metadata"]["uid"], grace=0))

    def _lost(self, node: Object) -> None:
        name = node["metadata"]["name"]
        if name in self._tainted:
            return
        self._tainted[name] = time.monotonic()

        def unknown(live: Object) -> Object:
            conditions = (live.get("status") or {}).get("conditions") or []
            news = {
                "status": "Unknown",
                "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
            }
            live.setdefault("status", {})["conditions"] = [
                {**one, **news, "lastTransitionTime": now()} for one in conditions
            ]
            return live

        def tainted(live: Object) -> Object:
            taints = [one for one in live.setdefault("spec", {}).get("taints") or [] if one["key"] != _UNREACHABLE]
            effects = ("NoSchedule", "NoExecute")
            live["spec"]["taints"] = taints + [
                {"key": _UNREACHABLE, "effect": effect, "timeAdded": now()} for effect in effects
            ]
            return live

        self._api.change(self._nodes, "", name, unknown, _STATUS)
        self._api.change(self._nodes, "", name, tainted)
        for key in self._pods_of(name):
            pod = self._api.get(self._pods, *key)
            if pod["status"].get("phase") not in _FINISHED:
                self._set_condition(pod, {"type": "Ready", "status": "False"})

    def _back(self, node: Object) -> None:
        name = node["metadata"]["name"]
        if self._tainted.pop(name, None) is None:
            return

        def clean(live: Object) -> Object:
            live["spec"]["taints"] = [one for one in live["spec"].get("taints") or [] if one["key"] != _UNREACHABLE]
            return live

        self._api.change(self._nodes, "", name, clean)

    def _evict(self, node: str) -> float | None:
        """Pods go that tolerate the silence no longer."""
        waits = []
        for key in self._pods_of(node):
            pod = self._api.get(self._pods, *key)
            if "deletionTimestamp" in pod["metadata"] or pod["status"].get("phase") in _FINISHED:
                continue
            patience = _tolerated_seconds(pod) if self._eviction is None else self._eviction
            left = self._tainted[node] + patience - time.monotonic()
            if left > 0:
                waits.append(left)
                continue
            message = f"Taint manager: deleting due to NoExecute taint {_UNREACHABLE}"
            news = {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "DeletionByTaintManager",
                "message": message,
            }
            self._set_condition(pod, news)
            self._api.delete(self._pods, *key, Deletion(uid=pod["metadata"]["uid"]))
        return min(waits) if waits else None

    def _pods_of(self, node: str) -> set[Key]:
        pods = self._api.store.all(self._pods)
        return {
            (one["metadata"]["namespace"], one["metadata"]["name"])
            for one in pods
            if one["spec"].get("nodeName") == node
        }

    def _set_condition(self, pod: Object, condition: Object) -> None:
        others = [one for one in pod["status"].get("conditions") or [] if one["type"] != condition["type"]]
        self._set_status(pod, conditions=[*others, {**condition, "lastTransitionTime": now()}])

    def _set_status(self, pod: Object, **news: object) -> None:
        key = pod["metadata"]["namespace"], pod["metadata"]["name"]
        self._api.change(self._pods, *key, lambda live: {**live, "status": {**live["status"], **news}}, _STATUS)


def _tolerated_seconds(pod: Object) -> float:
    for one in pod["spec"].get("tolerations") or []:
        if one.get("key") in (_UNREACHABLE, None, "") and one.get("effect") in ("NoExecute", None, ""):
            return float(one.get("tolerationSeconds", "inf"))
    return 0.0
