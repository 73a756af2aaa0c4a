"""A damaged stored file is never used; importing again and `verify --repair` put it back."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddiseg import images
from ddiseg.errors import DamagedFileError, MissingFileError
from ddiseg.ingest.photographs import import_photographs
from ddiseg.labelstudio.media import copy_name, copy_png
from ddiseg.outcomes import Outcome
from ddiseg.release.folder import write_release
from ddiseg.release.release import Release
from ddiseg.workspace.repair import Repairs, repair
from ddiseg.workspace.store import Kind
from ddiseg.workspace.verify import verify
from ddiseg.workspace.workspace import Workspace
from tests.wording import Refusal

pytestmark = pytest.mark.slow

OTHER = images.encode_png(np.zeros((6, 8, 3), np.uint8))


@pytest.fixture
def originals(tmp_path: Path, photograph: Callable[[int], images.Photograph]) -> Path:
    folder = tmp_path / "originals"
    folder.mkdir()
    for number in (1, 2, 3):
        (folder / f"{number}.png").write_bytes(images.encode_png(photograph(number)))
    return folder


def _stored(workspace: Workspace, name: str) -> Path:
    digest = workspace.catalogue.images.find(name).content_hash
    return Path(workspace.store.path(Kind.IMAGE, digest))


def _stored_mask(workspace: Workspace) -> Path:
    digest = workspace.catalogue.masks.all()[0].content_hash
    return Path(workspace.store.path(Kind.MASK, digest))


def _repaired(workspace: Workspace, *folders: Path) -> Repairs:
    return repair(workspace, verify(workspace).problems, folders, "tester")


@pytest.mark.parametrize(
    "content", [OTHER, OTHER[:-20], b"text"], ids=["exchanged", "cut short", "text"]
)
def test_photograph__damaged_is_refused_by_name(
    filled: Workspace, content: bytes, refusal: Refusal
) -> None:
    _stored(filled, "2.png").write_bytes(content)
    with refusal(DamagedFileError):
        filled.photograph(filled.catalogue.images.find("2.png"))


def test_photograph__missing_is_refused_by_name(filled: Workspace, refusal: Refusal) -> None:
    _stored(filled, "2.png").unlink()
    with refusal(MissingFileError):
        filled.photograph(filled.catalogue.images.find("2.png"))


def test_mask__exchanged_is_refused_by_name(filled: Workspace, refusal: Refusal) -> None:
    other = filled.store_mask(np.full((6, 8), 1, np.uint8))
    shutil.copy(filled.store.path(Kind.MASK, other), _stored_mask(filled))
    with refusal(DamagedFileError):
        filled.mask(filled.catalogue.masks.all()[0])


def test_push__damaged_photograph_is_not_sent(filled: Workspace) -> None:
    _stored(filled, "2.png").write_bytes(OTHER)
    with pytest.raises(DamagedFileError):
        copy_png(filled, filled.catalogue.images.find("2.png"), 8, 6)


def test_release__damaged_photograph_is_left_out(filled: Workspace, tmp_path: Path) -> None:
    _stored(filled, "1.png").write_bytes(OTHER)
    with pytest.raises(ValueError, match=r"no image could be exported.*1.png.*shows other pixels"):
        write_release(Release.gather(filled), "png", tmp_path / "r")


@pytest.mark.parametrize("content", [None, OTHER], ids=["missing", "exchanged"])
def test_import__again_repairs_the_stored_photograph(
    workspace: Workspace, originals: Path, content: bytes | None
) -> None:
    import_photographs(workspace, originals)
    file = _stored(workspace, "2.png")
    whole = file.read_bytes()
    file.unlink() if content is None else file.write_bytes(content)
    outcomes = {o.name: o.outcome for o in import_photographs(workspace, originals).outcomes}
    assert outcomes == {
        "1.png": Outcome.UNCHANGED,
        "2.png": Outcome.REPAIRED,
        "3.png": Outcome.UNCHANGED,
    }
    assert file.read_bytes() == whole
    assert verify(workspace).problems == []


def test_store_mask__again_repairs_it(filled: Workspace) -> None:
    row = filled.catalogue.masks.all()[0]
    mask = filled.mask(row)
    _stored_mask(filled).write_bytes(b"damaged")
    filled.store_mask(mask)
    assert np.array_equal(filled.mask(row), mask)


@pytest.mark.parametrize("content", [None, OTHER], ids=["missing", "exchanged"])
def test_repair__photograph_from_its_original(
    filled: Workspace, originals: Path, content: bytes | None
) -> None:
    file = _stored(filled, "2.png")
    file.unlink() if content is None else file.write_bytes(content)
    done = _repaired(filled, originals)
    assert (len(done.repaired), done.left) == (1, [])
    assert done.repaired[0].endswith(f"put back from {originals / '2.png'}")
    assert verify(filled).problems == []


def test_repair__file_of_the_same_name_with_other_pixels_is_not_taken(
    filled: Workspace, originals: Path
) -> None:
    _stored(filled, "2.png").unlink()
    (originals / "2.png").write_bytes(OTHER)
    done = _repaired(filled, originals)
    assert (done.repaired, len(done.left)) == ([], 1)


def test_repair__all_kinds_from_a_copy_of_the_store(filled: Workspace, tmp_path: Path) -> None:
    model = b"probes"
    filled.store.put(Kind.MODEL, hashlib.sha256(model).hexdigest(), model)
    shutil.copytree(filled.root / "store", tmp_path / "copy")
    _stored(filled, "1.png").write_bytes(OTHER)
    _stored_mask(filled).unlink()
    assert len(verify(filled).problems) == 2
    assert _repaired(filled, tmp_path / "copy").left == []
    assert verify(filled).problems == []


def test_repair__mask_from_a_release(filled: Workspace, tmp_path: Path) -> None:
    write_release(Release.gather(filled), "png", tmp_path / "r")
    _stored_mask(filled).unlink()
    assert _repaired(filled, tmp_path / "r").left == []


def test_repair__photograph_from_the_copy_of_a_label_studio(
    filled: Workspace, tmp_path: Path
) -> None:
    image = filled.catalogue.images.find("1.png")
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / copy_name(image, 8, 6)).write_bytes(copy_png(filled, image, 8, 6))
    _stored(filled, "1.png").unlink()
    assert _repaired(filled, tmp_path / "media").left == []


def test_repair__photograph_in_place_that_was_moved(workspace: Workspace, originals: Path) -> None:
    import_photographs(workspace, originals, in_place=True)
    moved = originals.rename(originals.with_name("moved"))
    assert len(_repaired(workspace).left) == 3
    assert _repaired(workspace, moved).left == []
    assert workspace.catalogue.images.find("2.png").in_place == str(moved / "2.png")
    assert verify(workspace).problems == []


def test_repair__nothing_found_changes_nothing(filled: Workspace) -> None:
    _stored(filled, "2.png").write_bytes(OTHER)
    done = _repaired(filled)
    assert (done.repaired, len(done.left)) == ([], 1)
    assert _stored(filled, "2.png").read_bytes() == OTHER


def test_repair__state_without_its_event_is_left(filled: Workspace) -> None:
    from tests.ddiseg.workspace.test_verify import _sql

    _sql("UPDATE images SET state = 'queued' WHERE id = 2")(filled)
    done = _repaired(filled)
    assert (done.repaired, len(done.left)) == ([], 1)
