"""`cortex up` from its options to its exit code."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cortex.cli.told import safe
from cortex.up import containers, data_dir, plan, ports
from cortex.up.errors import UpError
from cortex.up.supervisor import Supervisor


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    host: str = "127.0.0.1"
    port: int = 8888
    """0 picks a free one."""
    grpc_port: int = 8889
    """0 picks a free one."""
    data_dir: Path = Path("cortex-data")
    insecure: bool = False
    """Serve addresses that are not loopback. There is no authentication: whoever reaches one may run programs here."""
    input_roots: tuple[Path, ...] = ()
    """Directories whose files jobs may read, and write results to."""
    gpus: str | None = None
    """How many GPUs there are, or which; None for those that are found."""
    ledger: str | None = None
    """The URL of a PostgreSQL database for the ledger; None for what the environment says, else the data directory."""
    runtime: str | None = None
    """The container engine that runs workers' containers; None: they are processes."""


def run(options: Options) -> bool:
    """Run the system until SIGINT or SIGTERM; False when a second one cut its clean end short.

    Raises `UpError` when it cannot be started.

    Prints one line on standard output when all is ready; everything else goes to standard error.
    """
    plan.check_installed()
    plan.check_gpus(options.gpus)
    plan.check_ledger(options.ledger)
    if options.runtime is not None:
        containers.check(options.runtime)
    input_roots = [plan.input_root(root) for root in options.input_roots]
    http, grpc = ports.resolve(options.host, options.port), ports.resolve(options.host, options.grpc_port)
    if not http.is_loopback and not options.insecure:
        raise UpError(
            f"--host {options.host} can be reached from other machines, and whoever reaches it may run programs here: "
            "use a loopback address, or say --insecure if that is what you want"
        )
    with (
        data_dir.claim(options.data_dir) as directories,
        ports.listen(http, "--port") as http_socket,
        ports.reserve(grpc, "--grpc-port") as grpc_socket,
        ports.reserve(ports.resolve("127.0.0.1", 0), "the collector's port") as collector_socket,
    ):
        endpoints = plan.Endpoints(
            http=http.at_port_of(http_socket),
            http_fd=http_socket.fileno(),
            grpc=grpc.at_port_of(grpc_socket),
            collector=ports.resolve("127.0.0.1", ports.bound_port(collector_socket)),
        )
        if not http.is_loopback:
            _say(f"warning: --insecure: everyone who can reach {endpoints.http} may run programs on this machine")
        system = plan.local_system(
            directories,
            endpoints,
            insecure=options.insecure,
            input_roots=input_roots,
            gpus=options.gpus,
            ledger=options.ledger,
            runtime=options.runtime,
        )
        ready_line = f"cortex is ready at http://{endpoints.http} (gRPC {endpoints.grpc})"
        with _containers(options.runtime, directories.data):
            return asyncio.run(_supervise(system, ready_line, http_socket))


@contextlib.contextmanager
def _containers(runtime: str | None, data: Path) -> Iterator[None]:
    """None of the system's containers are there before, nor after."""
    if runtime is None:
        yield
        return
    containers.sweep(runtime, data)
    try:
        yield
    finally:
        containers.sweep(runtime, data)


async def _supervise(system: plan.Plan, ready_line: str, http_socket: socket.socket) -> bool:
    """Run the plan. From the moment it stops, connections are refused and do not wait for a gateway to come."""
    return await Supervisor(system, _say).run(
        on_ready=lambda: print(ready_line, flush=True),  # noqa: T201  # what was asked for
        on_stopping=http_socket.close,
    )


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone; the system goes on
        print(safe(line), file=sys.stderr, flush=True)  # noqa: T201  # the person at the terminal
