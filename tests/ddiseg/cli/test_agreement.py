"""`ddiseg agreement`: what it prints of two readings that came back from a labelling server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import AnnotationPage, AnnotationVersion, Arm, NewMask, NewTask, Purpose
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.conftest import HEIGHT, WIDTH

Run = Callable[..., Any]

LESION, SKIN = 1, 4
READERS = ("annotator-1", "annotator-2")


@pytest.fixture
def here(ddiseg: Run, filled: Workspace) -> Run:
    """here("agreement"): a command line in the workspace `filled`."""
    return lambda *args: ddiseg("--workspace", filled.root, *args)


@pytest.fixture
def read_twice(filled: Workspace) -> Workspace:
    """2.png and 3.png, each read by READERS: agreed about the one, half agreed about the other."""
    labelling = filled.catalogue.tasks
    project = labelling.project("http://labels.example", Purpose.ANNOTATION).id
    batch = [NewTask(f"image {n}", n, None, Arm.BARE, WIDTH, HEIGHT, readers=2) for n in (2, 3)]
    labelling.plan(project, batch, "manager", {})
    tasks = {task.image_id: task.id for task in labelling.tasks(project)}
    labelling.sent({task: 100 + task for task in tasks.values()}, "manager", start=True)
    received = []
    for image_id, lefts in {2: (2, 2), 3: (2, 4)}.items():
        for reader, left in zip(READERS, lefts, strict=True):
            mask = np.full((HEIGHT, WIDTH), SKIN, np.uint8)
            mask[2:4, left : left + 4] = LESION
            new = NewMask(
                image_id,
                filled.store_mask(mask),
                WIDTH,
                HEIGHT,
                "same",
                [0, 1, 2, 3, 4],
                "1.0",
                annotator=reader,
            )
            number = len(received)
            at = f"2026-01-01T00:00:0{number}.000000Z"
            received.append(
                AnnotationVersion(tasks[image_id], number, at, (reader, reader), mask=new)
            )
    standing: dict[int, set[int]] = {}
    for one in received:
        standing.setdefault(one.task_id, set()).add(one.remote_id)
    labelling.receive(project, AnnotationPage(received, standing))
    return filled


@pytest.mark.usefixtures("read_twice")
def test_agreement__every_value_with_n(here: Run, wording: SnapshotAssertion) -> None:
    result = here("agreement")
    assert result.status == 0
    lines = result.out.splitlines()
    assert lines[0] == wording
    [overlap] = [line for line in lines if line.startswith("all, lesion")]
    # Dice 1 and 4 / 8, IoU 1 and 4 / 12.
    assert "0.750 (too few: 2 patients)" in overlap
    assert "0.667 (too few: 2 patients)" in overlap
    assert overlap.split()[-2:] == ["2", "2"]
    [pair] = [line for line in lines if line.startswith("annotator-1 and annotator-2, lesion")]
    assert pair.split()[-8:] == overlap.split()[-8:]
    assert not [line for line in lines if "ruler" in line], "nobody drew one"


@pytest.mark.usefixtures("read_twice")
def test_agreement__a_group_with_too_few_says_so(here: Run) -> None:
    lines = here("agreement").out.splitlines()
    of_tone = [line for line in lines if line.startswith("tone V-VI")]
    assert [line.split("  ")[0] for line in of_tone] == [
        "tone V-VI, lesion",
        "tone V-VI, skin",
        "tone V-VI",
        "tone V-VI",
    ]
    for line in of_tone:
        assert "(too few: 1 patient)" in line
        assert "[" not in line
        assert line.split()[-2:] == ["1", "1"]


@pytest.mark.slow
@pytest.mark.usefixtures("read_twice")
def test_agreement__worst_pairs_and_their_pictures(here: Run, tmp_path: Path) -> None:
    folder = tmp_path / "worst"
    lines = here("agreement", "--worst", 2, "--pictures", folder).out.splitlines()
    start = lines.index("The pairs that agree least about the lesion")
    assert lines[start + 1].startswith(
        "3.png (#3), tone unknown, annotator-1 and annotator-2: lesion IoU 0.333, Dice 0.500, "
    )
    pictures = [folder / "01-image-3.png"]
    assert lines[start + 2 :] == [f"  picture: {path}" for path in pictures], "2.png agrees wholly"
    assert sorted(folder.iterdir()) == pictures
    again = here("agreement", "--pictures", folder)
    assert (again.status, again.out) == (1, "")
    assert "is not empty" in again.err
    one = here("agreement", "--worst", 1).out.splitlines()
    assert one == lines[: start + 2], "the same without pictures"
    assert here("agreement", "--worst", 0).out.splitlines() == lines[: start - 1]


@pytest.mark.usefixtures("read_twice")
def test_agreement__json(here: Run, tmp_path: Path) -> None:
    data = here("agreement", "--output", "json", "--pictures", tmp_path / "worst").json
    assert data["all"]["figures"]["lesion_iou"] == {
        "mean": pytest.approx(2 / 3),
        "ci95": None,
        "n": 2,
        "patients": 2,
    }
    assert data["by_tone"]["V-VI"]["figures"]["lesion_iou"]["ci95"] is None
    assert [pair["image"] for pair in data["worst"]] == ["3.png"]
    assert [Path(path).name for path in data["pictures"]] == ["01-image-3.png"]


def test_agreement__no_second_readings_yet(here: Run) -> None:
    result = here("agreement")
    assert (result.status, result.out) == (1, "")
    assert "Error: no image has two readings yet: 'ddiseg label push --readers 2'" in result.err


@pytest.mark.parametrize("wrong", [("--worst", "-1"), ("--worst", "few"), ("--pictures",)])
def test_agreement__wrong_usage(here: Run, wrong: tuple[str, ...]) -> None:
    assert here("agreement", *wrong).status == 2
