"""Pairs that an import confirms, their groups, and images that an older program imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from sqlalchemy import delete, update

from ddiseg.catalogue import tables
from ddiseg.ingest import near_duplicates
from ddiseg.ingest.near_duplicates import NearDuplicateSearch
from ddiseg.ingest.photographs import import_photographs
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.test_near_duplicates import cropped, lesion

pytestmark = pytest.mark.both_databases


def groups(workspace: Workspace) -> dict[str, int | None]:
    return {image.name: image.near_group for image in workspace.catalogue.images.select()}


def save(root: Path, **pictures: Image.Image) -> Path:
    root.mkdir(exist_ok=True)
    for name, picture in pictures.items():
        picture.save(root / f"{name}.png")
    return root


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """a and c are one picture, b another."""
    a, b = lesion(0), lesion(1)
    return save(tmp_path / "p", a=a, b=b, c=ImageOps.mirror(a))


def test_import__groups(workspace: Workspace, copies: Path) -> None:
    done = import_photographs(workspace, copies)
    assert [(p.names, p.change, p.new) for p in done.near_duplicates] == [
        (("a.png", "c.png"), "turned", True)
    ]
    assert groups(workspace) == {"a.png": 1, "b.png": 2, "c.png": 1}


def test_import__later_ones_join_groups(workspace: Workspace, copies: Path, tmp_path: Path) -> None:
    import_photographs(workspace, copies)
    more = save(
        tmp_path / "more",
        d=cropped(lesion(0), 0.05, 0.05, 0.05, 0.05),
        e=lesion(2),
        f=lesion(1).resize((90, 90)),
        g=lesion(2).rotate(90),
    )
    done = import_photographs(workspace, more)
    assert groups(workspace) == {
        **{"a.png": 1, "b.png": 2, "c.png": 1},
        **{"d.png": 1, "e.png": 5, "f.png": 2, "g.png": 5},
    }
    assert {p.names for p in done.near_duplicates if p.new} == {
        ("a.png", "d.png"), ("c.png", "d.png"), ("b.png", "f.png"), ("e.png", "g.png"),
    }  # fmt: skip
    assert import_photographs(workspace, more).near_duplicates[0].new is False


@pytest.mark.parametrize("batch", [1, 2, 256])
def test_link__in_transactions_of_any_size(
    workspace: Workspace, copies: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_duplicates, "BATCH", batch)
    save(copies, d=lesion(0).rotate(180), e=lesion(0).resize((80, 80)))
    import_photographs(workspace, copies)
    assert groups(workspace) == {"a.png": 1, "b.png": 2, "c.png": 1, "d.png": 1, "e.png": 1}
    assert len(workspace.catalogue.near_duplicates.pairs()) == 6


def test_link__a_newcomer_joins_two_groups(workspace: Workspace) -> None:
    catalogue = workspace.catalogue
    from tests.ddiseg.rows import new_image

    dataset = catalogue.images.dataset("d")
    catalogue.images.add(dataset.id, [new_image(n) for n in range(1, 5)], "me")
    pair = near_duplicates.ConfirmedPair
    catalogue.near_duplicates.add([1, 2], [])
    catalogue.near_duplicates.add([3, 4], [pair(2, 3, 0.9, "same"), pair(3, 4, 0.9, "same")])
    assert [i.near_group for i in catalogue.images.select()] == [1, 2, 2, 2]
    catalogue.images.add(dataset.id, [new_image(5)], "me")
    catalogue.near_duplicates.add([5], [pair(1, 5, 0.9, "same"), pair(4, 5, 0.9, "same")])
    assert [i.near_group for i in catalogue.images.select()] == [1, 1, 1, 1, 1]


def test_import__images_of_an_older_program_are_compared(
    workspace: Workspace, copies: Path
) -> None:
    import_photographs(workspace, copies)
    with workspace.catalogue._database.write() as session:
        for table in (tables.Thumbnail, tables.NearDuplicate):
            session.execute(delete(table))
        session.execute(update(tables.Image).values(near_group=None))
    (second,) = [i for i in workspace.catalogue.images.select() if i.name == "b.png"]
    lost = Path(workspace.store.path(Kind.IMAGE, second.content_hash))
    data = lost.read_bytes()
    lost.unlink()
    NearDuplicateSearch(workspace).link_all()
    assert groups(workspace) == {"a.png": 1, "b.png": None, "c.png": 1}
    lost.write_bytes(data)
    NearDuplicateSearch(workspace).link_all()
    assert groups(workspace) == {"a.png": 1, "b.png": 2, "c.png": 1}


def test_import__one_picture_of_two_patients(
    workspace: Workspace, copies: Path, tmp_path: Path
) -> None:
    (tmp_path / "m.csv").write_text("file,patient\na,P1\nb,P2\nc,P3\n")
    from ddiseg.ingest.metadata import Key

    columns: dict[Any, str] = {Key.IMAGE: "file", Key.PATIENT: "patient"}
    done = import_photographs(workspace, copies, metadata=tmp_path / "m.csv", columns=columns)
    assert [p.patients for p in done.near_duplicates] == [("P1", "P3")]


def test_import__blank_photographs_are_no_pairs(workspace: Workspace, tmp_path: Path) -> None:
    blank = [Image.fromarray(np.full((40, 40, 3), grey, np.uint8)) for grey in (0, 90, 255)]
    root = save(tmp_path / "p", a=blank[0], b=blank[1], c=blank[2])
    assert import_photographs(workspace, root).near_duplicates == []
