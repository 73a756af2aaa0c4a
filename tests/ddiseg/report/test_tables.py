"""The tables of people's work: no number without its n and interval."""

from __future__ import annotations

from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import Arm
from ddiseg.evaluation.annotator_study import summarise, work_report
from ddiseg.report.findings import sentences
from ddiseg.report.tables import ReportTable, study_tables
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.evaluation.mask_rows import mask
from tests.ddiseg.people import People, lesion


@pytest.fixture
def people(workspace: Workspace) -> People:
    return People(workspace)


def tables_of(people: People) -> list[ReportTable]:
    return study_tables(work_report(people.workspace))


def row(table: ReportTable, group: str, label: str) -> dict[str, str]:
    """The cells of a row by column."""
    [found] = [r for name, rows in table.groups for r in rows if (name, r.label) == (group, label)]
    return dict(zip(table.columns, found.cells, strict=True))


def two_arms(people: People) -> None:
    """Shown their predictions: six of one patient, one of them not timed, and ten; ten not."""
    for seconds in (30, 30, 30, 30, 30, None):
        people.accept(lesion(6), lesion(2), seconds=seconds, tone="V-VI", patient="several")
    for _ in range(10):
        people.accept(lesion(2), lesion(2), seconds=30, tone="V-VI")
        people.accept(lesion(9), lesion(1), seconds=90, tone="V-VI", arm=Arm.CONTROL)


@pytest.mark.slow
def test_tables__every_row_has_its_numbers(people: People, wording: SnapshotAssertion) -> None:
    two_arms(people)
    agreement, seconds, arms = tables_of(people)
    shown = row(agreement, "", "all")
    assert (shown["images"], shown["patients"]) == ("16", "11")
    assert shown["lesion Dice"].startswith("0.81 [0.")
    assert shown["unchanged, %"].startswith("62 [")
    assert shown["pixels changed, %"].startswith("3.1 [")
    assert row(agreement, "tone", "V-VI") == row(agreement, "model version", "fedd-1") == shown
    timed = row(seconds, "", "all")
    assert timed["median, s"] == wording
    assert timed["not timed"] == "1"
    control = row(arms, "all tones", "control")
    assert (control["median, s"], control["lesion Dice"]) == ("90 [90, 90]", "0.20 [0.20, 0.20]")
    difference = row(arms, "tone V-VI", "difference")
    assert (difference["images"], difference["patients"]) == ("16 and 10", "11 and 10")
    assert difference["median, s"] == "-60 [-60, -60]"
    assert difference["lesion Dice"].startswith("+0.61 [+0.")


@pytest.mark.slow
def test_tables__say_what_their_rows_are(people: People) -> None:
    two_arms(people)
    people.accept(lesion(2), tone="V-VI")
    arms = tables_of(people)[-1]
    labels = [r.label for _, rows in arms.groups[:1] for r in rows]
    assert labels == ["shown", "control", "bare", "difference"]
    for label in labels:
        assert any(note.startswith(f"{label}: ") for note in arms.notes)


@pytest.mark.slow
def test_tables__too_few_is_said_and_marked(people: People) -> None:
    for _ in range(4):
        people.accept(lesion(2), lesion(2))
    agreement, _, arms = tables_of(people)
    cells = row(agreement, "", "all")
    assert list(cells.values()) == [
        "4",
        "4",
        "1.00 (too few: 4 patients)",
        "1.00 (too few: 4 patients)",
        "100 (too few: 4 patients)",
        "0.0 (too few: 4 patients)",
    ]
    assert all(r.few for _, rows in (*agreement.groups, *arms.groups) for r in rows)
    assert [r.label for r in arms.groups[0][1]] == ["shown"]


@pytest.mark.slow
def test_tables__one_patient_is_too_few(people: People) -> None:
    for _ in range(6):
        people.accept(lesion(2), lesion(2), patient="the same")
    agreement = tables_of(people)[0]
    assert row(agreement, "", "all")["lesion Dice"] == "1.00 (too few: 1 patient)"
    assert all(r.few for _, rows in agreement.groups for r in rows)


@pytest.mark.slow
def test_tables__no_prediction_at_all_leaves_the_time_without_it(people: People) -> None:
    for _ in range(5):
        people.accept(lesion(2), seconds=70)
    [arms] = tables_of(people)
    bare = row(arms, "all tones", "bare")
    assert (bare["images"], bare["median, s"], bare["lesion Dice"]) == (
        "5",
        "70 (too few: 5 patients)",
        "—",
    )


@pytest.mark.slow
def test_tables__over_time(wording: SnapshotAssertion) -> None:
    rows = [mask(k, unchanged=k >= 20, readers=0.9 if k < 6 else None) for k in range(40)]
    rows += [mask(100 + k, arm=Arm.CONTROL) for k in range(6)]
    rows += [mask(200 + k, tone="V-VI") for k in range(3)]
    time = study_tables(summarise(rows))[-1]
    assert time.title == wording
    assert [name for name, _ in time.groups] == ["all tones", "tone I-II"], "too few of V-VI"
    first = row(time, "tone I-II", "no. 1 to 10")
    assert (first["accepted"], first["images"], first["patients"]) == ("2026-01-05", "10", "10")
    assert first["unchanged, %"] == "0 [0, 34]"
    assert first["readers' lesion Dice"] == wording
    change = row(time, "tone I-II", "later minus earlier")
    assert (change["images"], change["patients"]) == ("20 and 20", "20 and 20")
    assert change["unchanged, %"].startswith("+100 [+7")
    assert change["readers' lesion Dice"] == "—"
    control = row(time, "tone I-II", "control, later half")
    assert control["lesion Dice"] == "0.80 (too few: 6 patients)"
    withheld = row(time, "tone I-II", "control, later minus earlier")
    assert (withheld["images"], withheld["lesion Dice"]) == ("0 and 6", "—")


def test_tables__all_left_out_are_none(people: People) -> None:
    image_id = people.accept(lesion(2), lesion(2))
    content = people.catalogue.masks.accepted()[image_id].content_hash
    Path(people.workspace.store.path(Kind.MASK, content)).unlink()
    report = work_report(people.workspace)
    [line] = sentences(report)
    assert line.startswith("Left out: drawn-1.png: ")
    assert study_tables(report) == []
