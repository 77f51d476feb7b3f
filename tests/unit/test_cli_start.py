"""The base install: client and command line need none of the services' dependencies and load late what they need."""

import json
import subprocess
import sys

import pytest

from cortex.cli.app import COMMANDS, cortex

LOADED = "import json, sys; {code}; print(json.dumps(sorted(sys.modules)))"
SERVICES = {"services", "grpc", "msgspec", "uvloop", "starlette", "uvicorn", "opentelemetry", "google", "psutil", "jwt"}


def loaded_by(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", LOADED.format(code=code)], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_import_cortex_loads_nothing_beside_the_standard_library() -> None:
    assert not loaded_by("import cortex; cortex.client") & (SERVICES | {"click", "rich", "urllib3", "yaml"})


def test_the_help_is_shown_with_click_alone() -> None:
    code = "from cortex.cli.app import cortex; cortex(['--help'], standalone_mode=False)"
    assert not loaded_by(code) & (SERVICES | {"rich", "urllib3", "yaml", "asyncio"})


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "up"])
def test_no_command_needs_the_services(name: str) -> None:
    module = name.replace("-", "_")
    code = f"import cortex._client, cortex.cli.views.waterfall, cortex.cli.views.watching, cortex.cli.commands.{module}"
    assert not loaded_by(code) & SERVICES


def test_up_needs_no_service_itself() -> None:
    assert not loaded_by("import cortex.up.system") & (SERVICES | {"rich", "urllib3"})


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_their_own_help_says(name: str) -> None:
    command = cortex.get_command(None, name)  # type: ignore[arg-type]  # it needs no context
    assert command is not None
    assert (command.help or "").split("\n\n")[0].replace("\n", " ") == COMMANDS[name]
