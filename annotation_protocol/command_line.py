"""What the command lines `ddiseg` and `fedd` share: their help by section, and lazy imports."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

#: Commands by section and by name: where each is ("module:attribute"), and its short help.
Sections = Mapping[str, Mapping[str, tuple[str, str]]]


class LazyCommands(UserDict[str, click.Command]):
    """Commands by name; the module of a command is imported when the command is asked for."""

    data: dict[str, Any]  #: commands, and the places of those that were not asked for yet

    def __init__(self, places: Mapping[str, str]) -> None:
        self.data = dict(places)

    def __getitem__(self, name: str) -> click.Command:
        found = self.data[name]
        if isinstance(found, str):
            module, attribute = found.split(":")
            found = self.data[name] = getattr(import_module(module), attribute)
        command: click.Command = found
        return command


class SectionedGroup(click.Group):
    """A group whose help lists commands by section, the most used first, and imports none of them."""

    def __init__(self, *, sections: Sections, **kwargs: Any) -> None:
        self.sections = sections
        self.listed = {name: text for part in sections.values() for name, (_, text) in part.items()}
        places = {name: place for part in sections.values() for name, (place, _) in part.items()}
        super().__init__(commands=LazyCommands(places), **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.listed)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        widest = max(map(len, self.listed))
        for heading, part in self.sections.items():
            with formatter.section(heading):
                # Names of one length align the texts of all sections.
                formatter.write_dl([(name.ljust(widest), self.listed[name]) for name in part])
