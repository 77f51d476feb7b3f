"""One module a command; `command` in each is what `cortex.cli.app` loads."""
