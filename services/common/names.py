"""Names and numbers that two services must agree on."""

CONTRACT_VERSION = "0.42"
"""The Cortex release whose clients we serve."""

BATCH_SERVICE = "cortex.batch.v1.BatchService"
"""The scheduler's service for clients. Its health says whether this replica of the scheduler leads."""

MAX_SUBMISSION_BYTES = 10 * 1024 * 1024
"""A submission's size limit, over HTTP and over gRPC."""

MAX_MESSAGE_BYTES = MAX_SUBMISSION_BYTES + 1024 * 1024
"""gRPC's message limit: the largest submission and its envelope."""

MAX_ITEM_BYTES = 262_144
"""An item, and an encoded batch, is smaller than this."""

MAX_JSON_DEPTH = 512
"""JSON nested deeper than this is refused."""

GRPC_VARIABLES = {
    "GRPC_ENABLE_FORK_SUPPORT": "0",  # its handlers run at every start of a process, for nothing: we fork to exec
    "GRPC_VERBOSITY": "ERROR",  # a connection that breaks is news for our own log
}
"""How gRPC is to behave in a process that starts others. It reads them when it is imported; they are not for others."""

CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)
"""Options of every channel and server of ours."""
