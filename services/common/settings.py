"""Reading a service's settings from its environment, once, at its start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.common.errors import CortexError


class SettingsError(CortexError):
    """A setting is missing or makes no sense. The message names the variable, its value and what is expected."""

    def __init__(self, message: str) -> None:
        super().__init__("settings.invalid", message)


@dataclass(frozen=True)
class Environment:
    """Typed access to environment variables; `""` counts as not set."""

    variables: Mapping[str, str]

    def text(self, name: str, default: str | None = None) -> str:
        """The variable, or the default; an error when there is neither."""
        value = self.variables.get(name) or default
        if value is None:
            raise SettingsError(f"the environment variable {name} is not set")
        return value

    def optional(self, name: str) -> str | None:
        """The variable, or None."""
        return self.variables.get(name) or None

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """One of several words; the first when the variable is not set."""
        value = self.variables.get(name) or choices[0]
        if value not in choices:
            raise SettingsError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
        return value

    def integer(self, name: str, default: int) -> int:
        """A whole number, at least 0."""
        value = self.variables.get(name)
        if not value:
            return default
        if not value.isascii() or not value.isdigit():
            raise SettingsError(f"{name} must be a whole number, not {value!r}")
        return int(value)

    def seconds(self, name: str, default: float) -> float:
        """A number of seconds, at least 0."""
        value = self.variables.get(name)
        if not value:
            return default
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < float("inf"):
            raise SettingsError(f"{name} must be a number of seconds, not {value!r}")
        return seconds

    def flag(self, name: str) -> bool:
        """True for `true` or `1`, false for `false`, `0` or nothing."""
        value = self.variables.get(name, "").lower()
        if value not in ("", "0", "1", "true", "false"):
            raise SettingsError(f"{name} must be true or false, not {value!r}")
        return value in ("1", "true")
