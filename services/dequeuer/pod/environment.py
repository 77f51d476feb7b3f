"""What a container's process finds in its environment, and the command that it runs.

Three layers, later ones winning: what it inherits (a process: the shell's environment, that of `cortex up` without what
the system set in it for its own parts; a container of an engine: nothing but its image's), the container's `env`, and
the contract's `CORTEX_*` variables. `CORTEX_` is a reserved prefix, so the last two never meet.
"""

import functools
import importlib.metadata
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cortex.batch.v1.worker_spec_pb2 import Container, WorkerSpec
from services.dequeuer.pod.expansion import expand, expand_in_order

log = logging.getLogger(__name__)

WORKER_ID_VARIABLE = "CORTEX_WORKER_ID"
"""In the environment of everything that belongs to a worker, so that whatever outlives it can be found and ended."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A container's command and environment, ready to run."""

    command: tuple[str, ...]
    declared: Mapping[str, str]
    """The contract's variables and the container's own: what `$(NAME)` may refer to."""
    variables: Mapping[str, str]
    """The whole environment."""


def fill(spec: WorkerSpec, container: Container, around: Mapping[str, str], paths: Mapping[str, str]) -> Filled:
    """What to run for a container.

    `around` is what it inherits; `paths` are the `CORTEX_*` variables that say where the contract's files are.
    """
    contract = {
        "CORTEX_PORT": str(spec.port),
        "CORTEX_VERSION": version(),
        "CORTEX_LOG_LEVEL": "INFO",
        WORKER_ID_VARIABLE: spec.worker_id,
        **paths,
    }
    declared = expand_in_order(((variable.name, variable.value) for variable in container.env), contract)
    command = tuple(expand(word, declared) for word in (*container.command, *container.args))
    return Filled(command, declared, {**around, **declared})


def from_shell(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's own part of our environment.

    `cortex up` sets `CORTEX_*`, and points the standard OTLP variables at a unix socket unless the user set them.
    """
    kept = {name: value for name, value in environ.items() if not name.startswith("CORTEX_")}
    if kept.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").startswith("unix:"):
        del kept["OTEL_EXPORTER_OTLP_ENDPOINT"]
        kept.pop("OTEL_EXPORTER_OTLP_INSECURE", None)
    return kept


@functools.cache
def version() -> str:
    """This distribution's version; `0.0.0` where its sources run without being installed."""
    try:
        return importlib.metadata.version("cortex-batch")
    except importlib.metadata.PackageNotFoundError:
        log.warning("the distribution cortex-batch is not installed: CORTEX_VERSION is 0.0.0")
        return "0.0.0"


def check_arguments(command: Sequence[str], variables: Mapping[str, str]) -> str:
    """Why no process can be given these, as the rest of a sentence about the container; empty when one can."""
    if any("\0" in word for word in (*command, *variables, *variables.values())):
        return "cannot be started: its command or environment holds a zero byte"
    return ""
