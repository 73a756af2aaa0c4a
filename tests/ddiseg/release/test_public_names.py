"""What a release with pseudonyms says of datasets and in texts: facts stay, names are replaced."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddiseg.cli.export import export as export_command
from ddiseg.release.audit import Audit, audit_privacy
from ddiseg.release.folder import write_release
from ddiseg.release.identifiers import Identifiers
from ddiseg.release.release import Release
from ddiseg.workspace.pseudonym_key import TABLE_FILE
from tests.ddiseg.release.conftest import Builder, Cli

pytestmark = pytest.mark.slow

Row = dict[str, Any]


def _add(builder: Builder, name: str, person: str = "reader-1", **details: Any) -> None:
    mask = np.full((12, 10), 4, np.uint8)
    new = builder._new(builder.image(name, **details), mask, annotator=person)
    builder.workspace.catalogue.masks.submit([new], reviewer="reader-2")


def _release(builder: Builder, to: Path, format_name: str = "png") -> tuple[Path, Audit]:
    written = write_release(Release.gather(builder.workspace), format_name, to)
    return written.folder, audit_privacy(Identifiers.of(builder.workspace), written.folder)


def _diagnoses(folder: Path) -> dict[str, str]:
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return {row["image_id"]: row["diagnosis"] for row in csv.DictReader(file)}


@pytest.mark.parametrize("format_name", ["png", "coco", "sddi"])
def test_licence_and_source__hold_the_name_of_an_annotator(
    builder: Builder, tmp_path: Path, format_name: str
) -> None:
    licence, source = "CC BY 4.0, FEDD authors", "Kowalski et al., https://example.org/a%20b"
    _add(builder, "1.png", person="FEDD authors", patient="Kowalski, Jan 0")
    builder.workspace.catalogue.images.dataset("derm", licence, source, synthetic=False)
    folder, found = _release(builder, tmp_path / "r", format_name)
    text = (folder / "LICENCE.txt").read_text("utf-8")
    assert f"  licence: {licence}\n  source:  {source}\n" in text
    assert found.hits == []
    assert {hit.value for hit in found.public} == {"fedd authors", "kowalski"}
    (folder / "notes.txt").write_text(f"{licence} drew it")
    again = audit_privacy(Identifiers.of(builder.workspace), folder)
    assert [(hit.file, hit.value) for hit in again.hits] == [("notes.txt", "fedd authors")]


@pytest.mark.parametrize(
    ("name", "diagnosis"),
    [
        ("melanoma.jpg", "melanoma"),
        ("BCC.jpg", "BCC"),
        ("nevus_1.jpg", "nevus 1"),
        ("arm.jpg", "papule on arm"),
        ("lupus_erythematosus.png", "Lupus erythematosus"),
    ],
)
def test_diagnosis__like_a_file_stem_is_kept(
    builder: Builder, tmp_path: Path, name: str, diagnosis: str
) -> None:
    _add(builder, name, diagnosis=diagnosis, patient="P-100234")
    folder, found = _release(builder, tmp_path / "r")
    assert _diagnoses(folder) == {"1": diagnosis}
    assert found.hits == []


@pytest.mark.parametrize(
    ("patient", "diagnosis", "public"),
    [
        ("Kowalski, Jan 0", "NEV (Pat. Kowalski)", "NEV (Pat. [removed])"),
        ("Hans Müller", "naevus of Mueller", "naevus of [removed]"),
        ("Hans Müller", "MULLER HANS", ""),
        ("48213777", "BCC 48213777, arm", "BCC [removed], arm"),
        ("MEL", "MEL", "MEL"),
        ("melanoma-017", "melanoma in situ", "melanoma in situ"),
    ],
)
def test_diagnosis__only_the_name_is_replaced(
    builder: Builder, tmp_path: Path, patient: str, diagnosis: str, public: str
) -> None:
    _add(builder, "1.png", patient=patient, diagnosis=diagnosis)
    folder, found = _release(builder, tmp_path / "r")
    assert _diagnoses(folder) == {"1": public}
    assert found.hits == []


def test_diagnosis__long_file_name_is_replaced(builder: Builder, tmp_path: Path) -> None:
    _add(builder, "Mueller_Hans_left_arm.png", diagnosis="see Mueller Hans, left arm")
    folder, _ = _release(builder, tmp_path / "r")
    assert _diagnoses(folder) == {"1": "see [removed]"}


def test_export__says_what_was_replaced(builder: Builder, tmp_path: Path, cli: Cli) -> None:
    catalogue = builder.workspace.catalogue
    catalogue.images.dataset("Praxis Kowalski", None, None, synthetic=False)
    _add(builder, "1.png", patient="Kowalski, Jan 0", diagnosis="NEV (Pat. Kowalski)")
    catalogue.subsets.store({"for Kowalski": [1]}, {}, "tester")
    root, to = builder.workspace.root, tmp_path / "r"
    given = ("--workspace", root, "export", "--format", "png", "--to", to)
    for _ in range(2):  # the second run finds it unchanged, and says the same
        status, out, _ = cli([export_command], *given)
        assert status == 0
        assert "diagnosis: patient 'kowalski' removed" in out
        assert "dataset 'Praxis Kowalski' is called dataset_1" in out
    with (root / TABLE_FILE).open(encoding="utf-8", newline="") as file:
        rows = {(row["kind"], row["pseudonym"]): row["original"] for row in csv.DictReader(file)}
    assert rows["dataset", "dataset_1"] == "Praxis Kowalski"
    assert rows["subset", "subset_1"] == "for Kowalski"
    everything = b"".join(p.read_bytes() for p in to.rglob("*") if p.is_file())
    assert b"owalski" not in everything


@pytest.mark.parametrize("format_name", ["png", "coco", "sddi"])
def test_audit__our_own_words_are_no_hits(
    builder: Builder, tmp_path: Path, format_name: str
) -> None:
    """People called after our columns, a patient called after a file ending, small ids everywhere."""
    people = ("annotator", "reviewer", "person", "Annotator 1")
    for number, (person, patient) in enumerate(
        zip(people, ("png", "img", "3", "mask"), strict=True)
    ):
        _add(builder, f"{number}.png", person, patient=patient, lesion=str(number))
    _, found = _release(builder, tmp_path / "r", format_name)
    assert found.hits == []
    assert found.unread == []


def test_audit__person_called_annotator_is_found_in_its_column(
    builder: Builder, tmp_path: Path
) -> None:
    _add(builder, "1.png", "annotator", patient="png")
    written = write_release(
        Release.gather(builder.workspace, keep_names=True), "png", tmp_path / "r"
    )
    found = audit_privacy(Identifiers.of(builder.workspace), written.folder)
    assert {("annotator", "person"), ("patient", "patient")} <= {
        (h.field, h.kind) for h in found.hits
    }
