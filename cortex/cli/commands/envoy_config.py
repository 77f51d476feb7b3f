"""`cortex envoy-config`."""

import json
import subprocess
from pathlib import Path
from typing import Any

import click
import yaml

from cortex.cli.app import Command
from cortex.exceptions import CortexException


@click.command("envoy-config", cls=Command)
@click.option(
    "--settings",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="YAML with these and all other settings (docs/edge.md). Options win over it.",
)
@click.option(
    "--listen", metavar="HOST:PORT", help="Where clients connect, over HTTP and gRPC.  [default: 127.0.0.1:8443]"
)
@click.option("--tls-cert", metavar="FILE", help="PEM: the certificate and its chain.")
@click.option("--tls-key", metavar="FILE", help="PEM: the private key.")
@click.option(
    "--plaintext", is_flag=True, help="No TLS, though other machines connect: something in front has ended it."
)
@click.option("--jwt-issuer", metavar="ISSUER", help="Serve those who carry a token of this issuer ...")
@click.option("--jwt-audience", metavar="NAME", multiple=True, help="... that is meant for this. May be repeated.")
@click.option("--jwt-jwks", metavar="FILE|URL", help="The issuer's keys: a file, or an https URL.")
@click.option("--open", "open_", is_flag=True, help="Instead: serve everyone who reaches the edge.")
@click.option(
    "--gateway",
    metavar="HOST:PORT",
    multiple=True,
    help="May be repeated; a name may have many addresses.  [default: 127.0.0.1:8888]",
)
@click.option(
    "--scheduler",
    metavar="HOST:PORT",
    multiple=True,
    help="The same; calls go to the one that leads.  [default: 127.0.0.1:8889]",
)
@click.option(
    "--in-cluster", metavar="HOST:PORT", help="A port without tokens, for containers that submit to /batch/<api>."
)
@click.option(
    "--rate-limit", type=int, metavar="N", help="Requests a second from one address, and twice as many at once."
)
@click.option("--otlp", metavar="HOST:PORT", help="The collector (OTLP over gRPC) that traces go to.")
def command(settings: Path | None, **options: Any) -> None:
    """Print the configuration of an Envoy in front of gateway and scheduler.

    Closed unless you say otherwise: give --jwt-issuer, --jwt-audience and --jwt-jwks, or --open.

    \b
    cortex envoy-config --open > envoy.yaml
    envoy -c envoy.yaml
    """
    from cortex.up.plan import check_installed, service

    check_installed()
    document = _overlaid(_read(settings) if settings else {}, options)
    made = subprocess.run(
        service("gateway.envoy"), input=json.dumps(document), stdout=subprocess.PIPE, text=True, check=False
    )
    click.echo(made.stdout, nl=False)
    click.get_current_context().exit(made.returncode)


def _read(file: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CortexException("client.bad_settings", f"{file} is not YAML: {error}") from error
    if not isinstance(document or {}, dict):
        raise CortexException(
            "client.bad_settings", f"{file} holds no settings: they are a mapping, such as `open: true`"
        )
    return document or {}


def _overlaid(document: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The document with what the command line says."""
    for option, path in _SETTINGS.items():
        value = options[option]
        if value is None or value is False or value == ():
            continue
        *parents, last = path.split(".")
        place = document
        for parent in parents:
            inner = place.get(parent)
            place[parent] = place = inner if isinstance(inner, dict) else {}
        place[last] = value
    return document


_SETTINGS = {
    "listen": "listen",
    "tls_cert": "tls.certificate",
    "tls_key": "tls.key",
    "plaintext": "plaintext",
    "jwt_issuer": "jwt.issuer",
    "jwt_audience": "jwt.audiences",
    "jwt_jwks": "jwt.jwks",
    "open_": "open",
    "gateway": "gateway",
    "scheduler": "scheduler",
    "in_cluster": "in_cluster.listen",
    "rate_limit": "rate_limit.per_second",
    "otlp": "otlp",
}
"""Option -> where the settings have it."""
