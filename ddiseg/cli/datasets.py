"""`ddiseg datasets`: the datasets that photographs belong to, and the facts about them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from ddiseg.cli.common import Command, Group, Settings, common_options, pass_settings
from ddiseg.outcomes import counted

if TYPE_CHECKING:
    from ddiseg.catalogue.tables import Dataset


@click.group("datasets", cls=Group, params=common_options())
def datasets() -> None:
    """List datasets, and correct their licence and source."""


@datasets.command("list", cls=Command)
@pass_settings
def list_datasets(settings: Settings) -> None:
    """List the datasets with their images, licence and source."""
    images = settings.open().catalogue.images
    sizes = Counter(image.dataset_id for image in images.select())
    rows = [_as_dict(each) | {"n": sizes[each.id]} for each in images.datasets()]
    lines = [f"{row['name']}: {counted(row['n'], 'image')}, {_facts(row)}" for row in rows]
    settings.emit({"datasets": rows}, "\n".join(lines) or "no datasets yet: 'ddiseg import'")


@datasets.command("set", cls=Command)
@click.argument("name")
@click.option("--licence", metavar="TEXT", help="Licence of the dataset; exports carry it.")
@click.option("--source", metavar="TEXT", help="URL or citation of the dataset.")
@click.option(
    "--synthetic/--not-synthetic",
    default=None,
    help="Whether code made all of its images, which show no person; the report says so.",
)
@pass_settings
def set_facts(
    settings: Settings, name: str, licence: str | None, source: str | None, synthetic: bool | None
) -> None:
    """Correct the facts about the dataset NAME; each change is recorded as an event.

    Releases that were written before keep what they say.
    """
    from ddiseg.workspace.workspace import default_actor

    facts = {"licence": licence, "source": source, "synthetic": synthetic}
    given = {key: value for key, value in facts.items() if value is not None}
    if not given:
        raise click.UsageError("Give --licence, --source or --synthetic.")
    images = settings.open().catalogue.images
    changed = images.correct_dataset(name, given, default_actor())
    row = images.find_dataset(name)
    assert row is not None
    data = _as_dict(row)
    outcome = ", ".join(changed) + " changed" if changed else "unchanged"
    settings.emit(data | {"changed": changed}, f"{name}: {outcome}; {_facts(data)}")


def _as_dict(row: Dataset) -> dict[str, Any]:
    return {key: getattr(row, key) for key in ("name", "licence", "source", "synthetic")}


def _facts(row: dict[str, Any]) -> str:
    facts = (row["licence"] or "licence not recorded", row["source"] or "source not recorded")
    return ", ".join([*facts, *(["synthetic"] if row["synthetic"] else [])])
