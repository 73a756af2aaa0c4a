"""`ddiseg import` and `ddiseg masks import`: what is printed, and the exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from PIL import Image
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import Split
from ddiseg.cli.common import Group, common_options, run
from ddiseg.cli.import_ import import_
from ddiseg.cli.masks import masks
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace

COLUMNS = "image=file,tone=tone"


@dataclass(frozen=True)
class Printed:
    status: int
    out: str
    err: str


@pytest.fixture
def ddiseg(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Printed]:
    """Run a command line on the workspace."""
    monkeypatch.delenv("DDISEG_WORKSPACE", raising=False)
    group = Group(name="ddiseg", params=common_options(), commands=[import_, masks])

    def call(*args: object) -> Printed:
        capsys.readouterr()
        status = run(group, ["--workspace", str(workspace.root), *map(str, args)])
        printed = capsys.readouterr()
        return Printed(status, printed.out, printed.err)

    return call


@pytest.fixture
def photos(folder: Any, pixels: Any) -> Path:
    root: Path = folder("a.png", "b.png", "c.png")
    (root / "bad.png").write_bytes(b"x")
    Image.fromarray(pixels(0, 96, 64)).save(root / "a large.png")
    (root.parent / "table.csv").write_text(
        "file;tone\na.png;3\nb.png;12\n../x.png;1\nz.png;1\ny.png;1\n"
    )
    return root


def arguments(photos: Path) -> list[object]:
    return ["import", photos, "--metadata", photos.parent / "table.csv", "--columns", COLUMNS]


def test_import(ddiseg: Any, photos: Path, wording: SnapshotAssertion) -> None:
    done = ddiseg(*arguments(photos), "--licence", "CC BY 4.0", "--source", "a clinic")
    assert done.status == 0
    assert done.out.splitlines() == wording
    assert done.err.startswith("Importing: 5 in ")


def test_import__json(ddiseg: Any, photos: Path) -> None:
    done = ddiseg("--output", "json", *arguments(photos), "--dataset", "mine")
    said = json.loads(done.out)
    assert said["counts"] == {"added": 4, "unchanged": 0, "repaired": 0, "refused": 2}
    assert said["files"][1] == {"name": "a large.png", "outcome": "added", "note": None}
    assert said["dataset"] == "mine"
    assert said["rows_without_file"] == 2
    assert said["files_without_row"] == ["a large.png", "c.png"]
    (pair,) = said["near_duplicates"]
    assert pair.pop("correlation") > 0.9
    assert pair == {
        "images": ["a large.png", "a.png"],
        "ids": [1, 2],
        "change": "same",
        "patients": [None, None],
        "new": True,
    }


def test_import__strict(ddiseg: Any, photos: Path) -> None:
    done = ddiseg(*arguments(photos), "--strict")
    assert (done.status, done.out.splitlines()[0]) == (
        1,
        "6 files: 4 added, 0 unchanged, 0 repaired, 2 refused",
    )
    assert "Error: --strict: 2 of 6 files refused" in done.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--columns": "image=name"}, "has no column 'name'; its columns are file, tone"),
        ({"--columns": "file=image"}, "there is no key 'file'; the keys are image, tone"),
        (
            {"--metadata": "absent.csv"},
            f"metadata {Path('absent.csv').absolute()} does not exist: give the path",
        ),
    ],
)
def test_import__refused_in_one_line(
    ddiseg: Any, photos: Path, change: dict[str, str], message: str
) -> None:
    args = arguments(photos)
    for option, value in change.items():
        args[args.index(option) + 1] = value
    done = ddiseg(*args)
    assert (done.status, done.out) == (1, "")
    (error,) = [line for line in done.err.splitlines() if not line.startswith("Importing")]
    assert message in error


@pytest.mark.slow
def test_import__many_to_name(ddiseg: Any, folder: Any) -> None:
    root = folder(*(f"{i:02}.png" for i in range(25)))
    (root.parent / "table.csv").write_text("file,tone\n00.png,1\n")
    lines = ddiseg(*arguments(root)).out.splitlines()
    (named,) = [line for line in lines if "without a row in the metadata" in line]
    assert named.endswith("19.png, 20.png and 4 more; --output json lists all")


@pytest.mark.parametrize("option", ["--malignant", "--benign", "--columns", "--classes"])
def test_import__an_option_of_several_lines(ddiseg: Any, photos: Path, option: str) -> None:
    more = ("--as", "coco") if option == "--classes" else ()
    done = ddiseg("import", photos, option, "a=b\nc", *more)
    assert done.status in (1, 2)
    assert done.err.splitlines()[-1] == (
        f"Error: {option} has several lines: write it in one line, with commas between"
    )


@pytest.mark.slow
def test_import__malignant(ddiseg: Any, photos: Path) -> None:
    (photos.parent / "table.csv").write_text("file,dx\na.png,BCC\nb.png,wart\n")
    args = ["import", photos, "--metadata", photos.parent / "table.csv"]
    args += ["--columns", "image=file,diagnosis=dx"]
    assert "malignancy is not known: the diagnoses (BCC, wart) are" in ddiseg(*args).out
    done = ddiseg(*args, "--malignant", "bcc,mel", "--benign", "Wart")
    assert done.status == 0
    assert (
        "malignancy from diagnosis, by --malignant, --benign: 1 malignant (BCC), 1 benign (wart), "
        "2 unknown"
    ) in done.out.splitlines()
    assert "--malignant names mel, which is no row's diagnosis" in done.out
    wrong = ddiseg(*args, "--malignant", "BCC", "--benign", "bcc")
    assert (wrong.status, wrong.out) == (2, "")
    assert "bcc is in both --malignant and --benign: keep one of them" in wrong.err


def test_import__everything_refused(ddiseg: Any, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "bad" / name).write_bytes(b"x")
    done = ddiseg("import", tmp_path / "bad")
    assert done.status == 1
    assert done.out.splitlines()[1].startswith("  refused  2 files: not a photograph that can be")
    assert "Error: nothing was taken: 2 of 2 files refused" in done.err


@pytest.mark.slow
def test_masks_import__foreign_values(
    ddiseg: Any, photos: Path, tmp_path: Path, wording: SnapshotAssertion
) -> None:
    """All refused is a failure, and the one reason is given once, with what to type."""
    ddiseg("import", photos)
    (tmp_path / "masks").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        mask = np.zeros((16, 24), np.uint8)
        mask[4:8, : 4 + ord(name[0]) - ord("a")] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / name)
    args = ["masks", "import", tmp_path / "masks", "--annotator", "anna"]
    done = ddiseg(*args)
    assert done.status == 1
    assert done.out.splitlines() == wording
    assert "Error: nothing was taken: 3 of 3 mask files refused" in done.err
    done = ddiseg(*args, "--classes", "0=skin,255=lesion", "--output", "json")
    assert done.status == 0
    assert json.loads(done.out)["format"] == "png"


@pytest.mark.slow
def test_masks_import__other_masks_of_the_folder_hold_no_class(
    ddiseg: Any, photos: Path, tmp_path: Path, workspace: Workspace, wording: SnapshotAssertion
) -> None:
    """A mask of 0 and 255 without a lesion holds only 0: alone it would be read as background."""
    ddiseg("import", photos)
    for name, value in (("a.png", 0), ("b.png", 0), ("c.png", 255)):
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.full((16, 24), value, np.uint8)).save(tmp_path / "masks" / name)
    args = ["masks", "import", tmp_path / "masks", "--annotator", "anna", "--reviewer", "ben"]
    done = ddiseg(*args)
    assert done.status == 1
    assert done.out.splitlines() == wording
    assert "Error: nothing was taken: 3 of 3 mask files refused" in done.err
    assert not workspace.catalogue.masks.all()
    assert not workspace.store.digests(Kind.MASK)
    done = ddiseg(*args, "--classes", "0=skin,255=lesion")
    assert done.status == 0, "what was refused does not stand in the way"
    assert "3 added" in done.out


@pytest.mark.slow
def test_masks_import__only_0_and_1(ddiseg: Any, photos: Path, tmp_path: Path) -> None:
    ddiseg("import", photos)
    (tmp_path / "masks").mkdir()
    lesion = np.arange(16 * 24).reshape(16, 24) < 50
    Image.fromarray(lesion).save(tmp_path / "masks" / "a.png")  # of 1 bit
    Image.fromarray(np.zeros((16, 24), np.uint8)).save(tmp_path / "masks" / "b.png")
    two_colours = Image.fromarray(lesion.astype(np.uint8)).convert("P")
    two_colours.putpalette([0, 0, 0, 255, 0, 0])
    two_colours.putdata(lesion.astype(np.uint8).ravel().tolist())
    two_colours.save(tmp_path / "masks" / "c.png")
    note = (
        "all 3 masks hold only 0 and 1, read as background and lesion; if 0 means skin, give "
        "--classes 0=skin,1=lesion"
    )
    args = ["masks", "import", tmp_path / "masks", "--annotator", "anna"]
    done = ddiseg(*args)
    assert (done.status, done.out.splitlines()[1:]) == (0, ["no --as given: read as png", note])
    assert json.loads(ddiseg(*args, "--output", "json").out)["notes"] == [note]
    done = ddiseg(*args, "--classes", "0=skin,1=lesion", "--output", "json")
    assert json.loads(done.out)["notes"] == []


@pytest.mark.slow
def test_masks_import__none_of_the_subset(ddiseg: Any, photos: Path, workspace: Workspace) -> None:
    ddiseg("import", photos)
    (image,) = [i for i in workspace.catalogue.images.select() if i.name == "a.png"]
    workspace.catalogue.subsets.store({"few": [image.id]}, {}, "tester")
    args = ["masks", "import", photos / "b.png", "--annotator", "anna", "--subset", "few"]
    done = ddiseg(*args)
    assert (done.status, done.out) == (1, "")
    assert "no mask has the name of an image of subset 'few', of 1" in done.err


@pytest.mark.slow
def test_masks_import(
    ddiseg: Any, photos: Path, tmp_path: Path, wording: SnapshotAssertion
) -> None:
    ddiseg("import", photos)
    for path, value in (("1/a.png", 0), ("2/a.png", 0), ("1/b.png", 255), ("1/c.png", 7)):
        (tmp_path / "masks" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 24), value, np.uint8)).save(tmp_path / "masks" / path)
    args = ["masks", "import", tmp_path / "masks", "--as", "png", "--annotator", "anna"]
    classes = ["--classes", "0=skin,255=lesion"]
    done = ddiseg(*args, *classes, "--reviewer", "ben")
    assert done.status == 0
    first, *rest = done.out.splitlines()
    assert first == wording
    assert rest[0].startswith(
        "  refused  1/c.png: the class mapping (--classes) does not name value 7; "
    )
    assert rest[1] == wording
    again = ddiseg(*args, *classes, "--reviewer", "ben", "--strict", "--output", "json")
    assert again.status == 1
    assert json.loads(again.out)["counts"]["unchanged"] == 3


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--as", "png", "--annotator", "a", "--reviewer", "A"], 1, "needs a second person"),
        (["--as", "gif", "--annotator", "a"], 1, "no format called 'gif'; there are: coco, labelstudio, png, sddi"),
        (["--as", "png", "--annotator", "a", "--classes", "0=hair"], 1, "no class 'hair'; the classes are"),
        (["--as", "png"], 2, "Missing option '--annotator'"),
        (["--as", "png", "--annotator", "a", "--rest", "skin"], 2, "--rest is about files with labels"),
        (["--as", "coco", "--rest", "hair"], 1, "--rest: there is no class 'hair'; the classes are"),
        (["--as", "labelstudio", "--classes", "0"], 1, "'0' is not LABEL=CLASS"),
        (["--annotator", "a"], 1, "has no masks: there are no .json, .npy or .png files: only "),
        (["--as", "png", "--annotator", "a", "--dataset", "x"], 1, "no dataset called 'x' (there are: none yet)"),
    ],
)  # fmt: skip
def test_masks_import__refused(
    ddiseg: Any, tmp_path: Path, options: list[str], status: int, message: str
) -> None:
    done = ddiseg("masks", "import", tmp_path, *options)
    assert (done.status, done.out) == (status, "")
    assert message in done.err


def test_formats_are_completed() -> None:
    command = masks.commands["import"]
    (option,) = [p for p in command.params if p.name == "format_name"]
    for begun, formats in (("s", ["sddi"]), ("", ["coco", "labelstudio", "png", "sddi", "voc"])):
        completed = option.shell_complete(click.Context(command), begun)
        assert [item.value for item in completed] == formats


@pytest.fixture
def labels(folder: Any) -> Path:
    """A COCO file beside a.png and b.png, in which a.png has a mole."""
    root: Path = folder("a.png", "b.png", name="exported")
    (root / "labels.json").write_text(
        json.dumps(
            {
                "images": [
                    {"id": n, "file_name": name, "width": 24, "height": 16}
                    for n, name in enumerate(("a.png", "b.png", "c.png"))
                ],
                "categories": [{"id": 0, "name": "mole"}],
                "annotations": [
                    {
                        **{"id": 0, "image_id": 0, "category_id": 0, "bbox": [0, 0, 8, 8]},
                        **{"area": 32, "segmentation": [[0, 0, 8, 0, 8, 8]]},
                    }
                ],
            }
        )
    )
    return root


@pytest.mark.slow
def test_import_coco(ddiseg: Any, labels: Path) -> None:
    args = ["import", labels, "--as", "coco"]
    missing = f"  refused  c.png: is not under {labels}: give its folder with --images"
    assert ddiseg(*args).out.splitlines() == [
        "3 images: 2 added, 0 unchanged, 0 repaired, 1 refused",
        missing,
        "dataset: exported",
        "masks left in the file: 1; say who drew them with --annotator NAME to bring them too",
    ]
    unknown = ddiseg(*args, "--annotator", "reader-1")
    assert (unknown.status, unknown.out) == (1, "")
    assert "labels whose class is not known: mole; give each a class with" in unknown.err
    args += ["--annotator", "reader-1", "--reviewer", "reader-2", "--classes", "Mole=lesion"]
    args += ["--rest", "skin"]
    assert ddiseg(*args).out.splitlines() == [
        "3 images: 0 added, 2 unchanged, 0 repaired, 1 refused",
        missing,
        "dataset: exported",
        "images without annotations: 2 (no mask)",
        "1 mask: 1 added, 0 unchanged, 0 repaired, 0 refused",
    ]
    again = ddiseg(*args, "--output", "json", "--strict")
    assert again.status == 1
    assert "--strict: 1 of 4 images and masks refused" in again.err
    said = json.loads(again.out)
    assert said["counts"] == {"added": 0, "unchanged": 2, "repaired": 0, "refused": 1}
    assert said["masks"]["counts"]["unchanged"] == 1
    assert said["masks"]["files"] == [{"name": "a.png", "outcome": "unchanged", "note": None}]
    assert said["masks"]["left"] == 0
    assert said["dataset"] == "exported"


def test_import_coco__guessed(ddiseg: Any, labels: Path) -> None:
    args = ["import", labels / "labels.json", "--annotator", "reader-1", "--classes", "mole=lesion"]
    done = ddiseg(*args)
    assert done.status == 0
    assert "no --as given: read as coco" in done.out.splitlines()
    assert "1 mask: 1 added, 0 unchanged, 0 repaired, 0 refused" in done.out.splitlines()
    (labels / "labels.json").write_text("[]")
    wrong = ddiseg(*args)
    assert (wrong.status, wrong.out) == (1, "")
    assert "labels.json is no COCO file" in wrong.err


def test_import_coco__no_masks(ddiseg: Any, labels: Path, wording: SnapshotAssertion) -> None:
    document = json.loads((labels / "labels.json").read_text())
    (labels / "labels.json").write_text(json.dumps({"images": document["images"]}))
    done = ddiseg("import", labels / "labels.json", "--as", "coco", "--annotator", "reader-1")
    assert done.out.splitlines()[-1] == wording


@pytest.mark.parametrize(
    "option",
    [
        "--images x", "--annotator a", "--reviewer a", "--classes a=skin", "--rest skin",
        "--stretched",
    ],
)  # fmt: skip
def test_import__options_of_masks_need_a_file_with_masks(
    ddiseg: Any, photos: Path, option: str
) -> None:
    done = ddiseg("import", photos, *option.split())
    assert done.status == 2
    assert "use 'ddiseg import-coco', or bring masks with 'ddiseg masks import'" in done.err


@pytest.mark.slow
def test_masks_import__with_labels(ddiseg: Any, labels: Path, wording: SnapshotAssertion) -> None:
    ddiseg("import", labels)
    args = ["masks", "import", labels / "labels.json", "--as", "coco", "--classes", "mole=lesion"]
    assert "give --annotator NAME" in ddiseg(*args).err
    done = ddiseg(*args, "--annotator", "reader-1")
    assert done.out.splitlines() == wording
    cancelled = {"id": 1, "was_cancelled": True, "completed_by": 1, "result": []}
    export = labels / "export.json"
    export.write_text(
        json.dumps([{"id": 1, "data": {"image": "a.png"}, "annotations": [cancelled]}])
    )
    done = ddiseg("masks", "import", export, "--as", "labelstudio")
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines()[-1] == (
        f"Error: {export} has no masks; cancelled annotations left out; 'ddiseg skip' takes them, with a "
        "reason: 1; tasks without anything submitted: 1"
    )


def test_import__synthetic_is_what_the_user_says(
    ddiseg: Callable[..., Printed], workspace: Workspace, photos: Path
) -> None:
    said = ("--licence", "all rights surrendered", "--source", "rendered by ddiseg demo")
    assert ddiseg("import", photos, "--dataset", "clinic", *said).status == 0
    assert not any(d.synthetic for d in workspace.catalogue.images.datasets())
    result = ddiseg("import", photos, "--dataset", "clinic", *said, "--synthetic")
    assert result.status == 1
    assert result.err.startswith("Error: dataset 'clinic' holds images that are not synthetic")


def test_import__more_synthetic_images(
    ddiseg: Callable[..., Printed], workspace: Workspace, photos: Path
) -> None:
    words = ("import", photos, "--dataset", "phantoms")
    assert ddiseg(*words, "--synthetic").status == 0
    assert [d.synthetic for d in workspace.catalogue.images.datasets()] == [True]
    assert "5 files: 0 added, 4 unchanged" in ddiseg(*words, "--synthetic").out
    result = ddiseg(*words)
    assert result.status == 1
    assert "add --synthetic if these show no person either" in result.err


def test_masks_import__many_notes_are_counted_and_all_are_in_a_file(
    ddiseg: Any, folder: Any, tmp_path: Path, wording: SnapshotAssertion
) -> None:
    """A note that only one mask has is not buried among the same note of all others."""
    names = [f"{n:02d}.png" for n in range(30)]
    root = folder(*names)
    ddiseg("import", root)
    skin = {"category_id": 4, "segmentation": [[0, 0, 24, 0, 24, 16, 0, 16]]}
    document = {
        "images": [
            {"id": n, "file_name": name, "width": 24, "height": 16} for n, name in enumerate(names)
        ],
        "categories": [{"id": 1, "name": "lesion"}, {"id": 4, "name": "skin"}],
        "annotations": [
            each
            for n in range(30)
            for each in (
                {"id": 2 * n, "image_id": n, "bbox": [0, 0, 24, 16], "area": 384, **skin},
                {
                    **{
                        "id": 2 * n + 1,
                        "image_id": n,
                        "category_id": 1,
                        "bbox": [2, 2, 4, 4 + n % 9],
                    },
                    "segmentation": [[2, 2, 6, 2, 6, 6 + n % 9, 2, 6 + n % 9]],
                    "area": 4 * (4 + n % 9),
                },
            )
        ],
    }
    document["annotations"].append(
        {"id": 99, "image_id": 17, "category_id": 1, "bbox": [1, 1, 9, 9]}
    )
    (tmp_path / "labels.json").write_text(json.dumps(document))
    done = ddiseg("masks", "import", tmp_path / "labels.json", "--annotator", "anna")
    (listed,) = (tmp_path / "w" / "imports").iterdir()
    assert done.out.replace(listed.name, "<name>") == wording
    lines = listed.read_text().splitlines()
    assert len(lines) == 31
    assert [line for line in lines if "left out" in line] == [
        "added  17.png: annotation 99 (lesion): a box or keypoints without a segmentation: left out"
    ]


def test_import__new_patients_are_one_line_and_leaks_come_last(
    ddiseg: Any, workspace: Workspace, folder: Any
) -> None:
    root = folder(*(f"{n:02}.png" for n in range(30)))
    assert ddiseg("import", root).status == 0
    ids = [image.id for image in workspace.catalogue.images.select()]
    split = dict.fromkeys(ids[:15], Split.TRAINING) | dict.fromkeys(ids[15:], Split.HOLDOUT)
    workspace.catalogue.splits.decide(split)
    path = root.parent / "table.csv"
    path.write_text("file,p\n" + "".join(f"{n:02}.png,P{n % 15}\n" for n in range(30)))
    lines = ddiseg("import", root, "--metadata", path, "--columns", "image=file,patient=p").out
    lines = lines.splitlines()
    assert lines[1] == "  repaired  30 files: patient filled in (00.png, 01.png, 02.png, ...)"
    assert lines[2].startswith("all notes are in ")
    notes = Path(lines[2].removeprefix("all notes are in ")).read_text().splitlines()
    assert notes[0] == "repaired  00.png: corrected patient nothing -> P0"
    assert len(notes) == 30
    assert lines[-1].startswith("LEAK: ")
