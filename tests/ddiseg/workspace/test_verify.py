"""Every kind of damage is found, told in one line, and left as it is."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from ddiseg import images, masks
from ddiseg.catalogue import NewModelVersion
from ddiseg.catalogue.evaluations import Compared
from ddiseg.workspace.store import Kind
from ddiseg.workspace.verify import Findings, Part, verify
from ddiseg.workspace.workspace import Workspace

Damage = Callable[[Workspace], None]
MODEL = b"probes"
MODEL_HASH = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture
def whole(filled: Workspace) -> Workspace:
    """Three photographs, a mask and a model."""
    filled.store.put(Kind.MODEL, MODEL_HASH, MODEL)
    filled.catalogue.models.add(
        NewModelVersion(MODEL_HASH, "unet", "b", {}, [], {}, "1.0"), "tester"
    )
    return filled


def _file(workspace: Workspace, kind: Kind) -> Path:
    """The file of the image 1.png, of its mask or of the model."""
    digest = {
        Kind.IMAGE: workspace.catalogue.images.find("1.png").content_hash,
        Kind.MASK: workspace.catalogue.masks.all()[0].content_hash,
        Kind.MODEL: MODEL_HASH,
    }[kind]
    return Path(workspace.store.path(kind, digest))


def _remove(kind: Kind) -> Damage:
    return lambda workspace: _file(workspace, kind).unlink()


def _write(kind: Kind, content: bytes) -> Damage:
    def damage(workspace: Workspace) -> None:
        _file(workspace, kind).write_bytes(content)

    return damage


def _truncate(kind: Kind) -> Damage:
    def damage(workspace: Workspace) -> None:
        path = _file(workspace, kind)
        path.write_bytes(path.read_bytes()[:-60])

    return damage


def _sql(statement: str) -> Damage:
    def damage(workspace: Workspace) -> None:
        with closing(sqlite3.connect(workspace.root / "catalogue.sqlite")) as connection:
            connection.execute(statement)
            connection.commit()

    return damage


def _evaluate(workspace: Workspace) -> str:
    """Compare 1.png with a truth of its own; returns the truth's content hash."""
    mask = workspace.catalogue.masks.all()[0]  # stands for a prediction
    digest = workspace.store_mask(np.full((6, 8), 1, np.uint8))
    workspace.catalogue.evaluations.add({}, [Compared(1, mask.id, digest, None)], "tester")
    return digest


def _truth(content: bytes | None) -> Damage:
    def damage(workspace: Workspace) -> None:
        path = Path(workspace.store.path(Kind.MASK, _evaluate(workspace)))
        path.unlink() if content is None else path.write_bytes(content)

    return damage


def _mask(value: int) -> bytes:
    palette = [(n, n, n) for n in range(256)]
    return masks.encode_png(np.full((6, 8), value, np.uint8), palette)


DAMAGE: dict[str, tuple[Damage, Part, str]] = {
    "image missing": (
        _remove(Kind.IMAGE),
        Part.IMAGE,
        r"^1\.png \(#1\): .*\.png is missing; import the original again$",
    ),
    "image truncated": (
        _truncate(Kind.IMAGE),
        Part.IMAGE,
        r"^1\.png \(#1\): the stored file is .*; import the original again$",
    ),
    "image emptied": (
        _write(Kind.IMAGE, b""),
        Part.IMAGE,
        r"^1\.png \(#1\): the stored file is empty; import the original again$",
    ),
    "image is no image": (
        _write(Kind.IMAGE, b"text"),
        Part.IMAGE,
        r"^1\.png \(#1\): the stored file is not a photograph that can be read",
    ),
    "image shows something else": (
        _write(Kind.IMAGE, images.encode_png(np.zeros((6, 8, 3), np.uint8))),
        Part.IMAGE,
        r"^1\.png \(#1\): the stored file shows other pixels; import the original again$",
    ),
    "image of another size than its row": (
        _sql("UPDATE images SET width = 9 WHERE id = 3"),
        Part.IMAGE,
        r"^3\.png \(#3\): the catalogue says 9 x 6 pixels, the file has 8 x 6; restore the cat",
    ),
    "in-place photograph gone": (
        _sql("UPDATE images SET in_place = '/no/such/3.png' WHERE id = 3"),
        Part.IMAGE,
        r"^3\.png: /no/such/3\.png can't be read .*; put the file back as it was$",
    ),
    "mask missing": (
        _remove(Kind.MASK),
        Part.MASK,
        r"^mask of 1\.png by anna: .*\.png is missing; restore it from a backup",
    ),
    "truth missing": (
        _truth(None),
        Part.TRUTH,
        r"^true mask of 1\.png: .*\.png is missing; restore the file .*'ddiseg evaluate' with",
    ),
    "truth holds other pixels": (
        _truth(_mask(2)),
        Part.TRUTH,
        r"^true mask of 1\.png: the stored file holds other pixels; restore the file from a back",
    ),
    "mask truncated": (
        _truncate(Kind.MASK),
        Part.MASK,
        r"^mask of 1\.png by anna: the stored file is damaged \(mask PNG is truncated or corrupt",
    ),
    "mask holds other pixels": (
        _write(Kind.MASK, _mask(1)),
        Part.MASK,
        r"^mask of 1\.png by anna: the stored file holds other pixels",
    ),
    "mask holds no class": (
        _write(Kind.MASK, _mask(7)),
        Part.MASK,
        r"^mask of 1\.png by anna: the stored file is damaged \(mask value 7 is no class; values seen: 7\); restore",
    ),
    "mask of another size than its row": (
        _sql("UPDATE masks SET height = 5, mapping = 'stretched'"),
        Part.MASK,
        r"^mask of 1\.png by anna: the catalogue says 8 x 5 pixels, the file has 8 x 6",
    ),
    "model missing": (
        _remove(Kind.MODEL),
        Part.MODEL,
        r"^model fedd-1: .*\.safetensors is missing; restore it from a backup, or run 'ddiseg ref",
    ),
    "model changed": (
        _write(Kind.MODEL, b"prober"),
        Part.MODEL,
        r"^model fedd-1: the stored file was changed; restore it",
    ),
    "state without its event": (
        _sql("UPDATE images SET state = 'queued' WHERE id = 2"),
        Part.HISTORY,
        r"^2\.png \(#2\) is queued, its events end at new$",
    ),
}


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted((folder / "store").rglob("*")) if p.is_file()}


@pytest.mark.slow
def test_verify__whole(whole: Workspace) -> None:
    seen: list[tuple[int, int]] = []
    findings = verify(whole, lambda done, total: seen.append((done, total)))
    assert findings == Findings(
        checked={"images": 3, "masks": 1, "models": 1},
        orphans={"images": 0, "masks": 0, "models": 0, "temporary": 0},
        problems=[],
    )
    assert seen == [(n, 5) for n in range(1, 6)]


def test_verify__empty(workspace: Workspace) -> None:
    assert verify(workspace).problems == []


@pytest.mark.slow
def test_verify__truths_are_files_that_a_row_names(whole: Workspace) -> None:
    accepted = whole.catalogue.masks.all()[0]
    _evaluate(whole)
    again = Compared(1, accepted.id, accepted.content_hash, 1.0)
    whole.catalogue.evaluations.add({}, [again], "tester")
    findings = verify(whole)
    assert findings.problems == []
    assert (findings.checked["masks"], findings.orphans["masks"]) == (2, 0)


@pytest.mark.slow
@pytest.mark.parametrize("case", DAMAGE)
def test_verify__damage(whole: Workspace, case: str) -> None:
    damage, part, line = DAMAGE[case]
    damage(whole)
    before = _tree(whole.root)
    [problem] = verify(whole).problems
    assert problem.part is part
    assert "\n" not in problem.line
    assert re.search(line, problem.line), problem.line
    assert _tree(whole.root) == before


@pytest.mark.slow
def test_verify__all_damage_at_once(whole: Workspace) -> None:
    for case in ("image missing", "mask truncated", "model changed", "state without its event"):
        DAMAGE[case][0](whole)
    parts = [problem.part for problem in verify(whole).problems]
    assert parts == [Part.IMAGE, Part.MASK, Part.MODEL, Part.HISTORY]


@pytest.mark.slow
def test_verify__mask_of_another_size_than_its_image(whole: Workspace) -> None:
    image = whole.catalogue.images.find("1.png")
    small = np.full((3, 4), 1, np.uint8)
    digest = whole.store_mask(small)
    _sql(f"UPDATE masks SET content_hash = '{digest}', height = 3, width = 4")(whole)
    [problem] = verify(whole).problems
    assert f"the catalogue says {image.width} x {image.height}" in problem.line
    _sql("UPDATE masks SET mapping = 'stretched'")(whole)
    assert verify(whole).problems == []


@pytest.mark.slow
def test_verify__one_file_of_two_rows_is_told_with_both(whole: Workspace) -> None:
    _sql(
        "INSERT INTO masks SELECT 2, 2, content_hash, width, height, mapping, classes, 'carl',"
        " NULL, NULL, protocol_version, NULL, NULL, 0, false, created_at, NULL, NULL FROM masks"
    )(whole)
    _remove(Kind.MASK)(whole)
    [problem] = verify(whole).problems
    assert problem.line.startswith("mask of 1.png by anna, 2.png by carl: ")


def test_verify__unlabelled_pixels_that_the_file_does_not_have(whole: Workspace) -> None:
    _sql("UPDATE masks SET unlabelled = 3")(whole)
    [problem] = verify(whole).problems
    assert "the catalogue says 3 unlabelled pixels, the file has 0" in problem.line


def test_verify__in_place_photograph_changed(whole: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "3.png"
    path.write_bytes(_file(whole, Kind.IMAGE).read_bytes())
    _sql(f"UPDATE images SET in_place = '{path}' WHERE id = 1")(whole)
    _remove(Kind.IMAGE)(whole)
    assert verify(whole).problems == []
    path.write_bytes(images.encode_png(np.zeros((6, 8, 3), np.uint8)))
    [problem] = verify(whole).problems
    assert "was changed after it was imported --in-place; put the file back" in problem.line


def test_verify__orphans_are_counted_and_harmless(whole: Workspace) -> None:
    whole.store.put(Kind.IMAGE, "ab" * 32, b"left by a stopped import")
    whole.store.put(Kind.MASK, "cd" * 32, b"left by a stopped import")
    Path(whole.store.path(Kind.MASK, "cd" * 32)).with_name(".0123.part").write_bytes(b"left")
    findings = verify(whole)
    assert findings.orphans == {"images": 1, "masks": 1, "models": 0, "temporary": 1}
    assert findings.problems == []
