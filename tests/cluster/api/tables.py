"""Tables, as `kubectl get` asks for them."""

import json
from typing import Any

from tests.cluster.api.clock import seconds_since
from tests.cluster.api.crds import column_value
from tests.cluster.api.kinds import Kind, Object

_NAME = {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}
_AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def table(kind: Kind, objects: list[Object], metadata: Object, include: str) -> Object:
    """One row an object; with `include` Object, Metadata or None of it."""
    columns = columns_of(kind)
    rows = [
        {
            "cells": [thing["metadata"]["name"], *(_cell(thing, column) for column in columns)],
            "object": _part(thing, include),
        }
        for thing in objects
    ]
    definitions = [
        _NAME,
        *(
            {
                "name": column["name"],
                "type": column["type"],
                "format": column.get("format", ""),
                "description": column.get("description", ""),
                "priority": column.get("priority", 0),
            }
            for column in columns
        ),
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    }


def columns_of(kind: Kind) -> list[Object]:
    """A custom resource's own columns; for the others those that people look at most."""
    if kind.custom:
        return list(kind.columns) or [_AGE]
    return [*_BUILT_IN.get(kind.plural, []), _AGE]


def _column(name: str, value: Any, kind: str = "string") -> Object:
    return {"name": name, "type": kind, "value": value}


def _cell(thing: Object, column: Object) -> Any:
    value = column["value"](thing) if "value" in column else column_value(thing, column["jsonPath"])
    if value is None:
        return "<none>" if "value" in column else None
    match column["type"]:
        case "date":
            return _age(str(value))
        case "string":
            return value if isinstance(value, str) else json.dumps(value)
    return value


def _age(timestamp: str) -> str:
    seconds = int(seconds_since(timestamp))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _part(thing: Object, include: str) -> Object | None:
    match include:
        case "None":
            return None
        case "Object":
            return thing
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": thing["metadata"]}


def _ready(pod: Object) -> str:
    status = pod.get("status") or {}
    sidecars = {one["name"] for one in pod["spec"].get("initContainers") or [] if one.get("restartPolicy") == "Always"}
    statuses = [*(status.get("containerStatuses") or [])]
    statuses += [one for one in status.get("initContainerStatuses") or [] if one["name"] in sidecars]
    return f"{sum(one.get('ready', False) for one in statuses)}/{len(pod['spec']['containers']) + len(sidecars)}"


def _pod_status(pod: Object) -> str:
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    status = pod.get("status") or {}
    for one in _in_order_of_interest(status):
        state = one.get("state") or {}
        reason = (state.get("waiting") or state.get("terminated") or {}).get("reason")
        if reason and reason != "PodInitializing":
            return str(reason)
    return str(status.get("reason") or status.get("phase") or "Unknown")


def _in_order_of_interest(status: Object) -> list[Object]:
    """What an init container waits for says more, but once the pod is over its main containers do."""
    parts = [status.get("initContainerStatuses") or [], status.get("containerStatuses") or []]
    return [
        one for part in (reversed(parts) if status.get("phase") in ("Succeeded", "Failed") else parts) for one in part
    ]


def _restarts(pod: Object) -> int:
    status = pod.get("status") or {}
    return sum(
        one.get("restartCount", 0)
        for one in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    )


def _job_status(job: Object) -> str:
    conditions = {one["type"] for one in (job.get("status") or {}).get("conditions") or [] if one["status"] == "True"}
    return next(
        (
            name
            for name in ("Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet")
            if name in conditions
        ),
        "Running",
    )


def _node_status(node: Object) -> str:
    conditions = {one["type"]: one["status"] for one in (node.get("status") or {}).get("conditions") or []}
    return "Ready" if conditions.get("Ready") == "True" else "NotReady"


_BUILT_IN: dict[str, list[Object]] = {
    "pods": [_column("Ready", _ready), _column("Status", _pod_status), _column("Restarts", _restarts, "integer")],
    "jobs": [
        _column("Status", _job_status),
        _column(
            "Completions",
            lambda job: f"{(job.get('status') or {}).get('succeeded', 0)}/{job['spec'].get('completions', 1)}",
        ),
    ],
    "nodes": [_column("Status", _node_status)],
    "namespaces": [_column("Status", lambda one: (one.get("status") or {}).get("phase"))],
    "configmaps": [
        _column("Data", lambda one: len(one.get("data") or {}) + len(one.get("binaryData") or {}), "integer")
    ],
    "secrets": [
        _column("Type", lambda one: one.get("type")),
        _column("Data", lambda one: len(one.get("data") or {}), "integer"),
    ],
    "leases": [_column("Holder", lambda one: (one.get("spec") or {}).get("holderIdentity"))],
    "events": [
        _column("Type", lambda one: one.get("type")),
        _column("Reason", lambda one: one.get("reason")),
        _column(
            "Object",
            lambda one: f"{one['involvedObject'].get('kind', '').lower()}/{one['involvedObject'].get('name', '')}",
        ),
        _column("Message", lambda one: one.get("message")),
    ],
    "customresourcedefinitions": [_column("Created At", lambda one: one["metadata"]["creationTimestamp"])],
}
