"""Commands with many options: `--help` shows them in sections."""

from collections.abc import Callable
from functools import partial
from typing import Any

import click
from click.types import OptionHelpExtra

from cortex.cli.app import Command, Decorator

OTHERS = "Options"
"""The section of options that name none."""


class SectionOption(click.Option):
    """An option that stands in a section of its own in `--help`."""

    def __init__(self, *arguments: Any, section: str, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.section = section

    def get_help_extra(self, ctx: click.Context) -> OptionHelpExtra:
        """Without the ranges of numbers: all begin where everybody expects it."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra


class SectionCommand(Command):
    """A command that shows its options in their sections, which stand in the order of their first options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The sections."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)):
                section = parameter.section if isinstance(parameter, SectionOption) else OTHERS
                sections.setdefault(section, []).append(record)
        width = max(len(name) for records in sections.values() for name, _ in records)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in records])  # all in one column


def section(name: str) -> Callable[..., Decorator]:
    """What makes the options of one section, used like `click.option`."""
    return partial(click.option, cls=SectionOption, section=name)
