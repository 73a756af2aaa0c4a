"""The photographs and masks that the project is tried on; skipped where they are not at hand."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddiseg.ingest.coded_values import parse_tone
from ddiseg.ingest.mask_files import import_masks
from ddiseg.ingest.metadata import parse_columns
from ddiseg.ingest.photographs import import_photographs
from ddiseg.outcomes import Outcome, count
from ddiseg.workspace.workspace import Workspace

DATA = Path(__file__).parents[4] / "shared" / "data"
PAD, TABLE = DATA / "pad300", DATA / "csv" / "pad_ufes_20_metadata.csv"
FITZPATRICK = DATA / "csv" / "fitzpatrick17k.csv"
SDDI = DATA / "sddi" / "ddi_labels"
COLUMNS = "image=img_id,tone=fitspatrick,diagnosis=diagnostic,patient=patient_id,lesion=lesion_id"


@pytest.mark.training
@pytest.mark.skipif(not PAD.is_dir(), reason=f"needs the photographs of {PAD}")
def test_pad300(workspace: Workspace, tmp_path: Path) -> None:
    names = sorted(p.name for p in (PAD / "images").iterdir())[:40]
    for kind in ("images", "masks"):
        (tmp_path / "pad" / kind).mkdir(parents=True)
        for name in names:
            shutil.copy(PAD / kind / name, tmp_path / "pad" / kind / name)
    arguments: dict[str, Any] = {"metadata": TABLE, "columns": parse_columns(COLUMNS)}
    done = import_photographs(workspace, tmp_path / "pad" / "images", **arguments)
    assert (done.dataset, done.rows_without_file) == ("pad", 2298 - 40)
    assert (count(done.outcomes)["added"], done.files_without_row, done.notes) == (
        40,
        [],
        [
            "malignancy from diagnosis, by PAD-UFES-20's codes: 10 malignant (BCC, MEL), "
            "30 benign (ACK, NEV, SEK), 0 unknown"
        ],
    )
    with TABLE.open() as file:
        rows = {row["img_id"]: row for row in csv.DictReader(file)}
    for image in workspace.catalogue.images.select():
        row = rows[image.name]
        assert (image.tone, image.fitzpatrick) == parse_tone(row["fitspatrick"])
        assert (image.diagnosis, image.patient, image.lesion) == (
            row["diagnostic"],
            row["patient_id"],
            row["lesion_id"],
        )
        original = Image.open(PAD / "images" / image.name).convert("RGB")
        assert np.array_equal(workspace.photograph(image), np.asarray(original))
    again = import_photographs(workspace, tmp_path / "pad" / "images", **arguments)
    assert count(again.outcomes)["unchanged"] == 40
    told = import_masks(
        workspace,
        tmp_path / "pad" / "masks",
        format_name="png",
        annotator="reader-1",
        reviewer="reader-2",
        mapping={0: 4, 255: 1},
    ).outcomes
    assert count(told)["added"] == 40
    for image_id, mask in workspace.catalogue.masks.accepted().items():
        (image,) = workspace.catalogue.images.select(ids=[image_id])
        lesion = np.asarray(Image.open(PAD / "masks" / image.name)) == 255
        assert np.array_equal(workspace.mask(mask) == 1, lesion)
        assert mask.classes == [1, 4]


@pytest.mark.slow
@pytest.mark.skipif(not FITZPATRICK.is_file(), reason=f"needs the table {FITZPATRICK}")
def test_fitzpatrick17k(workspace: Workspace, tmp_path: Path, pixels: Any) -> None:
    with FITZPATRICK.open() as file:
        rows = list(csv.DictReader(file))
    unknown = [row for row in rows if row["fitzpatrick_scale"] == "-1"]
    (tmp_path / "f17k").mkdir()
    named = rows[:20] + unknown[1:11]
    for seed, row in enumerate(named):
        Image.fromarray(pixels(seed)).save(tmp_path / "f17k" / f"{row['md5hash']}.png")
    done = import_photographs(
        workspace,
        tmp_path / "f17k",
        metadata=FITZPATRICK,
        columns=parse_columns(
            "image=md5hash,tone=fitzpatrick_scale,diagnosis=label,malignant=three_partition_label"
        ),
    )
    assert count(done.outcomes) == {"added": 30, "unchanged": 0, "repaired": 0, "refused": 0}
    assert "fitzpatrick17k.csv: 565 rows: fitzpatrick_scale '-1' read as unknown" in done.notes
    assert len(unknown) == 565
    malignant = {"malignant": True, "benign": False, "non-neoplastic": None}
    by_name = {row["md5hash"]: row for row in named}
    for image in workspace.catalogue.images.select():
        row = by_name[Path(image.name).stem]
        tone = int(row["fitzpatrick_scale"])
        assert image.fitzpatrick == (None if tone == -1 else tone)
        assert image.malignant is malignant[row["three_partition_label"]]


@pytest.mark.training
@pytest.mark.skipif(not SDDI.is_dir(), reason=f"needs the masks of {SDDI}")
def test_sddi(workspace: Workspace, tmp_path: Path, pixels: Any) -> None:
    stems = sorted({p.stem for p in SDDI.rglob("*.npy")})
    (tmp_path / "DDI").mkdir()
    for i, stem in enumerate(stems):
        Image.fromarray(pixels(i, 20 + i % 31, 20 + i % 17)).save(tmp_path / "DDI" / f"{stem}.png")
    import_photographs(workspace, tmp_path / "DDI")
    arguments: dict[str, Any] = {"format_name": "sddi", "annotator": "FEDD authors"}
    told = import_masks(workspace, SDDI, **arguments).outcomes
    assert count(told) == {"added": 333, "unchanged": 289, "repaired": 0, "refused": 0}
    repeats = [o for o in told if o.outcome is Outcome.UNCHANGED]
    assert all(str(o.note).startswith("same mask as ") for o in repeats)
    masks = workspace.catalogue.masks.all()
    assert Counter((m.mapping, m.width, m.height) for m in masks) == {("stretched", 256, 256): 333}
    for mask in masks[::40]:
        (image,) = workspace.catalogue.images.select(ids=[mask.image_id])
        original = np.load(next(SDDI.rglob(f"{Path(image.name).stem}.npy")))
        assert np.array_equal(workspace.mask(mask), original)
        assert workspace.mask_over(image, mask).shape == (image.height, image.width)
    again = import_masks(workspace, SDDI, **arguments).outcomes
    assert count(again) == {"added": 0, "unchanged": 622, "repaired": 0, "refused": 0}
