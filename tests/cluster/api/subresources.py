"""What is below an object: a pod's log, binding and eviction, and the scale of custom resources."""

import ssl
from typing import Any

import aiohttp
from aiohttp import web

from tests.cluster.api.api import Api, Write
from tests.cluster.api.clock import now
from tests.cluster.api.crds import column_value
from tests.cluster.api.deletion import Deletion
from tests.cluster.api.errors import ApiError, conflict
from tests.cluster.api.kinds import Object
from tests.cluster.api.requests import Target, body_of
from tests.cluster.api.selectors import matches

_UNVERIFIED = ssl.create_default_context()
_UNVERIFIED.check_hostname = False
_UNVERIFIED.verify_mode = ssl.CERT_NONE


async def answer(api: Api, request: web.Request, aim: Target) -> web.StreamResponse:
    """The answer of that address. Raises `ApiError`."""
    match request.method, aim.subresource:
        case "GET", "log" if aim.kind.plural == "pods":
            return await _log(api, request, aim)
        case "POST", "binding" if aim.kind.plural == "pods":
            return bind(api, await body_of(request), aim.namespace, aim.name)
        case "POST", "eviction" if aim.kind.plural == "pods":
            return _evict(api, await body_of(request), aim)
        case "GET", "scale" if aim.kind.scale:
            return web.json_response(_scale(api.get(aim.kind, aim.namespace, aim.name), aim.kind.scale))
        case "PUT" | "PATCH", "scale" if aim.kind.scale:
            return _scaled(api, await body_of(request), aim, aim.kind.scale)
    raise ApiError(404, "the server could not find the requested resource")


def bind(api: Api, binding: Object, namespace: str, name: str) -> web.Response:
    """What a scheduler does: this pod runs on that node."""
    kind = api.kinds.named("pods")
    pod = api.get(kind, namespace, name)
    if (uid := (binding.get("metadata") or {}).get("uid")) and uid != pod["metadata"]["uid"]:
        raise conflict(
            "pods/binding", "", name, f"the UID in precondition is {uid}, in the object {pod['metadata']['uid']}"
        )
    if there := pod["spec"].get("nodeName"):
        raise conflict("pods/binding", "", name, f'pod {name} is already assigned to node "{there}"')
    if "deletionTimestamp" in pod["metadata"]:
        raise conflict("pods/binding", "", name, f"pod {name} is being deleted, cannot be assigned to a host")
    conditions = [one for one in pod["status"].get("conditions") or [] if one["type"] != "PodScheduled"]
    scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now()}
    spec = {**pod["spec"], "nodeName": binding["target"]["name"]}
    api.store.put(kind, {**pod, "spec": spec, "status": {**pod["status"], "conditions": [*conditions, scheduled]}})
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
    return web.json_response(status, status=201)


def _evict(api: Api, eviction: Object, aim: Target) -> web.Response:
    """Deletion that respects disruption budgets and says that it was a disruption."""
    pod = api.get(aim.kind, aim.namespace, aim.name)
    for budget in api.store.all(api.kinds.named("poddisruptionbudgets", "policy"), aim.namespace):
        selected = matches(budget["spec"].get("selector"), pod["metadata"].get("labels") or {})
        if selected and (budget.get("status") or {}).get("disruptionsAllowed", 0) < 1:
            message = "Cannot evict pod as it would violate the pod's disruption budget."
            raise ApiError(429, message, details={"causes": [{"reason": "DisruptionBudget"}]})
    target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    target |= {"message": "Eviction API: evicting", "lastTransitionTime": now()}

    def doomed(live: Object) -> Object:
        conditions = [one for one in live["status"].get("conditions") or [] if one["type"] != "DisruptionTarget"]
        return {**live, "status": {**live["status"], "conditions": [*conditions, target]}}

    api.change(aim.kind, aim.namespace, aim.name, doomed, Write(subresource="status"))
    api.delete(aim.kind, aim.namespace, aim.name, Deletion.parse(eviction.get("deleteOptions") or {}, {}))
    return web.json_response(
        {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, status=201
    )


async def _log(api: Api, request: web.Request, aim: Target) -> web.StreamResponse:
    """The kubelet's word, passed on."""
    pod = api.get(aim.kind, aim.namespace, aim.name)
    names = [one["name"] for one in [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]]
    container = request.query.get("container") or names[0]
    if container not in names:
        raise ApiError(400, f"container {container} is not valid for pod {aim.name}")
    if not (host := pod["spec"].get("nodeName")):
        raise ApiError(400, f'container "{container}" in pod "{aim.name}" is waiting to start: no host assigned')
    status = api.get(api.kinds.named("nodes"), "", host).get("status") or {}
    port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port", 0)
    address = next(
        (one["address"] for one in status.get("addresses") or [] if one["type"] == "InternalIP"), "127.0.0.1"
    )
    url = f"https://{address}:{port}/containerLogs/{aim.namespace}/{aim.name}/{container}"
    query = {name: value for name, value in request.query.items() if name != "container"}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, params=query, ssl=_UNVERIFIED) as theirs,
        ):
            if theirs.status != 200:
                raise ApiError(theirs.status, await theirs.text())
            ours = web.StreamResponse(headers={"Content-Type": "text/plain"})
            await ours.prepare(request)
            async for piece in theirs.content.iter_any():
                await ours.write(piece)
            await ours.write_eof()
            return ours
    except aiohttp.ClientConnectorError as error:
        raise ApiError(500, f'Get "{url}": {error}') from error


def _scale(thing: Object, paths: Object) -> Object:
    metadata = {
        name: thing["metadata"].get(name)
        for name in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    }
    spec = {"replicas": column_value(thing, paths["specReplicasPath"]) or 0}
    status: dict[str, Any] = {"replicas": column_value(thing, paths["statusReplicasPath"]) or 0}
    if paths.get("labelSelectorPath"):
        status["selector"] = column_value(thing, paths["labelSelectorPath"]) or ""
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}


def _scaled(api: Api, given: Object, aim: Target, paths: Object) -> web.Response:
    def changed(thing: Object) -> Object:
        *parents, last = paths["specReplicasPath"].removeprefix(".").split(".")
        place = thing
        for step in parents:
            place = place.setdefault(step, {})
        place[last] = given["spec"]["replicas"]
        return thing

    return web.json_response(_scale(api.change(aim.kind, aim.namespace, aim.name, changed), paths))
