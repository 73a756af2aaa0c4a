"""Which format a file or folder of masks has, where nobody says it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ddiseg.errors import InputError
from ddiseg.formats import LABELLED_MASKS, MASKS, guess_format

COCO: Any = {"images": [], "annotations": []}
TASKS: Any = [{"id": 1, "data": {"image": "a.png"}, "annotations": []}]


def make(folder: Path, *names: str, **documents: Any) -> Path:
    """A folder with empty files, and JSON files by their names without ending."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("pngs", "png"),
        ("pngs/sub/a.PNG", "png"),
        ("jpgs", "png"),
        ("jpgs/a.jpg", "png"),
        ("npys", "sddi"),
        ("npys/a.npy", "sddi"),
        ("jsons/coco.json", "coco"),
        ("jsons/tasks.json", "labelstudio"),
        ("jsons", "coco"),
    ],
)
def test_guess__the_only_one_that_fits(tmp_path: Path, path: str, expected: str) -> None:
    make(tmp_path / "pngs", "sub/a.PNG", "classes.json")
    make(tmp_path / "jpgs", "a.jpg", "sub/b.JPG")
    make(tmp_path / "npys", "a.npy")
    make(tmp_path / "jsons", "read me.txt", coco=COCO, tasks=TASKS)
    assert guess_format(tmp_path / path, MASKS, LABELLED_MASKS) == expected


@pytest.mark.parametrize(
    ("names", "documents", "says"),
    [
        ([], {"other": {"images": 3}}, "fits no format"),
        (["a.png", "b.npy"], {}, "fits png and sddi"),
        (["images/a.png"], {"annotations": COCO}, "fits coco and png"),
    ],
)
def test_guess__none_or_several_are_listed(
    tmp_path: Path, names: list[str], documents: dict[str, Any], says: str
) -> None:
    folder = make(tmp_path, *names, **documents)
    with pytest.raises(InputError) as raised:
        guess_format(folder, MASKS, LABELLED_MASKS)
    first, *listed = str(raised.value).splitlines()
    assert first == f"{folder} {says}; give its format with --as FORMAT:"
    assert [line.split()[0] for line in listed] == ["coco", "labelstudio", "png", "sddi", "voc"]
    assert all(len(line.split()) > 5 for line in listed), "each has a line that describes it"


@pytest.mark.parametrize(
    ("names", "there"),
    [
        ([], "the folder is empty"),
        (["a.txt", "b.TXT", "sub/c.pdf"], "only 2 .txt, 1 .pdf"),
        (["a.1", "a.2", "a.3", "a.4", ".hidden"], "only 1 .1, 1 .2, 1 .3, ..."),
    ],
)
def test_guess__no_file_that_any_format_reads(tmp_path: Path, names: list[str], there: str) -> None:
    folder = make(tmp_path / "masks", *names)
    folder.mkdir(exist_ok=True)
    advice = "give the folder of the masks, or save them as such files"
    with pytest.raises(InputError) as raised:
        guess_format(folder, MASKS)
    says = f"{folder} has no masks: there are no .npy or .png files: {there}; {advice}"
    assert str(raised.value) == says
    for name in names[:1]:
        with pytest.raises(InputError) as raised:
            guess_format(folder / name, MASKS, LABELLED_MASKS)
        says = f"{folder / name} is no .json, .npy or .png file; {advice}"
        assert str(raised.value) == says


def test_guess__only_among_the_groups_asked_for(tmp_path: Path) -> None:
    folder = make(tmp_path, "images/a.png", annotations=COCO)
    assert guess_format(folder, MASKS) == "png"


def test_guess__no_such_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as raised:
        guess_format(Path("absent"), MASKS)
    assert str(raised.value) == f"{tmp_path / 'absent'} does not exist"
