"""Workspaces: made once, found again from anywhere, and honest about what is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ddiseg import images
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.locate import SETTINGS
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace, default_actor
from tests.ddiseg.rows import new_image
from tests.wording import Refusal


@pytest.mark.slow
@pytest.mark.parametrize("name", ["w", "two words", "what?", "50%20off", "a#b", "[1]", "ü\"'\\"])
def test_create_and_open__any_folder_name(tmp_path: Path, name: str) -> None:
    made = Workspace.create(tmp_path / name / "deeper")
    made.catalogue.images.dataset("clinic")
    made.store.put(Kind.IMAGE, "ab" * 32, b"pixels")
    made.catalogue.close()
    opened = Workspace.open(tmp_path / name / "deeper")
    assert [d.name for d in opened.catalogue.images.datasets()] == ["clinic"]
    assert opened.store.get(Kind.IMAGE, "ab" * 32) == b"pixels"
    opened.catalogue.close()
    here = {p.name.split("-")[0] for p in (tmp_path / name / "deeper").iterdir()}
    assert here == {SETTINGS, "catalogue.sqlite", "store"}


def test_create__again_keeps_everything(filled: Workspace) -> None:
    before = (filled.root / SETTINGS).read_text()
    again = Workspace.create(filled.root)
    assert len(again.catalogue.images.select()) == 3
    assert (filled.root / SETTINGS).read_text() == before
    again.catalogue.close()


@pytest.mark.slow
def test_create__places_of_ones_own_are_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = Workspace.create(Path("w"), catalogue_url="sqlite:///rows.sqlite", store_url="files")
    made.store.put(Kind.IMAGE, "ab" * 32, b"pixels")
    made.catalogue.images.dataset("clinic")
    made.catalogue.close()
    monkeypatch.chdir("/")
    opened = Workspace.open(tmp_path / "w")
    assert opened.store.get(Kind.IMAGE, "ab" * 32) == b"pixels"
    assert len(opened.catalogue.images.datasets()) == 1
    opened.catalogue.close()
    assert sorted(p.name for p in (tmp_path / "w").iterdir()) == [SETTINGS]


@pytest.mark.slow
@pytest.mark.parametrize(
    "places",
    [
        {"catalogue_url": "nonsense"},
        {"catalogue_url": "sqlite://"},
        {"catalogue_url": "sqlite:///:memory:"},
        {"catalogue_url": "sqlite:////no/such/folder/x"},
        {"store_url": "files\udcff"},
        {"store_url": "nosuch://bucket"},
    ],
)
def test_create__unusable_place_leaves_no_settings(
    tmp_path: Path, places: dict[str, str], refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a relative place is told as an absolute one
    with refusal(WorkspaceError):
        Workspace.create(tmp_path / "w", **places)
    Workspace.create(tmp_path / "w").catalogue.close()  # so that the right place can be given now


@pytest.mark.parametrize(
    "places", [{"catalogue_url": "sqlite:////elsewhere.sqlite"}, {"store_url": "s3://other"}]
)
def test_create__other_places_than_it_has(
    workspace: Workspace, places: dict[str, str], refusal: Refusal
) -> None:
    with refusal(WorkspaceError):
        Workspace.create(workspace.root, **places)


@pytest.mark.parametrize("at", ["w", "w/deeper"])
def test_create__a_file_is_in_the_way(tmp_path: Path, at: str) -> None:
    (tmp_path / "w").write_text("in the way")
    said = (
        r"can't become a workspace: (File exists|Not a dir.*); give a folder that you can write to"
    )
    with pytest.raises(WorkspaceError, match=said):
        Workspace.create(tmp_path / at)


def test_open__no_workspace(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=rf"{tmp_path} is no workspace: it has no ddiseg"):
        Workspace.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("work", [Workspace.open, Workspace.create])
@pytest.mark.parametrize("state", ["missing", "empty"])
@pytest.mark.parametrize("named", [False, True])
def test_catalogue_is_lost__is_never_replaced_by_an_empty_one(
    tmp_path: Path, work: Callable[[Path], Workspace], state: str, named: bool
) -> None:
    root = tmp_path / "w"
    file = tmp_path / "rows.sqlite" if named else root / "catalogue.sqlite"
    Workspace.create(root, f"sqlite:///{file}" if named else None).catalogue.close()
    for each in file.parent.glob(f"{file.name}*"):
        each.unlink()
    if state == "empty":
        file.touch()
    with pytest.raises(WorkspaceError) as error:
        work(root)
    assert str(error.value) == (
        f"the catalogue of this workspace is lost, {file} is {state}: there is no backup in "
        f"{root / 'backups'}: 'ddiseg restore FILE' takes one from elsewhere, or move {file.name} back "
        "from where it was moved to; to begin anew, move ddiseg.toml and store away and run 'ddiseg init'"
    )
    assert (file.stat().st_size if file.exists() else None) == (0 if state == "empty" else None)


@pytest.mark.slow
def test_create__stopped_before_the_settings_were_written_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ddiseg.workspace.workspace.os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            Workspace.create(tmp_path / "w")
    assert (tmp_path / "w" / "catalogue.sqlite").exists(), "the settings come after the catalogue"
    assert not (tmp_path / "w" / SETTINGS).exists()
    Workspace.create(tmp_path / "w").catalogue.close()


@pytest.mark.parametrize("link", ["w", f"w/{SETTINGS}"])
def test_create__a_link_that_leads_nowhere_is_kept(
    tmp_path: Path, link: str, refusal: Refusal
) -> None:
    path = tmp_path / link
    path.parent.mkdir(exist_ok=True)
    path.symlink_to("gone")
    with pytest.raises(WorkspaceError) as error:
        Workspace.create(tmp_path / "w")
    assert str(error.value) == (
        f"{path} is a link to gone, which does not exist: restore its target, or remove the link"
    )
    assert path.is_symlink()
    if link != "w":
        with refusal(WorkspaceError):
            Workspace.open(tmp_path / "w")


@pytest.mark.parametrize("made", [True, False])
def test_create__a_folder_where_the_catalogue_belongs(tmp_path: Path, made: bool) -> None:
    file = tmp_path / "w" / "catalogue.sqlite"
    file.mkdir(parents=True)
    if made:
        (tmp_path / "w" / SETTINGS).touch()
    with pytest.raises(WorkspaceError) as error:
        Workspace.create(tmp_path / "w")
    assert str(error.value) == (
        f"{file} is a folder, and the catalogue is a file: move that folder away, and restore "
        "catalogue.sqlite from a backup if there was one"
    )


@pytest.mark.parametrize("work", [Workspace.open, Workspace.create])
def test_a_folder_where_the_settings_belong(
    tmp_path: Path, work: Callable[[Path], Workspace]
) -> None:
    (tmp_path / SETTINGS).mkdir()
    with pytest.raises(WorkspaceError) as error:
        work(tmp_path)
    assert str(error.value) == (
        f"{tmp_path / SETTINGS} is a folder, and the settings of a workspace are a file: move that "
        "folder away, and restore ddiseg.toml from a backup"
    )


@pytest.mark.slow
def test_create__home_folder_in_the_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    made = Workspace.create(tmp_path / "w", "sqlite:///~/rows.sqlite", "~/files")
    made.store.put(Kind.IMAGE, "ab" * 32, b"pixels")
    made.catalogue.close()
    assert {"rows.sqlite", "files"} <= {p.name for p in (tmp_path / "home").iterdir()}
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    "content", [b"catalogue = ", b"\xff\xfe", b"catalogue = 3", b"colour = 'red'\nstore = ''"]
)
def test_open__unreadable_settings(workspace: Workspace, content: bytes, refusal: Refusal) -> None:
    (workspace.root / SETTINGS).write_bytes(content)
    with refusal(WorkspaceError):
        Workspace.open(workspace.root)


def test_photograph_and_mask__round_trip(
    filled: Workspace, photograph: Callable[[int], images.Photograph]
) -> None:
    image = filled.catalogue.images.find("1.png")
    assert np.array_equal(filled.photograph(image), photograph(1))
    mask = filled.catalogue.masks.accepted()[image.id]
    assert np.unique(filled.mask(mask)).tolist() == [1, 4]
    assert np.array_equal(filled.mask_over(image, mask), filled.mask(mask))


@pytest.mark.slow
def test_mask_over__stretched_back(filled: Workspace) -> None:
    image = filled.catalogue.images.find("1.png")
    mask = filled.catalogue.masks.accepted()[1]
    mask.content_hash = filled.store_mask(np.array([[1, 4], [4, 2]], np.uint8))
    over = filled.mask_over(image, mask)
    assert over.shape == (image.height, image.width)
    assert over[0, 0] == 1
    assert over[-1, -1] == 2


@pytest.fixture
def in_place(
    workspace: Workspace,
    tmp_path: Path,
    photograph: Callable[[int], images.Photograph],
) -> Path:
    """A photograph outside the workspace, catalogued as 000001.png."""
    path = tmp_path / "000001.png"
    path.write_bytes(images.encode_png(photograph(1)))
    digest = images.content_hash(photograph(1))
    row = replace(new_image(1), content_hash=digest, in_place=str(path))
    dataset = workspace.catalogue.images.dataset("clinic")
    workspace.catalogue.images.add(dataset.id, [row], "tester")
    return path


def test_photograph__in_place(
    workspace: Workspace,
    in_place: Path,
    photograph: Callable[[int], images.Photograph],
    refusal: Refusal,
) -> None:
    image = workspace.catalogue.images.find("000001")
    assert np.array_equal(workspace.photograph(image), photograph(1))
    in_place.write_bytes(images.encode_png(photograph(2)))
    with refusal(InputError):
        workspace.photograph(image)
    in_place.unlink()
    with refusal(WorkspaceError):
        workspace.photograph(image)


def test_default_actor__environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDISEG_ACTOR", "anna")
    assert default_actor() == "anna"
    monkeypatch.delenv("DDISEG_ACTOR")
    assert default_actor()
