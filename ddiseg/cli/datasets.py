"""`ddiseg datasets`: the datasets that photographs belong to, and the facts about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ddiseg.cli.common import Command, Group, Settings, common_options, pass_settings
from ddiseg.outcomes import counted

if TYPE_CHECKING:
    from ddiseg.catalogue.linking import IdScope
    from ddiseg.catalogue.tables import Dataset


@click.group("datasets", cls=Group, params=common_options())
def datasets() -> None:
    """List datasets, and correct their licence and source."""


@datasets.command("list", cls=Command)
@pass_settings
def list_datasets(settings: Settings) -> None:
    """List the datasets with their images, licence, source and what their ids are unique within."""
    catalogue = settings.open().catalogue
    sizes = Counter(row.dataset_id for row in catalogue.grouping.rows())
    scopes = catalogue.grouping.scopes()
    rows = [_as_dict(d, scopes) | {"n": sizes[d.id]} for d in catalogue.images.datasets()]
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
@click.option(
    "--same-patients-as",
    "same_patients",
    metavar="OTHER",
    help="The dataset OTHER has the same patients, so that equal ids are one person. NAME itself: it "
    "has patients of its own again, which is the default.",
)
@click.option(
    "--lesion-ids",
    type=click.Choice(["dataset", "patient"]),
    help="Whether a lesion id is one lesion in the whole dataset (the default), or lesions are numbered "
    "anew for each patient.",
)
@pass_settings
def set_facts(
    settings: Settings,
    /,
    name: str,
    same_patients: str | None,
    lesion_ids: str | None,
    **given: Any,
) -> None:
    """Correct the facts about the dataset NAME; each change is recorded as an event.

    Releases that were written before keep what they say. Patients and lesions decide which images
    belong together: where a change joins a hold-out set, subset or validation split with images that
    it must be apart from, each is named.
    """
    from ddiseg.sampling.leaks import find_leaks, new_leaks
    from ddiseg.workspace.workspace import default_actor

    facts = {key: value for key, value in given.items() if value is not None}
    if lesion_ids is not None:
        facts["lesions_per_patient"] = lesion_ids == "patient"
    if not facts and same_patients is None:
        raise click.UsageError(
            "Give --licence, --source, --synthetic, --same-patients-as or --lesion-ids."
        )
    catalogue = settings.open().catalogue
    before = find_leaks(catalogue)
    changed = []
    if same_patients is not None and catalogue.grouping.share_patients(
        name, same_patients, default_actor()
    ):
        changed.append("patients")
    changed += catalogue.images.correct_dataset(name, facts, default_actor())
    leaks = [leak.line for leak in new_leaks(before, find_leaks(catalogue))]
    row = catalogue.images.find_dataset(name)
    assert row is not None
    data = _as_dict(row, catalogue.grouping.scopes())
    named = ["lesion ids" if key == "lesions_per_patient" else key for key in changed]
    outcome = ", ".join(named) + " changed" if named else "unchanged"
    lines = [f"{name}: {outcome}; {_facts(data)}", *(f"LEAK: {line}" for line in leaks)]
    settings.emit(data | {"changed": changed, "leaks": leaks}, "\n".join(lines))


def _as_dict(row: Dataset, scopes: Mapping[int, IdScope]) -> dict[str, Any]:
    facts = {key: getattr(row, key) for key in ("name", "licence", "source", "synthetic")}
    return facts | {
        "patient_scope": scopes[row.id].patients,
        "lesion_ids": "patient" if row.lesions_per_patient else "dataset",
    }


def _facts(row: dict[str, Any]) -> str:
    facts = [row["licence"] or "licence not recorded", row["source"] or "source not recorded"]
    facts += ["synthetic"] if row["synthetic"] else []
    facts += (
        [f"patients shared as '{row['patient_scope']}'"]
        if row["patient_scope"] != row["name"]
        else []
    )
    facts += ["lesions numbered for each patient"] if row["lesion_ids"] == "patient" else []
    return ", ".join(facts)
