"""The parts of the system as data: what to start, with which environment, and how each says that it is ready."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from cortex.up.data_dir import Directories
from cortex.up.errors import UpError
from cortex.up.ports import Address
from cortex.up.readiness import Accepts, AnswersOk, Check

GATEWAY_STOP_S = 2.0
"""Requests under way finish: the limit that the gateway keeps by itself."""

SCHEDULER_STOP_S = 7.5
"""Workers finish or hand back what they hold, 7 s at most, and their streams end."""

COLLECTOR_STOP_S = 0.5
"""What it holds is written. Together with the others' shares: `supervisor.DRAIN_S`."""

NEEDED = (
    "services",
    "grpc",
    "uvloop",
    "msgspec",
    "opentelemetry",
    "httptools",
    "starlette",
    "uvicorn",
    "websockets",
    "psutil",
    "jwt",
    "aioboto3",
)
"""What the parts import first of all."""


@dataclass(frozen=True)
class Part:
    """One process of the system."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    """What is set beside the environment of `cortex up` itself."""
    fds: tuple[int, ...] = ()
    """What it inherits beside the lifeline."""
    stop_grace_s: float = 2.0
    """From its SIGTERM until the next part is stopped."""


@dataclass(frozen=True)
class Plan:
    """Everything a supervisor needs to know. Parts are started together and stopped in order."""

    parts: tuple[Part, ...]
    ready_when: tuple[Check, ...]
    log_directory: Path


@dataclass(frozen=True)
class Endpoints:
    """Where the system is reached."""

    http: Address
    http_fd: int
    grpc: Address
    collector: Address

    @property
    def public_url(self) -> str:
        """The base URL in answers and in containers' `cli.yaml`."""
        return f"http://{self.http.reachable}"


def local_system(
    directories: Directories,
    endpoints: Endpoints,
    *,
    insecure: bool,
    input_roots: Sequence[Path] = (),
    gpus: str | None = None,
    ledger: str | None = None,
    runtime: str | None = None,
) -> Plan:
    """Gateway, scheduler and collector on this machine.

    Stopped in this order: first nobody can submit any more, then the workers finish or hand back what they hold, and
    the collector ends last because the others' last spans are still to come.
    """
    scheduler, collector = directories.socket("scheduler"), directories.socket("collector")
    http = directories.socket("http")
    shared = {
        "CORTEX_DATA_DIR": str(directories.data),
        "CORTEX_PUBLIC_URL": endpoints.public_url,
        "CORTEX_HTTP_SOCKET": str(http),
        "CORTEX_COLLECTOR_SOCKET": str(collector),
        "CORTEX_COLLECTOR_PORT": str(endpoints.collector.port),
        "CORTEX_INSECURE": str(insecure).lower(),
        "CORTEX_WORKING_DIR": str(Path.cwd()),
        **_telemetry(collector),
    }
    gateway_environment = {
        "CORTEX_HTTP_ADDRESS": str(endpoints.http),
        "CORTEX_HTTP_FD": str(endpoints.http_fd),
        "CORTEX_SCHEDULER_ADDRESS": f"unix:{scheduler}",
        "CORTEX_COLLECTOR_ADDRESS": f"unix:{collector}",
    }
    scheduler_environment = {"CORTEX_GRPC_ADDRESS": str(endpoints.grpc), "CORTEX_SCHEDULER_SOCKET": str(scheduler)}
    if input_roots:  # else what the environment says
        scheduler_environment["CORTEX_INPUT_ROOTS"] = os.pathsep.join(map(str, input_roots))
    if runtime is not None:
        scheduler_environment["CORTEX_WORKERS"] = runtime
    if gpus is not None:
        scheduler_environment["CORTEX_GPUS"] = gpus
    if ledger is not None:
        scheduler_environment["CORTEX_LEDGER"] = ledger
    inherited = (directories.parts_lock_fd,)
    return Plan(
        parts=(
            Part(
                "gateway",
                service("gateway"),
                shared | gateway_environment,
                (endpoints.http_fd, *inherited),
                GATEWAY_STOP_S,
            ),
            Part("scheduler", service("scheduler"), shared | scheduler_environment, inherited, SCHEDULER_STOP_S),
            Part("collector", service("collector"), shared, inherited, COLLECTOR_STOP_S),
        ),
        ready_when=(
            Accepts(str(collector)),
            Accepts((endpoints.grpc.reachable_host, endpoints.grpc.port)),
            AnswersOk(endpoints.http.reachable_host, endpoints.http.port, "/readyz"),
        ),
        log_directory=directories.logs,
    )


def service(name: str) -> tuple[str, ...]:
    """The command of a service. `-P`: the directory where a user starts this may hold a `services` of its own."""
    return (sys.executable, "-P", "-m", f"services.{name}")


def check_gpus(gpus: str | None) -> None:
    """Raises `UpError` when what the scheduler is to be told makes no sense."""
    names = [name.strip() for name in (gpus or "").split(",") if name.strip()]
    wrong = not names or len(set(names)) < len(names) or any(name.startswith("-") for name in names)
    if gpus is not None and wrong:
        raise UpError(f"--gpus {gpus}: give how many GPUs there are (2), or which, without repetitions (0,3)")


def input_root(directory: Path) -> Path:
    """The directory as jobs name it: `file://` and this path. Links are left as they are.

    Raises `UpError`.
    """
    root = Path(os.path.abspath(directory))  # noqa: PTH100  # resolve() would follow links
    if not root.is_dir():
        raise UpError(f"--input-root {directory}: there is no such directory")
    if os.pathsep in str(root):
        raise UpError(f"--input-root {directory}: a path with {os.pathsep!r} in it cannot be used; give a link to it")
    return root


def _telemetry(collector: Path) -> dict[str, str]:
    """Spans go to our own collector, unless the user has named another receiver."""
    if any(os.environ.get(f"OTEL_EXPORTER_OTLP_{which}") for which in ("ENDPOINT", "TRACES_ENDPOINT")):
        return {}
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"unix://{collector}", "OTEL_EXPORTER_OTLP_INSECURE": "true"}


def check_ledger(url: str | None) -> None:
    """Raises `UpError` when `--ledger` is no database, or tells a password, or what it needs is not installed."""
    if url is not None and (_names_password(url) or "password=" in url):
        raise UpError(
            "--ledger holds a password, which everyone on this machine can read in the list of processes: set the whole"
            " URL as the environment variable CORTEX_LEDGER instead, or leave the password to ~/.pgpass"
        )
    for where, given in ((f"--ledger {url}", url), ("CORTEX_LEDGER", os.environ.get("CORTEX_LEDGER"))):
        if given and not given.startswith(("postgresql://", "postgres://")):
            raise UpError(f"{where}: the ledger is kept in PostgreSQL, at postgresql://USER@HOST:5432/DATABASE")
    if (url or os.environ.get("CORTEX_LEDGER")) and find_spec("psycopg") is None:
        raise UpError(
            "this installation cannot keep the ledger in PostgreSQL (psycopg is missing):"
            " pip install 'cortex-batch[local,postgres]'"
        )


def _names_password(url: str) -> bool:
    """Whether there is one in front of the host; in doubt, of a URL that makes no sense."""
    return ":" in url.partition("://")[2].rpartition("@")[0]


def check_installed() -> None:
    """Raises `UpError` when what the parts need is not installed: the base install is only client and command line."""
    missing = next((name for name in NEEDED if find_spec(name) is None), None)
    if missing is not None:
        raise UpError(
            f"this installation cannot run the system ({missing} is missing): pip install 'cortex-batch[local]'"
        )
