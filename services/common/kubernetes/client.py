"""One request at a time to an API server."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from services.common.errors import CortexError
from services.common.kubernetes.errors import NOT_FOUND, refusal, silence
from services.common.kubernetes.resources import Resource

Object = dict[str, Any]
"""An object of the API server's, as its JSON."""

TIMEOUT_SECONDS = 15.0
PAGE = 500
"""Objects in one page of a list."""
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_MERGE = "application/merge-patch+json"
_JSON = "application/json-patch+json"
_APPLY = "application/apply-patch+yaml"  # JSON is YAML


class Cluster:
    """An API server.

    Everything raises `CortexError`: see `errors.py` for the kinds. Nothing is tried twice here.
    """

    def __init__(self, api: ApiClient, namespace: str) -> None:
        self._api = api
        self.namespace = namespace
        """Where we live: the pod's, or that of the kubeconfig's context."""

    @classmethod
    async def connect(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """The cluster that KUBECONFIG (or ~/.kube/config) names, or else the one that this process runs in."""
        configuration = Configuration()
        namespace = environ.get("CORTEX_NAMESPACE", "")
        try:
            if "KUBECONFIG" not in environ and "KUBERNETES_SERVICE_HOST" in environ:
                load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # theirs
                namespace = namespace or (_SERVICE_ACCOUNT / "namespace").read_text().strip()
            else:
                file = environ.get("KUBECONFIG")
                loader = await load_kube_config(file, client_configuration=configuration)  # type: ignore[no-untyped-call]  # theirs
                namespace = namespace or loader.current_context["context"].get("namespace", "default")
        except (ConfigException, OSError, KeyError) as error:
            message = f"no Kubernetes cluster is configured ({error}): set KUBECONFIG, or run inside of a cluster"
            raise CortexError("kubernetes.not_configured", message) from error
        configuration.retries = False
        return cls(ApiClient(configuration), namespace)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._api.close()  # type: ignore[no-untyped-call]  # theirs

    # Reading

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """One object; None when it is not there."""
        try:
            return await self._ask("GET", resource.path(namespace, name))
        except CortexError as error:
            if error.kind == NOT_FOUND:
                return None
            raise

    async def list(self, resource: Resource, namespace: str | None, labels: str = "") -> tuple[list[Object], str]:
        """All objects that a label selector selects, and the version of the collection that they show."""
        found: list[Object] = []
        query = {"labelSelector": labels, "limit": str(PAGE)}
        while True:
            page = await self._ask("GET", resource.path(namespace), query=query)
            found += page.get("items") or ()
            metadata = page.get("metadata") or {}
            if not (more := metadata.get("continue")):
                return found, str(metadata.get("resourceVersion", ""))
            query["continue"] = more

    @asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, str], silence_seconds: float | None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The body of an answer that goes on, in pieces. It breaks after `silence_seconds` without a byte."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_SECONDS, sock_read=silence_seconds)
        doing = f"follow {path}"
        try:
            response = await self._request("GET", path, query=query, timeout=timeout)
            try:
                if response.status >= 400:
                    raise refusal(response.status, await response.read(), doing)
                yield response.content.iter_any()
            finally:
                response.close()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise silence(error, doing) from error

    # Writing

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """Make an object. Raises `kubernetes.already_exists`."""
        return await self._ask("POST", resource.path(namespace), body=body)

    async def apply(
        self, resource: Resource, namespace: str | None, body: Object, manager: str, subresource: str = ""
    ) -> Object:
        """Server-side apply: have the fields in `body` as they are there, by right of `manager`; others stay."""
        name = body["metadata"]["name"]
        return await self._ask(
            "PATCH",
            resource.path(namespace, name, subresource),
            query={"fieldManager": manager, "force": "true"},
            body=body,
            content=_APPLY,
        )

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        change: Object | Sequence[Object],
        subresource: str = "",
    ) -> Object:
        """Change an object by a merge patch (a dictionary) or a JSON patch (a list).

        A JSON patch whose `test` does not hold raises `kubernetes.invalid`; a `resourceVersion` in a merge patch that
        is not the present one raises `kubernetes.conflict`.
        """
        content = _MERGE if isinstance(change, dict) else _JSON
        return await self._ask("PATCH", resource.path(namespace, name, subresource), body=change, content=content)

    async def replace(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """Put an object in the place of the one with its name and `resourceVersion`. Raises `kubernetes.conflict`."""
        return await self._ask("PUT", resource.path(namespace, body["metadata"]["name"]), body=body)

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str = "",
        grace_seconds: int | None = None,
        propagation: str = "Background",
    ) -> bool:
        """Have an object deleted; False when it is not there any more, or another one (by `uid`) has its name."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            await self._ask("DELETE", resource.path(namespace, name), body=options)
        except CortexError as error:
            if error.kind == NOT_FOUND or (uid and error.kind == "kubernetes.conflict"):
                return False
            raise
        return True

    # Asking

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | Sequence[Object] | None = None,
        content: str = "application/json",
    ) -> Object:
        doing = f"{method} {path}"
        try:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
            response = await self._request(method, path, query=query, body=body, content=content, timeout=timeout)
            answer = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise silence(error, doing) from error
        if response.status >= 400:
            raise refusal(response.status, answer, doing)
        told: Object = json.loads(answer)
        return told

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None,
        timeout: aiohttp.ClientTimeout,
        body: Object | Sequence[Object] | None = None,
        content: str = "application/json",
    ) -> aiohttp.ClientResponse:
        method, url, headers, sent, _ = await self._api.param_serialize(
            method,
            path,
            query_params=[(name, value) for name, value in (query or {}).items() if value],
            header_params={"Content-Type": content, "Accept": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = await self._api.call_api(method, url, headers, sent, _request_timeout=timeout)
        response: aiohttp.ClientResponse = answer.response
        return response
