"""Runs a worker's containers: `create` makes what the rest of the dequeuer knows as `services.dequeuer.ports.Pod`."""

import os
from collections.abc import Mapping

from cortex.batch.v1.worker_spec_pb2 import WorkerSpec
from services.common.errors import Category, CortexError
from services.dequeuer.pod.engine import EnginePod
from services.dequeuer.pod.local import LocalPod
from services.dequeuer.ports import Pod


def create(spec: WorkerSpec, environ: Mapping[str, str] = os.environ) -> Pod:
    """The pod that a WorkerSpec asks for. Raises `CortexError` when it asks for none that exists."""
    if not spec.HasField("local"):
        raise CortexError(
            "worker.no_runtime", "the worker's specification does not say how to run its containers", Category.INVALID
        )
    return EnginePod(spec, environ) if spec.local.HasField("engine") else LocalPod(spec, environ)
