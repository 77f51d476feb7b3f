"""`cortex up`."""

from pathlib import Path

import click

from cortex.cli.app import INTERRUPTED, Command

PORT = click.IntRange(0, 65535)


@click.command("up", cls=Command)
@click.option("--host", metavar="HOST", default="127.0.0.1", show_default=True, help="The address to serve.")
@click.option("--port", type=PORT, metavar="PORT", default=8888, show_default=True, help="HTTP; 0 picks a free one.")
@click.option(
    "--grpc-port", type=PORT, metavar="PORT", default=8889, show_default=True, help="gRPC; 0 picks a free one."
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default=Path("cortex-data"),
    show_default=True,
    help="Where jobs, results, logs and traces are kept.",
)
@click.option(
    "--insecure", is_flag=True, help="Serve an address that is not loopback: whoever reaches it may run programs here."
)
@click.option(
    "--input-root",
    "input_roots",
    type=click.Path(path_type=Path),
    metavar="DIR",
    multiple=True,
    help="Jobs may read the files below, as file:///PATH, and write results there. May be repeated.",
)
@click.option(
    "--ledger",
    metavar="URL",
    help="Keep jobs in a PostgreSQL database, postgresql://USER@HOST/DATABASE, instead of in the data directory.",
)
@click.option(
    "--gpus",
    metavar="N|LIST",
    help="The GPUs that workers share: how many (2), or which (0,3). Without it, those that this shell may use.",
)
@click.option(
    "--runtime",
    type=click.Choice(["podman", "docker"]),
    help="Run containers from their images, with this engine (needs root). Without it their commands are processes.",
)
def command(
    host: str,
    port: int,
    grpc_port: int,
    data_dir: Path,
    insecure: bool,
    input_roots: tuple[Path, ...],
    ledger: str | None,
    gpus: str | None,
    runtime: str | None,
) -> None:
    """Run the whole system on this machine.

    It runs until Ctrl-C or SIGTERM, then lets workers finish or hand back what they hold (10 seconds at most; a second
    Ctrl-C ends it at once). Unfinished jobs go on at the next `cortex up` on the same data directory. When all is
    ready, one line on standard output says where: `cortex is ready at http://HOST:PORT (gRPC HOST:PORT)`.
    """
    from cortex.up.system import Options, run

    if not run(Options(host, port, grpc_port, data_dir, insecure, input_roots, gpus, ledger, runtime)):
        click.get_current_context().exit(INTERRUPTED)
