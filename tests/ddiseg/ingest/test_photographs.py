from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import Details
from ddiseg.errors import InputError
from ddiseg.ingest import ddi
from ddiseg.ingest.diagnoses import MalignantDiagnoses
from ddiseg.ingest.metadata import Key
from ddiseg.ingest.photographs import PhotographImport, import_photographs
from ddiseg.outcomes import Outcome, count, fold
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.wording import Refusal

pytestmark = pytest.mark.both_databases

COLUMNS = {Key.IMAGE: "file", Key.TONE: "tone", Key.DIAGNOSIS: "dx", Key.PATIENT: "patient"}
ADDED, UNCHANGED = Outcome.ADDED, Outcome.UNCHANGED
REPAIRED, REFUSED = Outcome.REPAIRED, Outcome.REFUSED


def table(folder: Path, *rows: str, header: str = "file,tone,dx,patient") -> dict[str, Any]:
    """The arguments that describe a folder by a CSV file with these rows."""
    path = folder.parent / "table.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return {"metadata": path, "columns": COLUMNS}


def told(done: PhotographImport) -> dict[str, Outcome]:
    return {o.name: o.outcome for o in done.outcomes}


def note(done: PhotographImport, name: str) -> str:
    return str({o.name: o.note for o in done.outcomes}[name])


def stored(workspace: Workspace, name: str) -> Path:
    return Path(
        workspace.store.path(Kind.IMAGE, workspace.catalogue.images.find(name).content_hash)
    )


def test_import(workspace: Workspace, folder: Any, pixels: Any, wording: SnapshotAssertion) -> None:
    root = folder("a.png", "sub/b.png", "c.png")
    (root / "read me.txt").write_text("x")
    said = table(root, "a.png,3,naevus,P1", "b,56,,P1", "elsewhere.png,1,,", "absent.png,9,,")
    done = import_photographs(workspace, root, **said, licence="CC BY", source="here", actor="me")
    assert told(done) == {"a.png": ADDED, "c.png": ADDED, "sub/b.png": ADDED}
    assert done.rows_without_file == 2
    assert done.files_without_row == ["c.png"]
    assert done.dataset == "photos"
    assert done.notes[0].startswith("malignancy is not known: the diagnoses (naevus) are not all")
    assert done.notes[1:] == wording
    a, c, b = workspace.catalogue.images.select()
    assert (a.name, a.tone, a.fitzpatrick) == ("a.png", "III-IV", 3)
    assert a.tone_source == "table.csv: tone"
    assert (a.diagnosis, a.patient, a.width, a.height, a.state) == ("naevus", "P1", 24, 16, "new")
    assert (b.name, b.tone, b.fitzpatrick) == ("b.png", "V-VI", None)
    assert (b.diagnosis, b.patient) == (None, "P1")
    assert (c.tone, c.tone_source) == ("unknown", None)
    assert np.array_equal(workspace.photograph(b), pixels(1))
    (dataset,) = workspace.catalogue.images.datasets()
    assert (dataset.licence, dataset.source) == ("CC BY", "here")
    assert [e.actor for e in workspace.catalogue.events.of_image(a.id)] == ["me"]


def test_import__rows_name_another_ending(
    workspace: Workspace, folder: Any, wording: SnapshotAssertion
) -> None:
    """Photographs that were converted after the table was written; an exact name is preferred."""
    root = folder(
        "a.jpg", "b.jpg", "sub/c.jpg", "d/d.jpg", "e/d.jpg", "f.jpg", "sub/g.jpg", "h.jpg.jpg"
    )
    rows = ("a.png,3,,P1", "a.jpg,5,,P2", "b.PNG,1,,P3", "c.png,2,,", "d.png,4,,", "b.v1,6,,")
    rows += ("f.jpg.png,5,,", "g.jpg.png,5,,", "sub/g.jpg.png,5,,", "h.jpg.png,5,,")
    done = import_photographs(workspace, root, **table(root, *rows))
    tones = {i.name: i.tone for i in workspace.catalogue.images.select()}
    assert tones["a.jpg"] == "V-VI"
    assert (tones["b.jpg"], tones["c.jpg"]) == ("I-II", "I-II")
    assert tones["d.jpg"] == "unknown", "two files have that name"
    assert (tones["f.jpg"], tones["g.jpg"]) == ("unknown", "unknown"), "f.jpg.png is another name"
    assert tones["h.jpg.jpg"] == "V-VI"
    assert done.rows_without_file == 6
    assert done.notes[0] == wording


def test_import__a_table_of_other_photographs(workspace: Workspace, folder: Any) -> None:
    root = folder("a.png", "b.png")
    said = r"no row is about one of the 2 photographs; its rows name 'x1' and so on, the folder has 'a\.png'"
    with pytest.raises(InputError, match=said):
        import_photographs(workspace, root, **table(root, "x1,3,,", "x2,4,,"))
    assert workspace.catalogue.images.select() == []
    assert workspace.catalogue.images.datasets() == []


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([], "nothing follows its header"),
        ([",1,,"], "line 2: names no image"),
        (["a.png,9,,", ",1,,", "b.png,1"], "line 2: tone '9' .*; 2 more rows can't be used"),
    ],
)
def test_import__a_table_without_a_usable_row(
    workspace: Workspace, folder: Any, rows: list[str], why: str
) -> None:
    root = folder("a.png", "b.png", "c.png")
    with pytest.raises(InputError, match=rf"table\.csv has no usable row: {why}; correct it, or"):
        import_photographs(workspace, root, **table(root, *rows))
    assert workspace.catalogue.images.select() == []
    assert workspace.catalogue.images.datasets() == []


def test_import__no_dataset_without_an_image(workspace: Workspace, folder: Any) -> None:
    root = folder("a.png")
    good = (root / "a.png").read_bytes()
    (root / "a.png").write_bytes(b"no photograph")
    done = import_photographs(workspace, root, licence="CC BY")
    assert told(done) == {"a.png": REFUSED}
    assert workspace.catalogue.images.datasets() == []
    (root / "a.png").write_bytes(good)
    import_photographs(workspace, root)
    (dataset,) = workspace.catalogue.images.datasets()
    assert (dataset.name, dataset.licence) == ("photos", None)


def test_import__again(workspace: Workspace, folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder("a.png", "b.png")
    said = table(root, "a.png,3,,")
    import_photographs(workspace, root, **said)
    events = workspace.catalogue.events.count()

    def opened(_file: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("ddiseg.ingest.photograph_reader.read_file", opened)
    done = import_photographs(workspace, root, **said)
    assert count(done.outcomes) == {"added": 0, "unchanged": 2, "repaired": 0, "refused": 0}
    assert workspace.catalogue.events.count() == events


@pytest.mark.training
def test_import__many_batches(workspace: Workspace, folder: Any) -> None:
    root = folder(*(f"{i:03}.png" for i in range(150)))
    calls: list[tuple[int, int]] = []
    done = import_photographs(workspace, root, progress=lambda *at: calls.append(at))
    assert [o.name for o in done.outcomes] == [f"{i:03}.png" for i in range(150)]
    assert count(done.outcomes)["added"] == 150
    assert calls == [(0, 150), (64, 150), (128, 150), (150, 150)]


def test_import__touched(workspace: Workspace, folder: Any) -> None:
    root = folder("a.png")
    import_photographs(workspace, root)
    os.utime(root / "a.png", ns=(1, 1))
    assert told(import_photographs(workspace, root)) == {"a.png": UNCHANGED}
    (known,) = workspace.catalogue.images.known_sources(1, ["a.png"]).values()
    assert known.modified_ns == 1


def test_import__same_pixels_in_another_file(
    workspace: Workspace, folder: Any, pixels: Any
) -> None:
    root = folder("a.png")
    import_photographs(workspace, root)
    Image.fromarray(pixels(0)).save(root / "a.png", "BMP")
    assert told(import_photographs(workspace, root)) == {"a.png": UNCHANGED}


def test_import__another_photograph_under_a_name(workspace: Workspace, folder: Any) -> None:
    root = folder("a.png", "b.png")
    import_photographs(workspace, root)
    before = workspace.store.digests(Kind.IMAGE)
    folder("a.png", first_seed=7)
    done = import_photographs(workspace, root)
    assert told(done) == {"a.png": REFUSED, "b.png": UNCHANGED}
    assert "another photograph was imported under this name" in note(done, "a.png")
    assert workspace.store.digests(Kind.IMAGE) == before
    assert told(import_photographs(workspace, root, dataset="second"))["a.png"] is ADDED


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_import__stored_copy_lost(
    workspace: Workspace, folder: Any, pixels: Any, damage: Any, wording: SnapshotAssertion
) -> None:
    root = folder("a.png", "b.png")
    import_photographs(workspace, root)
    damage(stored(workspace, "a.png"))
    done = import_photographs(workspace, root)
    assert told(done) == {"a.png": REPAIRED, "b.png": UNCHANGED}
    assert note(done, "a.png") == wording
    found = workspace.photograph(workspace.catalogue.images.find("a.png"))
    assert np.array_equal(found, pixels(0))
    assert told(import_photographs(workspace, root))["a.png"] is UNCHANGED


def test_import__row_corrected(
    workspace: Workspace, folder: Any, wording: SnapshotAssertion
) -> None:
    root = folder("a.png", "b.png")
    import_photographs(workspace, root, **table(root, "a.png,3,naevus,", "b.png,1,,"))
    done = import_photographs(workspace, root, **table(root, "a.png,56,,P1", "b.png,,,"))
    assert told(done) == {"a.png": REPAIRED, "b.png": UNCHANGED}
    assert note(done, "a.png") == wording
    a = workspace.catalogue.images.find("a.png")
    assert (a.tone, a.fitzpatrick, a.diagnosis, a.patient) == ("V-VI", None, "naevus", "P1")
    assert [e.kind for e in workspace.catalogue.events.of_image(a.id)] == ["import", "metadata"]
    again = import_photographs(workspace, root, **table(root, "a.png,56,,P1", "b.png,,,"))
    assert told(again) == {"a.png": UNCHANGED, "b.png": UNCHANGED}


def test_import__malignancy_from_diagnosis(
    workspace: Workspace, folder: Any, wording: SnapshotAssertion
) -> None:
    root = folder("a.png", "b.png", "c.png", "d.png")
    (root / "d.png").write_bytes(b"no photograph")
    said = table(root, "a.png,1,BCC,", "b.png,1,nev,", "c.png,1,,", "d.png,1,MEL,")
    done = import_photographs(workspace, root, **said)
    assert [i.malignant for i in workspace.catalogue.images.select()] == [True, False, None]
    assert done.notes == wording


def test_import__again_with_malignant_diagnoses(
    workspace: Workspace, folder: Any, wording: SnapshotAssertion
) -> None:
    root = folder("a.png", "b.png")
    said = table(root, "a.png,1,carcinoma,", "b.png,1,wart,")
    import_photographs(workspace, root, **said)
    given = MalignantDiagnoses.parse("Carcinoma", "rest")
    done = import_photographs(workspace, root, **said, diagnoses=given)
    assert told(done) == {"a.png": REPAIRED, "b.png": REPAIRED}
    assert note(done, "a.png") == wording
    assert [i.malignant for i in workspace.catalogue.images.select()] == [True, False]
    again = import_photographs(workspace, root, **said, diagnoses=given)
    assert set(told(again).values()) == {UNCHANGED}


def verdicts(workspace: Workspace) -> list[tuple[bool | None, str | None]]:
    return [(i.malignant, i.malignant_source) for i in workspace.catalogue.images.select()]


def test_import__a_derived_malignancy_goes_with_the_options(
    workspace: Workspace, folder: Any, wording: SnapshotAssertion
) -> None:
    root = folder("a.png", "b.png", "c.png")
    said = table(root, "a.png,1,melanoma,", "b.png,1,naevus,", "c.png,1,bowen,")

    def again(malignant: str | None) -> PhotographImport:
        given = MalignantDiagnoses.parse(malignant, None)
        return import_photographs(workspace, root, **said, diagnoses=given)

    by_option = (True, "diagnosis: --malignant")
    again("melanoma,naevus")
    assert verdicts(workspace) == [by_option, by_option, (None, None)]
    done = again("melanoma,bowen")
    assert verdicts(workspace) == [by_option, (None, None), by_option]
    assert told(done) == {"a.png": UNCHANGED, "b.png": REPAIRED, "c.png": REPAIRED}
    assert note(done, "b.png") == wording
    assert done.notes == wording
    assert set(told(again("melanoma,bowen")).values()) == {UNCHANGED}
    import_photographs(workspace, root)
    assert verdicts(workspace) == [by_option, (None, None), by_option], "no diagnosis was read"
    again(None)
    assert verdicts(workspace) == [by_option, (None, None), by_option], "nothing was said of them"


@pytest.mark.training
@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ("mel", "akiec", None), ("mel", "eczema", None), ("bkl", "melanoma", None),
        ("mel", "nv", False), ("bkl", "mel", True),
    ],
)  # fmt: skip
def test_import__a_derived_malignancy_goes_with_the_diagnosis(
    workspace: Workspace, folder: Any, before: str, after: str, verdict: bool | None
) -> None:
    root = folder("a.png", "b.png")
    import_photographs(workspace, root, **table(root, f"a.png,1,{before},", "b.png,1,df,"))
    done = import_photographs(workspace, root, **table(root, f"a.png,1,{after},", "b.png,1,,"))
    assert workspace.catalogue.images.find("a.png").malignant is verdict
    assert workspace.catalogue.images.find("b.png").malignant is False, "its diagnosis stands"
    new = "nothing" if verdict is None else verdict
    assert f"diagnosis {before} -> {after}; corrected malignant {before == 'mel'} -> {new}" in note(
        done, "a.png"
    )


def test_import__a_column_confirms_what_was_derived(
    workspace: Workspace, folder: Any, wording: SnapshotAssertion
) -> None:
    root = folder("a.png")
    import_photographs(workspace, root, **table(root, "a.png,1,scc,"))
    said = table(root, "a.png,1,scc,TRUE", header="file,tone,dx,bad")
    columns = {Key.IMAGE: "file", Key.TONE: "tone", Key.DIAGNOSIS: "dx", Key.MALIGNANT: "bad"}
    done = import_photographs(workspace, root, **{**said, "columns": columns})
    assert note(done, "a.png") == wording
    done = import_photographs(workspace, root, **table(root, "a.png,1,wart,"))
    assert verdicts(workspace) == [(True, "table.csv: bad")]
    assert note(done, "a.png") == wording
    again = import_photographs(workspace, root, **table(root, "a.png,1,wart,"))
    assert told(again) == {"a.png": UNCHANGED}


def test_import__a_malignancy_of_unknown_origin_is_kept(
    workspace: Workspace, folder: Any, wording: SnapshotAssertion
) -> None:
    root = folder("a.png")
    import_photographs(workspace, root)
    workspace.catalogue.images.update_details([1], [Details(malignant=True)], "older program")
    given = MalignantDiagnoses.parse(None, "nv")
    done = import_photographs(workspace, root, **table(root, "a.png,,nv,"), diagnoses=given)
    assert verdicts(workspace) == [(True, None)]
    assert note(done, "a.png") == wording
    assert done.notes[0].endswith("by --benign: 1 malignant (nv), 0 benign, 0 unknown")


def test_import__a_derivation_never_overrules_a_column(
    workspace: Workspace, folder: Any, wording: SnapshotAssertion
) -> None:
    """That this ACK is malignant was said by a person, in a column that a later table lacks."""
    root = folder("a.png", "b.png")
    said = table(root, "a.png,1,ACK,TRUE", "b.png,1,BCC,", header="file,tone,dx,bad")
    columns = {Key.IMAGE: "file", Key.TONE: "tone", Key.DIAGNOSIS: "dx", Key.MALIGNANT: "bad"}
    import_photographs(workspace, root, **{**said, "columns": columns})
    assert [i.malignant for i in workspace.catalogue.images.select()] == [True, None]
    done = import_photographs(workspace, root, **table(root, "a.png,1,ACK,P", "b.png,1,BCC,"))
    assert note(done, "a.png") == wording
    assert "malignant nothing -> True" in note(done, "b.png")
    assert [i.malignant for i in workspace.catalogue.images.select()] == [True, True]
    given = MalignantDiagnoses.parse(None, "ACK")
    done = import_photographs(workspace, root, **table(root, "a.png,1,ACK,"), diagnoses=given)
    assert "malignant stays True" in note(done, "a.png")
    assert verdicts(workspace)[0] == (True, "table.csv: bad")
    said = table(root, "a.png,1,ACK,FALSE", header="file,tone,dx,bad")
    import_photographs(workspace, root, **{**said, "columns": columns})
    assert verdicts(workspace)[0] == (False, "table.csv: bad")


def test_import__equal_faults_of_rows_have_equal_reasons(workspace: Workspace, folder: Any) -> None:
    root = folder("a.png", "b.png")
    done = import_photographs(workspace, root, **table(root, "a.png,0,,", "b.png,0,,", "c,1,,"))
    assert len({o.note for o in done.outcomes}) == 1
    assert count(done.outcomes)["refused"] == 2


def test_import__exact_duplicate(
    workspace: Workspace, folder: Any, wording: SnapshotAssertion
) -> None:
    root = folder("a.png")
    folder("b.bmp", "c.png")  # b.bmp has the seed of a.png
    said = table(root, "a.png,1,,", "b.bmp,6,,P2")
    done = import_photographs(workspace, root, **said)
    assert told(done) == {"a.png": ADDED, "b.bmp": ADDED, "c.png": ADDED}
    assert note(done, "b.bmp") == wording
    assert len(workspace.catalogue.images.select()) == 2
    assert [s.path for s in workspace.catalogue.images.sources(1)] == ["a.png", "b.bmp"]
    assert workspace.catalogue.images.find("b.bmp").tone == "I-II"
    again = import_photographs(workspace, root, **said)
    assert set(told(again).values()) == {UNCHANGED}
    assert "its tone, fitzpatrick, patient not taken" in note(again, "b.bmp")
    assert workspace.catalogue.images.find("a.png").tone == "I-II"


def test_import__exact_duplicate_in_another_dataset(workspace: Workspace, folder: Any) -> None:
    first, second = folder("a.png"), folder("x.png", name="others")
    import_photographs(workspace, first)
    assert "same photograph as a.png (#1)" in note(import_photographs(workspace, second), "x.png")
    assert len(workspace.catalogue.images.select()) == 1


def test_import__near_duplicates(workspace: Workspace, folder: Any, pixels: Any) -> None:
    root = folder("a.png", "b.png")
    Image.fromarray(pixels(0, 240, 160)).save(root / "a large.jpg", quality=90)
    done = import_photographs(workspace, root)
    (pair,) = done.near_duplicates
    assert pair.names == ("a large.jpg", "a.png")
    assert (pair.change, pair.correlation > 0.9) == ("same", True)
    assert pair.new
    Image.fromarray(pixels(1, 120, 80)).save(root / "b again.png")
    done = import_photographs(workspace, root)
    assert [(p.names, p.new) for p in done.near_duplicates] == [
        (("b.png", "b again.png"), True),
        (("a large.jpg", "a.png"), False),
    ]
    assert len(workspace.catalogue.images.select()) == 4


# --- metadata and files ---


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a.png,brown,,", "its row in table.csv: tone 'brown' is none of"),
        ("a.png,1", "its row in table.csv: 2 cells, but 4 columns"),
        ("a.png,56,,", "lines 3 and 4 contradict each other"),
    ],
)
def test_import__row_refused(workspace: Workspace, folder: Any, row: str, reason: str) -> None:
    root = folder("a.png", "b.png")
    done = import_photographs(workspace, root, **table(root, "b.png,1,,", row, "a.png,12,,"))
    assert told(done) == {"a.png": REFUSED, "b.png": ADDED}
    assert reason in note(done, "a.png")
    assert [i.name for i in workspace.catalogue.images.select()] == ["b.png"]
    assert len(workspace.store.digests(Kind.IMAGE)) == 1


@pytest.mark.parametrize("name", ["../secret.png", "../../etc/passwd", "/etc/passwd", "ABSOLUTE"])
def test_import__row_that_leads_out_of_the_folder(
    workspace: Workspace, folder: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder("a.png")
    secret = folder("secret.png", name=".", first_seed=5) / "secret.png"
    name = str(secret) if name == "ABSOLUTE" else name
    said = table(root, f"{name},1,,", "a.png,1,,")
    seen: list[str] = []
    monkeypatch.setattr("ddiseg.ingest.folder.open", _spy(seen), raising=False)
    done = import_photographs(workspace, root, **said)
    assert told(done) == {"table.csv:2": REFUSED, "a.png": ADDED}
    assert f"image '{name}'" in note(done, "table.csv:2")
    assert seen == [str(root / "a.png")]
    assert len(workspace.catalogue.images.select()) == 1


def _spy(seen: list[str]) -> Any:
    def spy(path: Any, *args: Any) -> Any:
        seen.append(str(path))
        return open(path, *args)

    return spy


def test_import__identical_rows(
    workspace: Workspace, folder: Any, wording: SnapshotAssertion
) -> None:
    root = folder("a.png")
    done = import_photographs(workspace, root, **table(root, "a.png,3,,P", "a,3.0,,P"))
    assert told(done) == {"a.png": ADDED}
    assert done.notes == wording


def test_import__row_could_mean_two_files(workspace: Workspace, folder: Any) -> None:
    root = folder("x/a.png", "y/a.png", "z/b.png", "b.png")
    done = import_photographs(workspace, root, **table(root, "a.png,1,,", "b.png,2,,"))
    assert told(done) == {"x/a.png": REFUSED, "y/a.png": REFUSED, "z/b.png": ADDED, "b.png": ADDED}
    assert "'a.png' could mean x/a.png or y/a.png: give the path" in note(done, "x/a.png")
    assert done.files_without_row == ["z/b.png"]
    done = import_photographs(workspace, root, **table(root, "x/a.png,1,,", "y\\a.png,6,,"))
    assert [told(done)[name] for name in ("x/a.png", "y/a.png")] == [ADDED, ADDED]
    assert [told(done)[name] for name in ("z/b.png", "b.png")] == [UNCHANGED, UNCHANGED]
    tones = [i.tone for i in workspace.catalogue.images.select()]
    assert tones == ["I-II", "unknown", "I-II", "V-VI"]


def test_import__accents_of_macos(workspace: Workspace, folder: Any) -> None:
    root = folder("cafe\u0301.png")
    import_photographs(workspace, root, **table(root, "caf\u00e9.png,1,,"))
    assert workspace.catalogue.images.select()[0].tone == "I-II"


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": None},
        {"columns": None},
        {"metadata": Path("/absent/absent.csv")},
        {"columns": {Key.IMAGE: "name"}},
        {"dataset": "a:b"},
        {"dataset": " "},
    ],
)
def test_import__refused_before_anything_is_made(
    workspace: Workspace, folder: Any, change: dict[str, Any], refusal: Refusal
) -> None:
    root = folder("a.png")
    with refusal(InputError):
        import_photographs(workspace, root, **{**table(root, "a.png,1,,"), **change})
    (root / "a.png").rename(root / "a.txt")
    with pytest.raises(InputError, match="has no photographs: no file ends in"):
        import_photographs(workspace, root)
    assert not workspace.catalogue.images.datasets()


# --- DDI, names of datasets ---


@pytest.mark.parametrize("images_in", ["", "images/"])
def test_import__ddi(workspace: Workspace, folder: Any, images_in: str) -> None:
    root = folder(*(f"{images_in}00000{i}.png" for i in range(1, 5)), name="anything")
    (root / "ddi_metadata.csv").write_text(
        ",DDI_ID,DDI_file,skin_tone,malignant,disease\n"
        "0,1,000001.png,56,TRUE,melanoma-in-situ\n"
        "1,2,000002.png,34,False,mycosis-fungoides\n"
        "2,3,000003.png,12,FALSE,\n"
        "3,9,000009.png,12,FALSE,wart\n"
    )
    done = import_photographs(workspace, root)
    assert (done.dataset, done.rows_without_file) == ("DDI", 1)
    assert [n.rsplit("/", 1)[-1] for n in done.files_without_row] == ["000004.png"]
    assert done.notes == []
    first, second, third, fourth = workspace.catalogue.images.select()
    assert (first.tone, first.malignant, first.diagnosis) == ("V-VI", True, "melanoma-in-situ")
    assert (second.tone, second.malignant, second.fitzpatrick) == ("III-IV", False, None)
    assert (third.tone, third.malignant, third.diagnosis) == ("I-II", False, None)
    assert (fourth.tone, fourth.malignant) == ("unknown", None)
    assert first.tone_source == "ddi_metadata.csv: skin_tone"
    (dataset,) = workspace.catalogue.images.datasets()
    assert (dataset.licence, dataset.source) == (ddi.LICENCE, "https://ddi-dataset.github.io")


def test_import__ddi_with_own_terms_and_table(workspace: Workspace, folder: Any) -> None:
    root = folder("000001.png")
    (root / "ddi_metadata.csv").write_text("DDI_file\n000001.png\n")
    said = table(root, "000001.png,1,,")
    import_photographs(workspace, root, **said, licence="mine")
    (dataset,) = workspace.catalogue.images.datasets()
    assert (dataset.name, dataset.licence, dataset.source) == ("DDI", "mine", ddi.SOURCE)
    assert workspace.catalogue.images.select()[0].tone == "I-II"


def test_import__ddi_column_missing(workspace: Workspace, folder: Any, refusal: Refusal) -> None:
    root = folder("000001.png")
    (root / "ddi_metadata.csv").write_text("DDI_file,skin_tone\n000001.png,12\n")
    with refusal(InputError):
        import_photographs(workspace, root)


@pytest.mark.parametrize(("name", "expected"), [("pad", "pad"), ("pad/images", "pad")])
def test_import__name_of_the_dataset(
    workspace: Workspace, folder: Any, name: str, expected: str
) -> None:
    assert import_photographs(workspace, folder("a.png", name=name)).dataset == expected


# --- in place ---


def test_import__in_place(workspace: Workspace, folder: Any, pixels: Any) -> None:
    root = folder("a.png")
    assert told(import_photographs(workspace, root, in_place=True)) == {"a.png": ADDED}
    image = workspace.catalogue.images.find("a.png")
    assert image.in_place == str(root / "a.png")
    assert not workspace.store.digests(Kind.IMAGE)
    assert np.array_equal(workspace.photograph(image), pixels(0))
    assert told(import_photographs(workspace, root, in_place=True)) == {"a.png": UNCHANGED}


def test_import__in_place_then_moved(workspace: Workspace, folder: Any, tmp_path: Path) -> None:
    root = folder("a.png")
    import_photographs(workspace, root, in_place=True, dataset="d")
    moved = root.rename(tmp_path / "moved")
    done = import_photographs(workspace, moved, in_place=True, dataset="d")
    assert told(done) == {"a.png": REPAIRED}
    assert "no longer at" in note(done, "a.png")
    assert workspace.catalogue.images.find("a.png").in_place == str(moved / "a.png")
    done = import_photographs(workspace, moved, in_place=True, dataset="d")
    assert told(done) == {"a.png": UNCHANGED}


def test_import__in_place_then_copied(workspace: Workspace, folder: Any) -> None:
    root = folder("a.png")
    import_photographs(workspace, root, in_place=True)
    assert told(import_photographs(workspace, root)) == {"a.png": REPAIRED}
    assert workspace.catalogue.images.find("a.png").in_place is None
    assert stored(workspace, "a.png").is_file()
    assert told(import_photographs(workspace, root)) == {"a.png": UNCHANGED}
    assert told(import_photographs(workspace, root, in_place=True)) == {"a.png": UNCHANGED}


def test_import__defaults_keep_licence_and_source(workspace: Workspace, folder: Any) -> None:
    """Those of DDI's layout are for a dataset that has none; a change by option is told."""
    root = folder("a.png")
    (root / ddi.METADATA).write_text("DDI_file,skin_tone,malignant,disease\na.png,12,TRUE,x\n")
    datasets = workspace.catalogue.images

    def run(**given: Any) -> tuple[str | None, str | None, list[str]]:
        done = import_photographs(workspace, root, dataset="mine", **given)
        (row,) = datasets.datasets()
        return row.licence, row.source, [n for n in done.notes if "of dataset" in n]

    assert run(licence="CC0") == ("CC0", ddi.SOURCE, []), (
        "a new dataset takes the defaults it lacks"
    )
    assert run() == ("CC0", ddi.SOURCE, [])
    told = "source of dataset 'mine' changed: https://ddi-dataset.github.io -> here"
    assert run(source="here") == ("CC0", "here", [told])
    assert run() == ("CC0", "here", [])


def test_import__corrections_are_counted_by_kind(workspace: Workspace, folder: Any) -> None:
    root = folder("a.png", "b.png", "c.png")
    import_photographs(workspace, root, **table(root, "a.png,3,,", "b.png,3,,", "c.png,3,,P0"))
    done = import_photographs(
        workspace, root, **table(root, "a.png,3,,P1", "b.png,3,,P2", "c.png,3,,P3")
    )
    assert note(done, "a.png") == "corrected patient nothing -> P1"
    kinds = [(group.note, group.names) for group in fold(done.outcomes)]
    assert kinds == [
        ("patient filled in", ("a.png", "b.png")),
        ("corrected patient P0 -> P3", ("c.png",)),
    ]


def test_import__files_without_a_row_keep_their_tone(workspace: Workspace, folder: Any) -> None:
    root = folder("a.png", "b.png", "c.png")
    first = import_photographs(workspace, root, **table(root, "a.png,3,,", "b.png,3,,"))
    assert (first.files_without_row, first.tones_unknown) == (["c.png"], 1)
    again = import_photographs(workspace, root, **table(root, "a.png,3,,"))
    assert (again.files_without_row, again.tones_unknown) == (["b.png", "c.png"], 1)


def test_import__release_without_its_masks(workspace: Workspace, folder: Any) -> None:
    """Rows of its table match in its folder and in images/ alone, by the tail of their path."""
    root = folder("images/a.png", "images/b.png", "masks/a.png", "masks/b.png", name="release")
    (root / "ddiseg-release.json").write_text('{"files": [], "format": "png"}')
    rows = ("images/a.png,3,,", "images/b.png,5,,", "x/c.png,5,,", "y/c.png,3,,")
    done = import_photographs(workspace, root, **table(root, *rows))
    assert told(done) == {"images/a.png": ADDED, "images/b.png": ADDED}
    assert (
        "a release of ddiseg: only the photographs in its images/ are taken; pictures left, its masks: 2"
        in done.notes
    )
    (root / "images/b.png").rename(root / "images/c.png")
    done = import_photographs(workspace, root / "images", dataset="again", **table(root, *rows))
    assert set(told(done)) == {"a.png", "c.png"}
    assert done.files_without_row == ["c.png"], "x/c.png or y/c.png"
    assert (
        "table.csv: 1 row with folders above those of the file: images/a.png for a.png"
        in done.notes
    )


@pytest.mark.parametrize("option", ["dataset", "licence", "source"])
def test_text_of_the_dataset_that_can_not_be_stored__nothing_is_written(
    workspace: Workspace, photos: Path, option: str, refusal: Refusal
) -> None:
    text = "a\0b" if option == "source" else "x" * 201
    with refusal(InputError):
        import_photographs(workspace, photos, **{option: text})
    assert workspace.catalogue.images.datasets() == []
