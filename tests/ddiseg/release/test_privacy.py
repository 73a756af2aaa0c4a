"""Pseudonyms of a release, and the audit that searches one for names, ids, dates and metadata."""

from __future__ import annotations

import csv
import json
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngInfo

from annotation_protocol import load_protocol
from ddiseg.catalogue.tables import Dataset
from ddiseg.cli.audit import audit as audit_command
from ddiseg.errors import WorkspaceError
from ddiseg.ingest.csv_table import read_table
from ddiseg.ingest.labelled_masks import Labels, import_labelled_masks
from ddiseg.ingest.mask_files import import_masks
from ddiseg.ingest.metadata import Columns
from ddiseg.ingest.photographs import import_photographs
from ddiseg.outcomes import count
from ddiseg.release.audit import Audit, audit_privacy
from ddiseg.release.folder import write_release
from ddiseg.release.identifiers import IdentifierKind, Identifiers
from ddiseg.release.release import Release
from ddiseg.workspace.pseudonym_key import KEY_FILE, TABLE_FILE
from ddiseg.workspace.pseudonyms import Pseudonyms
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.release.conftest import Builder, Cli, copied

pytestmark = pytest.mark.slow

#: File name, patient, lesion, diagnosis.
PLANTED = (
    ("Mueller_Hans_left_arm.jpg", "Hans Müller", "HM-2041-7", "naevus"),
    ("000123456.jpg", "MRN 00812345", "17", "seen by anna@clinic.example on arm of Hans Müller"),
    ("7.jpg", "7", "3", "naevus"),
)


@pytest.fixture
def planted(builder: Builder, tmp_path: Path) -> Builder:
    """Photographs with EXIF and GPS, metadata with names and ids, masks by people with e-mails."""
    folder = tmp_path / "clinic"
    folder.mkdir()
    rows = ["file,patient,lesion,diagnosis"]
    exif = Pillow.Exif()
    exif[0x010E], exif[0x013B] = "Hans Müller", "anna@clinic.example"
    exif.get_ifd(0x8825)[1], exif.get_ifd(0x8825)[2] = "N", (52.0, 31.0, 12.0)
    rng = np.random.default_rng(5)
    for name, *cells in PLANTED:
        pixels = rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)
        Pillow.fromarray(pixels).save(folder / name, exif=exif)
        rows.append(",".join([name, *cells]))
    (folder / "m.csv").write_text("\n".join(rows), "utf-8")
    workspace = builder.workspace
    columns: Columns = {
        **{"image": "file", "patient": "patient"},
        **{"lesion": "lesion", "diagnosis": "diagnosis"},
    }
    import_photographs(workspace, folder, metadata=folder / "m.csv", columns=columns)
    mask = np.full((12, 10), 4, np.uint8)
    mask[2:5, 2:5] = 1
    for image in workspace.catalogue.images.select():
        new = builder._new(image.id, mask, annotator="anna@clinic.example")
        workspace.catalogue.masks.submit([new], reviewer="Dr. Benno Weiss")
    return builder


def _release(workspace: Workspace, to: Path, format_name: str = "png", *, keep: bool) -> Path:
    return write_release(Release.gather(workspace, keep_names=keep), format_name, to).folder


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _audit(workspace: Workspace, folder: Path) -> Audit:
    return audit_privacy(Identifiers.of(workspace), folder)


@pytest.mark.parametrize("format_name", ["png", "coco", "sddi"])
@pytest.mark.parametrize("images", [True, False])
def test_audit__finds_nothing_by_default_and_everything_with_names(
    planted: Builder, tmp_path: Path, format_name: str, images: bool
) -> None:
    workspace = planted.workspace
    for keep in (False, True):
        gathered = Release.gather(workspace, keep_names=keep)
        write_release(gathered, format_name, tmp_path / f"{keep}", images=images)
    assert _audit(workspace, tmp_path / "False").hits == []
    found = {
        (hit.kind, hit.value.removesuffix(" jpg"))
        for hit in _audit(workspace, tmp_path / "True").hits
    }
    wanted = {
        ("name", "mueller hans left arm"),
        ("name", "000123456"),
        ("name", "7"),
        ("patient", "hans müller"),
        ("patient", "mrn 00812345"),
        ("patient", "7"),
        ("lesion", "hm 2041 7"),
        ("lesion", "17"),
        ("lesion", "3"),
        ("person", "anna clinic example"),
        ("person", "dr benno weiss"),
    }
    assert wanted <= found, wanted - found
    assert "date" in {kind for kind, _ in found}


def test_release__nothing_of_the_originals_in_any_byte(planted: Builder, tmp_path: Path) -> None:
    folder = _release(planted.workspace, tmp_path / "r", keep=False)
    everything = b"\n".join(
        bytes(p.relative_to(folder)) + p.read_bytes() for p in folder.rglob("*") if p.is_file()
    ).lower()
    for text in ("mueller", "müller", "hm-2041", "00812345", "clinic.example", "weiss", "exif"):
        assert text.encode() not in everything, text


def test_release__pseudonyms_are_stable_and_listed_in_the_workspace_only(
    planted: Builder, tmp_path: Path
) -> None:
    workspace = planted.workspace
    first = _release(workspace, tmp_path / "1", keep=False)
    second = _release(workspace, tmp_path / "2", "coco", keep=False)
    names = {p.name for p in (first / "images").iterdir()}
    assert names == {p.name for p in (second / "images").iterdir()}
    assert all(name.startswith("img_") and len(name) == 4 + 12 + 4 for name in names)
    table = workspace.root / TABLE_FILE
    assert stat.S_IMODE(table.stat().st_mode) == 0o600
    assert stat.S_IMODE((workspace.root / KEY_FILE).stat().st_mode) == 0o600
    rows = {row["pseudonym"]: row["original"] for row in _rows(table)}
    released = _rows(first / "metadata.csv")
    assert {rows[row["patient"]] for row in released} == {"Hans Müller", "MRN 00812345", "7"}
    assert {rows[row["annotator"]] for row in released} == {"anna@clinic.example"}
    assert {rows[row["name"].rpartition(".")[0]] for row in released} == {p[0] for p in PLANTED}
    assert not list(first.rglob("pseudonyms*"))


def test_release__names_in_a_text_are_replaced(planted: Builder, tmp_path: Path) -> None:
    folder = _release(planted.workspace, tmp_path / "r", keep=False)
    rows = _rows(folder / "metadata.csv")
    assert sorted(row["diagnosis"] for row in rows) == [
        "naevus",
        "naevus",
        "seen by [removed] on arm of [removed]",
    ]


def test_release__subset_called_like_a_patient(planted: Builder, tmp_path: Path) -> None:
    workspace = planted.workspace
    workspace.catalogue.subsets.store({"Hans Müller": [1]}, {}, "tester")
    folder = _release(workspace, tmp_path / "r", keep=False)
    assert "subset_1" in (folder / "metadata.csv").read_text()
    assert _audit(workspace, folder).hits == []


def test_pseudonyms__another_workspace_has_others(
    planted: Builder, empty_workspace: Path, tmp_path: Path
) -> None:
    mine = Pseudonyms.of(planted.workspace)
    with copied(empty_workspace, tmp_path / "other") as other:
        assert Pseudonyms.of(other.workspace).person("a") != mine.person("a")
    assert Pseudonyms.of(planted.workspace) == mine


def test_pseudonyms__a_patient_belongs_to_its_dataset() -> None:
    pseudonyms = Pseudonyms(b"k" * 32)
    one, two = Dataset(name="A"), Dataset(name="B")
    assert pseudonyms.patient(one, "1") != pseudonyms.patient(two, "1")
    assert pseudonyms.patient(one, "1") != pseudonyms.lesion(one, "1", None)


def test_pseudonyms__lost_secret_is_not_replaced(planted: Builder, tmp_path: Path) -> None:
    _release(planted.workspace, tmp_path / "r", keep=False)
    (planted.workspace.root / KEY_FILE).unlink()
    with pytest.raises(WorkspaceError, match="is lost, with which earlier releases were made"):
        Release.gather(planted.workspace)


def test_release__comes_back_into_its_workspace(planted: Builder, tmp_path: Path) -> None:
    """Masks of a release find their images and their people by the secret of the workspace."""
    workspace = planted.workspace
    before = {
        image: mask.content_hash for image, mask in workspace.catalogue.masks.accepted().items()
    }
    folder = _release(workspace, tmp_path / "png", keep=False)
    done = import_masks(
        workspace, folder / "masks", format_name="png", annotator="anna@clinic.example"
    )
    assert count(done.outcomes)["unchanged"] == 3, done.outcomes
    folder = _release(workspace, tmp_path / "coco", "coco", keep=False)
    done = import_labelled_masks(
        workspace,
        folder / "annotations.json",
        format_name="coco",
        labels=Labels.parse(None, None, load_protocol()),
    )
    assert count(done.outcomes)["unchanged"] == 3, done.outcomes
    after = workspace.catalogue.masks.accepted()
    assert {image: mask.content_hash for image, mask in after.items()} == before


def _png_text(path: Path) -> None:
    info = PngInfo()
    info.add_text("Comment", "left arm of Hans Müller")
    Pillow.open(path).save(path, pnginfo=info)


def _png_compressed_text(path: Path) -> None:
    info = PngInfo()
    info.add_text("Comment", "left arm of Hans Muller, 000123456", zip=True)
    Pillow.open(path).save(path, pnginfo=info)


def _png_exif(path: Path) -> None:
    exif = Pillow.Exif()
    exif[0x0112], exif.get_ifd(0x8825)[1] = 1, "N"
    Pillow.open(path).save(path, exif=exif)


def _jpeg_exif(path: Path) -> None:
    exif = Pillow.Exif()
    exif.get_ifd(0x8825)[1] = "N"
    Pillow.open(path).convert("RGB").save(path.with_suffix(".jpg"), exif=exif)


def _xmp(path: Path) -> None:
    picture = Pillow.open(path).convert("RGB")
    picture.save(path.with_suffix(".jpg"), xmp=b"<x:xmpmeta>000123456</x:xmpmeta>")


def _after_the_end(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"hidden")


@pytest.mark.parametrize(
    ("harm", "block"),
    [
        (_png_text, "PNG tEXt"),
        (_png_compressed_text, "PNG zTXt"),
        (_png_exif, "EXIF GPS"),
        (_jpeg_exif, "EXIF GPS"),
        (_xmp, "XMP"),
        (_after_the_end, "after the end of the picture"),
    ],
)
def test_audit__metadata_of_a_picture(
    planted: Builder, tmp_path: Path, harm: Callable[[Path], None], block: str
) -> None:
    folder = _release(planted.workspace, tmp_path / "r", keep=False)
    harm(sorted((folder / "images").iterdir())[0])
    found = _audit(planted.workspace, folder).hits
    assert block in {hit.field for hit in found}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("notes.txt", "line\nseen: MUELLER hans, left arm\n"),
        ("more.csv", "who,n\nanna@clinic.example,3\n"),
        ("more.json", json.dumps({"a": [{"patient": "7"}]})),
        ("more.jsonl", '{"b": 1}\n{"c": "Dr. Benno Weiss"}\n'),
        ("Mueller_Hans_left_arm/x.txt", ""),
        ("README", "MRN-00812345"),
    ],
)
def test_audit__planted_file(planted: Builder, tmp_path: Path, name: str, text: str) -> None:
    folder = _release(planted.workspace, tmp_path / "r", keep=False)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    hits = _audit(planted.workspace, folder).hits
    assert {hit.file for hit in hits} == {name.removesuffix("/x.txt")}


def test_audit__short_ids_and_ordinary_words_are_no_hits(builder: Builder, tmp_path: Path) -> None:
    """Ids such as 1 and photographs called naevus.png are not found all over a release."""
    mask = np.full((12, 10), 4, np.uint8)
    for number, name in enumerate(("naevus.png", "1.png", "lesion.png", "12.png")):
        image = builder.image(name, patient=str(number), lesion=str(number), diagnosis="naevus")
        builder.mask(image, mask)
    folder = _release(builder.workspace, tmp_path / "r", "coco", keep=False)
    identifiers = Identifiers.of(builder.workspace)
    assert audit_privacy(identifiers, folder).hits == []
    assert identifiers.words == {"naevus", "lesion"}


def test_audit__command(planted: Builder, tmp_path: Path, cli: Cli) -> None:
    root = planted.workspace.root
    clean = _release(planted.workspace, tmp_path / "clean", keep=False)
    named = _release(planted.workspace, tmp_path / "named", keep=True)
    status, out, _ = cli([audit_command], "--workspace", root, "audit", "privacy", clean)
    assert status == 0
    assert "6 pictures" in out
    assert "0 hits" in out
    status, out, err = cli([audit_command], "--workspace", root, "audit", "privacy", named)
    assert status == 1
    assert "patient  metadata.csv, patient: 3 hits, " in out
    assert "hits in" in err
    shutil.rmtree(named)
    status, _, err = cli([audit_command], "--workspace", root, "audit", "privacy", named)
    assert status == 1
    assert "is no folder: give the folder of a release" in err


def test_metadata__no_cell_is_a_formula(builder: Builder, tmp_path: Path) -> None:
    mask = np.full((12, 10), 4, np.uint8)
    formula = '=HYPERLINK("http://x.example","a")'
    builder.mask(builder.image("=a.png", diagnosis=formula, patient="@p", lesion="-1+1"), mask)
    folder = _release(builder.workspace, tmp_path / "r", keep=True)
    [row] = _rows(folder / "metadata.csv")
    assert (row["diagnosis"], row["patient"]) == (f"'{formula}", "'@p")
    assert (row["name"], row["lesion"], row["image_id"]) == ("'=a.png", "'-1+1", "1")
    table = read_table(folder / "metadata.csv")
    assert formula in next(iter(table.rows))[1]


def test_identifiers__ten_thousand_in_one_pass() -> None:
    """Names that begin alike are looked up, not tried one after the other."""
    identifiers = Identifiers()
    for number in range(10_000):
        identifiers.add(IdentifierKind.NAME, f"IMG_{number:05d}")
    started = time.process_time()
    text = " ".join(f"IMG_{number:05d}" for number in range(20_000))
    assert len(list(identifiers.find(text))) == 10_000
    assert time.process_time() - started < 5, "a search of each name would take minutes"
