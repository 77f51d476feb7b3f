"""The `cortex` command.

`app` knows the commands by name and loads one when it is called, so that `cortex --help` is quick. Each command is a
module of `commands/`; it asks a deployment through `cortex.operator` and shows the answer with a module of `views/`, or
as it came where `--output json` is given.
"""

from cortex.cli.app import main

__all__ = ["main"]
