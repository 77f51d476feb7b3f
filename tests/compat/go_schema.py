"""What the Cortex command line 0.42 decodes answers into, as strictly as Go does.

Go ignores keys that it does not know. A number with a fraction or an exponent does not go into its integers, however
whole it is; neither does one that needs more bits. What is a pointer in Go may be null or missing (`| None`), unless
the program follows it without looking: then it must be there, for otherwise the program crashes.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

Int = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Time = Annotated[
    str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")  # RFC 3339, as time.Time has it
]
Quantity = Annotated[str, Meta(pattern=r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+|[numkMGTPE]|[KMGTPE]i)?$")]
Kind = Literal["BatchAPI"]


class HTTPGetProbe(Struct):
    path: str
    port: Int32


class TCPSocketProbe(Struct):
    port: Int32


class ExecProbe(Struct):
    command: list[str]


class Probe(Struct):
    initial_delay_seconds: Int32
    timeout_seconds: Int32
    period_seconds: Int32
    success_threshold: Int32
    failure_threshold: Int32
    http_get: HTTPGetProbe | None = None
    tcp_socket: TCPSocketProbe | None = None
    exec: ExecProbe | None = None


class Compute(Struct):
    cpu: Quantity | None
    mem: Quantity | None
    gpu: Int
    inf: Int
    shm: Quantity | None


class Container(Struct):
    name: str
    image: str
    env: dict[str, str] | None
    command: list[str] | None
    args: list[str] | None
    readiness_probe: Probe | None
    liveness_probe: Probe | None
    compute: Compute | None


class Pod(Struct):
    port: Int32 | None
    containers: list[Container]
    max_concurrency: Int = 0
    max_queue_length: Int = 0


class Networking(Struct):
    endpoint: str


class API(Struct):
    """An API's `spec`."""

    name: str
    kind: Kind
    pod: Pod
    node_groups: list[str] | None
    apis: None
    networking: Networking
    autoscaling: None
    update_strategy: None
    index: Int
    file_name: str
    submitted_api_spec: Any
    id: str
    spec_id: str
    pod_id: str
    deployment_id: str
    key: str
    initial_deployment_time: Int
    last_updated: Int
    metadata_root: str


class Metadata(Struct):
    name: str
    kind: Kind
    id: str
    last_updated: Int
    deployment_id: str = ""


class SQSDeadLetterQueue(Struct):
    arn: str
    max_receive_count: Int


class BatchJob(Struct):
    """The answer to a submission."""

    job_id: str
    api_name: str
    kind: Kind
    workers: Int
    config: dict[str, Any] | None
    timeout: Int | None
    sqs_dead_letter_queue: SQSDeadLetterQueue | None
    api_id: str
    sqs_url: str
    start_time: Time
    total_batch_count: Int | UnsetType = UNSET


class WorkerCounts(Struct):
    pending: Int32 = 0
    creating: Int32 = 0
    not_ready: Int32 = 0
    ready: Int32 = 0
    succeeded: Int32 = 0
    err_image_pull: Int32 = 0
    terminating: Int32 = 0
    failed: Int32 = 0
    killed: Int32 = 0
    killed_oom: Int32 = 0
    stalled: Int32 = 0
    unknown: Int32 = 0


class BatchJobStatus(BatchJob, kw_only=True):
    status: Literal[
        "pending",
        "enqueuing",
        "running",
        "enqueue_failed",
        "completed_with_failures",
        "succeeded",
        "unexpected_error",
        "worker_error",
        "worker_oom",
        "timed_out",
        "stopped",
        "unknown",
    ]
    batches_in_queue: Int
    end_time: Time | None = None
    worker_counts: WorkerCounts | None = None


class BatchMetrics(Struct):
    succeeded: Int
    failed: Int
    average_time_per_batch: float | None


class BatchJobResponse(Struct):
    api_spec: API
    job_status: BatchJobStatus
    endpoint: str
    metrics: BatchMetrics | None = None


class APIVersion(Struct):
    api_id: str
    last_updated: Int


class ListedAPI(Struct):
    """An element of `GET /get`."""

    metadata: Metadata
    batch_job_statuses: list[BatchJobStatus] | None


class DescribedAPI(ListedAPI, kw_only=True):
    """The element of `GET /get/<api>`."""

    spec: API
    endpoint: str
    api_versions: list[APIVersion]
    dashboard_url: str | None = None


class DeployedAPI(Struct):
    spec: API
    endpoint: str


class DeployResult(Struct):
    api: DeployedAPI | None
    message: str
    error: str


class ClusterConfig(Struct):
    api_version: str


class NodeInfo(Struct):
    nodegroup_name: str
    instance_type: str
    is_spot: bool
    price: float


class WorkerNodeInfo(NodeInfo, kw_only=True):
    name: str
    num_replicas: Int
    num_enqueuer_replicas: Int
    compute_user_capacity: Compute
    compute_available: Compute
    compute_user_requested: Compute


class InfoResponse(Struct):
    cluster_config: ClusterConfig
    worker_node_infos: list[WorkerNodeInfo]
    operator_node_infos: list[NodeInfo]
    num_pending_replicas: Int


class VerifyCortexResponse(Struct):
    pass


class LogResponse(Struct):
    log_url: str


class DeleteResponse(Struct):
    message: str


class ErrorResponse(Struct):
    kind: Annotated[str, Meta(pattern=r"^[a-z0-9]+\.[a-z0-9_]+$")]
    message: Annotated[str, Meta(min_length=1)]  # without one, the answer is printed as it is


TYPES: dict[str, Any] = {
    "BatchJob": BatchJob,
    "BatchJobResponse": BatchJobResponse,
    "DeleteResponse": DeleteResponse,
    "ErrorResponse": ErrorResponse,
    "InfoResponse": InfoResponse,
    "LogResponse": LogResponse,
    "VerifyCortexResponse": VerifyCortexResponse,
    "[]DeployResult": list[DeployResult],
    "[]DescribedAPI": list[DescribedAPI],
    "[]ListedAPI": list[ListedAPI],
}
"""By the names that the exchanges use."""


def decode(body: bytes, into: str) -> Any:
    """Raises `msgspec.ValidationError` where Go, or the program behind it, would fail."""
    return msgspec.json.decode(body, type=TYPES[into])
