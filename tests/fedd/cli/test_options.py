from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import click
import pytest

from fedd.cli.main import cli


def _options(command: click.Command) -> Iterator[click.Option]:
    if isinstance(command, click.Group):
        for each in command.commands.values():
            yield from _options(each)
    yield from (p for p in command.params if isinstance(p, click.Option))


@pytest.mark.parametrize("name", ["--backbone", "--precision"])
def test_options__the_same_in_every_command(name: str) -> None:
    found = [option for option in _options(cli) if name in option.opts]
    assert len(found) > 1
    assert len({(o.default, o.help, o.type.name) for o in found}) == 1


def test_options__device_and_seed_have_one_wording_a_meaning() -> None:
    helps = defaultdict(set)
    for option in _options(cli):
        for name in {"--device", "--seed"} & set(option.opts):
            helps[name].add((option.help or "").partition(" of ")[0])
    assert helps["--seed"] == {"Seed"}
    assert len(helps["--device"]) == 2, "one device, or all there are"
