"""Which deployment to talk to: the environments in `cli.yaml`.

The file is `$CORTEX_CLI_CONFIG_DIR/cli.yaml`, else `~/.cortex/cli.yaml`:

    default_environment: local
    environments:
      - name: local
        operator_endpoint: http://127.0.0.1:8888

Files that Cortex's own CLI wrote are read too; keys that mean nothing here are kept when the file is written.
Inside a container the file is already there and points at the deployment that runs it.
"""

import contextlib
import os
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cortex.exceptions import CortexException, NotFound

CONFIG_DIRECTORY_VARIABLE = "CORTEX_CLI_CONFIG_DIR"
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Environment:
    """A deployment and the name it goes by here."""

    name: str
    operator_endpoint: str
    """Base URL of its HTTP API, without a slash at the end."""

    @classmethod
    def of(cls, name: str, endpoint: str) -> "Environment":
        """Check both. An endpoint without a scheme is HTTPS, unless it is on this machine.

        Raises `CortexException` (`client.invalid_environment`).
        """
        if not name.strip():
            raise CortexException("client.invalid_environment", "an environment's name must not be empty")
        url = endpoint.strip()
        if "://" not in url:
            host = urlsplit(f"//{url}").hostname
            url = f"{'http' if host in LOOPBACK_HOSTS else 'https'}://{url}"
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise CortexException(
                "client.invalid_environment",
                f"environment `{name}`: {endpoint!r} is not an endpoint; give a URL such as http://127.0.0.1:8888",
            )
        return cls(name, url.rstrip("/"))

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return urlsplit(self.operator_endpoint).hostname in LOOPBACK_HOSTS


LOCAL = Environment("local", "http://127.0.0.1:8888")
"""The deployment that `cortex up` runs unless told otherwise."""


@dataclass(frozen=True)
class Environments:
    """What a `cli.yaml` says."""

    path: Path
    default: str | None = None
    environments: tuple[Environment, ...] = ()
    others: dict[str, Any] = field(default_factory=dict)
    """Keys of the file that mean nothing here."""

    @property
    def default_name(self) -> str | None:
        """The environment that is meant when none is named: the default, or the only one there is."""
        if self.default is None and len(self.environments) == 1:
            return self.environments[0].name
        return self.default

    def find(self, name: str | None = None) -> Environment:
        """The environment of that name, or the default one. Raises `NotFound`."""
        wanted = name or self.default_name or LOCAL.name
        for environment in self.environments:
            if environment.name == wanted:
                return environment
        if not self.environments and wanted == LOCAL.name:
            return LOCAL
        known = ", ".join(f"`{each.name}`" for each in self.environments) or f"`{LOCAL.name}`"
        if name is None and self.default is None:
            raise NotFound(
                "client.no_default_environment",
                f"{self.path} names no default environment; choose one of {known}: `cortex env default NAME`",
            )
        raise NotFound(
            "client.environment_not_found",
            f"there is no environment `{wanted}` in {self.path} (there is: {known}); "
            f"create it with `cortex env configure {wanted} --operator-endpoint URL`",
        )

    def with_environment(self, environment: Environment) -> "Environments":
        """With this environment added, or changed. The first one becomes the default."""
        kept = tuple(each for each in self.environments if each.name != environment.name)
        return replace(self, environments=(*kept, environment), default=self.default_name or environment.name)

    def with_default(self, name: str) -> "Environments":
        """With another default. Raises `NotFound`."""
        if not self.environments and name == LOCAL.name:  # it is there without a file; now it is in the file
            return self.with_environment(LOCAL)
        return replace(self, default=self.find(name).name)

    def without(self, name: str) -> "Environments":
        """Without this environment. Raises `NotFound`."""
        if name not in (each.name for each in self.environments):
            raise NotFound("client.environment_not_found", f"there is no environment `{name}` in {self.path}")
        kept = tuple(each for each in self.environments if each.name != name)
        return replace(self, environments=kept, default=None if self.default == name else self.default)

    def as_dict(self) -> dict[str, Any]:
        """The file's form; the implied local deployment is shown where nothing is configured."""
        shown = self.environments or (LOCAL,)
        return {
            "default_environment": self.default_name or (LOCAL.name if not self.environments else None),
            "environments": [{"name": each.name, "operator_endpoint": each.operator_endpoint} for each in shown],
        }


def config_path() -> Path:
    """Where `cli.yaml` is, or would be."""
    directory = os.environ.get(CONFIG_DIRECTORY_VARIABLE)
    return (Path(directory) if directory else Path.home() / ".cortex") / "cli.yaml"


def load() -> Environments:
    """Read `cli.yaml`; no file is an empty one. Raises `CortexException` (`client.invalid_cli_config`)."""
    path = config_path()
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return Environments(path)
    except OSError as error:
        raise CortexException("client.invalid_cli_config", f"cannot read {path}: {error.strerror}") from error
    import yaml

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CortexException("client.invalid_cli_config", f"{path} is not YAML: {error}") from error
    return _parse(path, document)


def _parse(path: Path, document: object) -> Environments:
    if document is None:
        return Environments(path)
    listed = document.get("environments") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(listed, list | None):
        raise CortexException(
            "client.invalid_cli_config",
            f"{path} must be a map with a list `environments` of `name`, `operator_endpoint`",
        )
    found = []
    for index, entry in enumerate(listed or []):
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise CortexException("client.invalid_cli_config", f"{path}: environments[{index}] has no `name`")
        endpoint = entry.get("operator_endpoint")
        if isinstance(endpoint, str):  # older files hold environments without one, which nothing could reach
            found.append(Environment.of(entry["name"], endpoint))
    default = document.get("default_environment")
    others = {key: value for key, value in document.items() if key not in ("default_environment", "environments")}
    return Environments(path, default if isinstance(default, str) else None, tuple(found), others)


def save(environments: Environments) -> None:
    """Write `cli.yaml`, whole or not at all. Raises `CortexException` (`client.cli_config_not_writable`)."""
    import yaml

    path = environments.path
    document = {
        "default_environment": environments.default_name,
        "environments": [
            {"name": each.name, "operator_endpoint": each.operator_endpoint} for each in environments.environments
        ],
        **environments.others,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".cli-")
        try:
            with os.fdopen(handle, "w") as stream:
                yaml.safe_dump(document, stream, sort_keys=False, allow_unicode=True)
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise CortexException(
            "client.cli_config_not_writable",
            f"cannot write {path}: {error.strerror}; set {CONFIG_DIRECTORY_VARIABLE} to a writable directory",
        ) from error
