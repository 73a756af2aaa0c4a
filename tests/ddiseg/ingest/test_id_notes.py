"""What an import says of ids that group images, and of the sets that a correction breaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import Split
from ddiseg.catalogue.identifiers import normalise_id
from ddiseg.ingest.metadata import Key, parse_columns, read_metadata
from ddiseg.ingest.photographs import PhotographImport, import_photographs
from ddiseg.outcomes import Outcome
from ddiseg.sampling.subsets import SubsetRequest, draw
from ddiseg.workspace.workspace import Workspace

pytestmark = pytest.mark.both_databases

Folder = Callable[..., Path]
Import = Callable[..., PhotographImport]

COLUMNS = "image=file,patient=patient,lesion=lesion"


@pytest.fixture
def imported(workspace: Workspace, folder: Folder, tmp_path: Path) -> Import:
    """imported({"a.png": ("patient", "lesion")}, dataset="clinic"): an import of these photographs."""

    def run(ids: Mapping[str, tuple[str, str]], dataset: str = "clinic") -> PhotographImport:
        root = folder(*ids, name=dataset, first_seed=sum(map(ord, dataset)))
        table = tmp_path / f"{dataset}.csv"
        lines = [",".join((name, *of)) for name, of in ids.items()]
        table.write_text("\n".join(["file,patient,lesion", *lines]), "utf-8")
        return import_photographs(
            workspace, root, metadata=table, columns=parse_columns(COLUMNS), dataset=dataset
        )

    return run


def _ids(*patients: str, lesion: str = "") -> dict[str, tuple[str, str]]:
    return {f"{n}.png": (patient, lesion) for n, patient in enumerate(patients)}


def test_import__placeholders_are_unknown_and_counted(
    workspace: Workspace, imported: Import, wording: SnapshotAssertion
) -> None:
    done = imported({**_ids("-", "-", "?", "#N/A", "17.0", ""), "last.png": ("tbd", "unknown")})
    assert done.notes == wording
    patients = [image.patient for image in workspace.catalogue.images.select()]
    assert patients == [None, None, None, None, "17", None, None]


def test_import__spellings_are_one(workspace: Workspace, imported: Import) -> None:
    imported(_ids("Jos\u00e9", "Jose\u0301", "17", "17.0", "Anna Maria", " Anna  Maria "))
    patients = [image.patient for image in workspace.catalogue.images.select()]
    assert patients == ["Jos\u00e9"] * 2 + ["17"] * 2 + ["Anna Maria"] * 2


def test_import__ids_that_may_be_one_are_listed(
    imported: Import, wording: SnapshotAssertion
) -> None:
    assert imported(_ids("Anna", "anna ", "007", "7", "x", "y")).notes == wording


def test_import__ids_that_may_mean_unknown_or_were_shortened(
    imported: Import, wording: SnapshotAssertion
) -> None:
    assert imported(_ids("0", "0", "999", "1.23E+11", "1.23E+11")).notes == wording


def test_import__lesions_of_several_patients(imported: Import, wording: SnapshotAssertion) -> None:
    assert imported(_ids("a", "b", "c", lesion="1")).notes == wording


def test_import__patients_of_another_dataset_are_others(
    workspace: Workspace, imported: Import, wording: SnapshotAssertion
) -> None:
    imported(_ids("1", "2", "3"))
    assert imported(_ids("1", "2", "4"), dataset="archive").notes == wording
    workspace.catalogue.grouping.share_patients("archive", "clinic", "tester")
    more = {**_ids("1", "2", "4"), "new.png": ("1", "")}
    assert imported(more, dataset="archive").notes == []


def test_import__notes_only_ids_of_its_images(workspace: Workspace, imported: Import) -> None:
    imported(_ids("Anna", "anna", "999", "999", "b", "c", lesion="1"))
    imported({"new.png": ("", "")}, dataset="archive")
    workspace.catalogue.grouping.share_patients("archive", "clinic", "tester")
    more = {"new.png": ("", ""), "newer.png": ("d", "2")}
    done = imported(more, dataset="archive")
    assert done.outcomes[-1].outcome is Outcome.ADDED
    assert done.notes == []
    (note,) = imported({**more, "newest.png": ("ANNA", "")}, dataset="archive").notes
    assert note.startswith(
        "patient ids that differ only in case, width or leading zeros: 'ANNA' and"
    )


def test_import__again_says_nothing_more(imported: Import) -> None:
    imported(_ids("Anna", "anna"))
    assert imported(_ids("Anna", "anna")).notes == []


def test_import__a_placeholder_clears_an_id_and_a_blank_keeps_it(
    workspace: Workspace, imported: Import
) -> None:
    imported(_ids("0", "7"))
    done = imported(_ids("unknown", ""))
    outcomes = {o.name: (o.outcome, o.note) for o in done.outcomes}
    assert outcomes["0.png"] == (Outcome.REPAIRED, "corrected patient 0 -> nothing")
    assert outcomes["1.png"][0] is Outcome.UNCHANGED
    assert [i.patient for i in workspace.catalogue.images.select()] == [None, "7"]


def test_import__ids_of_an_older_program_are_respelled(
    workspace: Workspace, imported: Import
) -> None:
    imported(_ids("17"))
    image = workspace.catalogue.images.select()[0]
    with workspace.catalogue._database.write() as session:
        session.merge(image).patient = "17.0"
    (outcome,) = imported(_ids("17.0")).outcomes
    assert outcome.note == "corrected patient 17.0 -> 17"


def test_import__names_all_that_a_correction_breaks(
    workspace: Workspace, imported: Import, wording: SnapshotAssertion
) -> None:
    catalogue = workspace.catalogue
    imported(_ids(*[""] * 12))
    images = catalogue.images.select()
    for name in ("tr", "te"):
        draw(catalogue, name, SubsetRequest((3,), tones=("unknown",)), "tester")
    drawn = [sorted(catalogue.subsets.members(name)) for name in ("tr", "te")]
    split = dict.fromkeys(drawn[0], Split.TRAINING) | dict.fromkeys(drawn[1], Split.HOLDOUT)
    catalogue.splits.decide(split)
    shared = {catalogue.images.find(f"#{of[0]}").name: ("p", "") for of in drawn}
    done = imported({image.name: ("", "") for image in images} | shared)
    assert done.leaks == wording
    assert len(done.leaks) == 2
    again = imported({image.name: ("", "") for image in images} | shared)
    assert again.leaks == [], "each correction names what it broke"
    apart = {name: (f"p{n}", "") for n, name in enumerate(shared)}
    assert imported({image.name: ("", "") for image in images} | apart).leaks == []


_CELL = st.text(st.characters(codec="utf-8", exclude_characters='\x00\r\n"'), max_size=12)


@pytest.mark.property
@given(cells=st.lists(st.tuples(_CELL, _CELL), min_size=1, max_size=8))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_metadata__any_id_is_one_spelling_unknown_or_refused(
    tmp_path: Path, cells: list[tuple[str, str]]
) -> None:
    table = tmp_path / "ids.csv"
    rows = [f'{n}.png,"{patient}","{lesion}"' for n, (patient, lesion) in enumerate(cells)]
    table.write_text("\n".join(["file,patient,lesion", *rows]) + "\n", "utf-8")
    metadata = read_metadata(table, parse_columns(COLUMNS))
    assert len(metadata.rows) == len(cells)
    for row, texts in zip(metadata.rows, cells, strict=True):
        found: dict[Key, Any] = {Key.PATIENT: row.details.patient, Key.LESION: row.details.lesion}
        for (key, value), text in zip(found.items(), texts, strict=True):
            assert row.fault or (value or None) == normalise_id(text), key
