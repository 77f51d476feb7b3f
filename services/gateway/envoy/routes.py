"""Which request goes where.

Nothing is cut off for being slow or silent: a stream of items may pause, a job is watched for days, and a worker's
stream lasts as long as the worker. What must not hang is bounded by the gateway and the scheduler, who know what they
wait for; dead peers are noticed by keep-alive.
"""

from typing import Any

from services.gateway.envoy.any_type import Config, typed
from services.gateway.envoy.settings import InCluster, Settings

GATEWAY, SCHEDULER, ADMIN = "gateway", "scheduler", "admin"
"""Names of clusters."""

BATCH_SERVICE = "cortex.batch.v1.BatchService"
WORKER_SERVICE = "cortex.batch.v1.WorkerService"
HEALTH_SERVICE = "grpc.health.v1.Health"
CLIENT_SERVICES = (
    BATCH_SERVICE,
    HEALTH_SERVICE,
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)
PROBES = ("/healthz", "/readyz")
"""Load balancers ask these, without a token."""

_NO_LIMIT = {"timeout": "0s", "idle_timeout": "0s"}
_NOT_SENT_YET = {
    "retry_on": "connect-failure,refused-stream",
    "num_retries": 2,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": typed("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
        }
    ],
}
"""Nobody has seen such a request, so another try can do nothing twice."""
_UNTRACED = {"tracing": {"overall_sampling": {"numerator": 0}}}
_UNLIMITED = {
    "typed_per_filter_config": {
        "envoy.filters.http.local_ratelimit": typed("envoy.config.route.v3.FilterConfig", disabled=True)
    }
}
_IS_GRPC: Config = {"grpc": {}}
_SUBMISSION = {
    "safe_regex": {"regex": "/batch/[^/]+"},
    "headers": [{"name": ":method", "string_match": {"exact": "POST"}}],
}


def edge(settings: Settings) -> Config:
    """The routes of the edge itself."""
    worker = [_work_stream()] if settings.work_stream else []
    return _table("edge", [*worker, *_everything()])


def in_cluster(settings: InCluster) -> Config:
    """The routes of the port for pods."""
    if settings.allow == "everything":
        return _table("in_cluster", [_work_stream(), *_everything()])
    refusal = (
        "here pods of the cluster may only submit: POST /batch/<api_name>; for anything else use the address that "
        "clients use, or let the operator set `in_cluster.allow: everything`"
    )
    return _table("in_cluster", [_work_stream(), _submissions(), _answer({"prefix": "/"}, 403, refusal)])


def observe() -> Config:
    """The routes of the port for probes and Prometheus."""
    pages = [
        {"match": {"path": path}, "route": {"cluster": ADMIN, "timeout": "5s"}}
        for path in ("/ready", "/stats/prometheus")
    ]
    return _table(
        "observe", [*pages, _answer({"prefix": "/"}, 404, "only /ready and /stats/prometheus are served here")]
    )


def _everything() -> list[Config]:
    return [
        *({"match": {"path": path}, "route": _to(GATEWAY), **_UNTRACED, **_UNLIMITED} for path in PROBES),
        *(_grpc(service) for service in CLIENT_SERVICES),
        _answer({"prefix": "/", **_IS_GRPC}, 404, "no such gRPC service is served here"),
        {"match": {"prefix": "/"}, "route": _to(GATEWAY, upgrade_configs=[{"upgrade_type": "websocket"}])},
    ]


def _submissions() -> Config:
    return {"match": _SUBMISSION, "route": _to(GATEWAY)}


def _work_stream() -> Config:
    return {"match": {"prefix": f"/{WORKER_SERVICE}/", **_IS_GRPC}, "route": _to(SCHEDULER), **_UNTRACED, **_UNLIMITED}


def _grpc(service: str) -> Config:
    """A client's deadline (`grpc-timeout`) goes on to the scheduler, and there is no other."""
    asked_often = _UNTRACED if service != BATCH_SERVICE else {}
    return {"match": {"prefix": f"/{service}/", **_IS_GRPC}, "route": _to(SCHEDULER), **asked_often}


def _to(cluster: str, **more: Any) -> Config:
    return {"cluster": cluster, **_NO_LIMIT, "retry_policy": _NOT_SENT_YET, **more}


def _answer(match: Config, status: int, text: str) -> Config:
    return {"match": match, "direct_response": {"status": status, "body": {"inline_string": text}}}


def _table(name: str, routes: list[Config]) -> Config:
    return {
        "name": name,
        "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}],
        "request_headers_to_remove": ["x-envoy-external-address"],  # made by Envoy itself, of use to nobody here
    }
