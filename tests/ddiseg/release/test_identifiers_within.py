"""Identifiers that are read for some texts find in these what all of a catalogue's find."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from ddiseg.errors import WorkspaceError
from ddiseg.release.identifiers import Identifiers
from ddiseg.workspace.pseudonyms import Pseudonyms, write_table
from tests.ddiseg.release.conftest import Builder

pytestmark = pytest.mark.slow

NAMES = ["M\u00fcller_left.jpg", "IMG_000123456.png", "nevus.png", "Mueller, Hans.png", "7.png"]
PATIENTS = ["Hans M\u00fcller", "MRN-00812345", "7", None, "ward-1", "Kowalski, Jan 0"]
TEXTS = [
    "melanoma of Mueller, Hans",
    "hans muller",
    "nevus",
    "see IMG_000123456 and MRN 00812345",
    "drawn by benno.weiss, ward-1",
    "left arm of Kowalski",
    "m\u00fcller-left",
    "nothing of anybody 2026",
    "",
]


@pytest.fixture
def named(builder: Builder) -> Builder:
    for number, name in enumerate(NAMES * 3):
        patient = PATIENTS[number % len(PATIENTS)]
        lesion = ["HM-2041/7", None, "17"][number % 3]
        image = builder.image(f"{number}/{name}", patient=patient, lesion=lesion)
        mask = np.full((12, 10), number % 3, np.uint8)
        new = builder._new(
            image, mask, annotator=["anna@clinic.example", "Dr Benno Weiss"][number % 2]
        )
        builder.workspace.catalogue.masks.submit([new], reviewer="reader-2")
    return builder


def test_within__finds_what_all_find(named: Builder) -> None:
    everything = Identifiers.of(named.workspace)
    few = Identifiers.within(named.workspace, TEXTS)
    found = 0
    for text in TEXTS:
        expected, occurrences = everything.without(text)
        assert few.without(text) == (expected, occurrences)
        found += len(occurrences)
    assert found > 8
    assert len(few._long) + len(few._tokens) < len(everything._long) + len(everything._tokens)


def test_write_table__sorted_and_each_once(named: Builder) -> None:
    pseudonyms = Pseudonyms.of(named.workspace)
    path = write_table(named.workspace, pseudonyms, [("subset", "subset_1", "of Hans")])
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["kind", "pseudonym", "dataset", "original"]
    assert [(kind, dataset, name) for kind, _, dataset, name in rows] == sorted(
        (kind, dataset, name) for kind, _, dataset, name in rows
    )
    assert len({pseudonym for _, pseudonym, _, _ in rows}) == len(rows)
    kinds = {kind: sum(row[0] == kind for row in rows) for kind in {row[0] for row in rows}}
    assert kinds == {"image": 15, "patient": 5, "lesion": 2, "person": 3, "subset": 1}


def test_write_table__two_with_one_pseudonym(
    named: Builder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pseudonyms = Pseudonyms.of(named.workspace)
    monkeypatch.setattr(Pseudonyms, "patient", lambda *_: "patient_0")
    with pytest.raises(WorkspaceError, match="have the same pseudonym patient_0"):
        write_table(named.workspace, pseudonyms)
