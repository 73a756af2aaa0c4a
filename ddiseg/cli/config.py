"""`ddiseg config`: the settings that all commands of a workspace share."""

from __future__ import annotations

from dataclasses import asdict

import click

from ddiseg.cli.common import Command, Group, Settings, common_options, pass_settings
from ddiseg.workspace.settings import SECTIONS, as_toml, find_setting


@click.group("config", cls=Group, params=common_options())
def config() -> None:
    """Show and change the settings that all commands share."""


@config.command("show", cls=Command)
@pass_settings
def show(settings: Settings) -> None:
    """Show the place of the catalogue, and the settings of study, training, engine, backups and caches.

    They stand in the sections [study], [training], [compute], [backup] and [cache] of ddiseg.toml in
    the workspace; a star marks those that are not the default. Commands take those of the first three
    as an option too, such as --control 20 or --engine ray, which replaces the setting for that one run.
    """
    workspace = settings.open()
    lines, data = [f"  catalogue = {workspace.location}"], {}
    for section in (each.read(workspace.root) for each in SECTIONS):
        values, changed = asdict(section), section.changed()
        for name, setting in section.settings().items():
            star = "*" if setting.key in changed else " "
            lines.append(f"{star} {setting.key} = {as_toml(values[name])}")
            lines.append(f"      {setting.about}")
            data[setting.key] = {"value": values[name], "default": setting.default}
    settings.emit({"catalogue": str(workspace.location), "settings": data}, "\n".join(lines))


@config.command("set", cls=Command)
@click.argument("key")
@click.argument("value")
@pass_settings
def set_value(settings: Settings, key: str, value: str) -> None:
    """Set KEY, such as study.control, to VALUE; the change is recorded as an event.

    Other lines and comments of ddiseg.toml stay as they are. A loop or a server that runs takes the
    new value when it is started again.
    """
    from ddiseg.workspace.workspace import default_actor

    setting = find_setting(key)
    new = setting.parse(value)
    old = settings.open().set(setting, new, default_actor())
    change = f"{key} = {as_toml(new)}" + (
        " (unchanged)" if old == new else f", before {as_toml(old)}"
    )
    settings.emit({"key": key, "old": old, "new": new}, change)
