"""The whole way of an image through two people's hands, in a real Label Studio and a real browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import requests

from ddiseg.catalogue.tables import Mask
from tests.live.browser import Person, browser
from tests.live.conftest import ARTEFACTS, Studio, annotation_tasks

LESION = 1
REASON, COMMENT = "blurry", "The rim on the left runs into the skin"


def test_six_images__from_prediction_to_release(studio: Studio, tmp_path: Path) -> None:
    pushed = studio.ddiseg("label", "push")
    assert pushed["counts"]["added"] == 6
    with browser() as opened:
        annotator = person(opened, studio, "annotator")
        _annotate(annotator, pushed["project"])
        reviewer = person(opened, studio, "reviewer")
        reviewer.label_all(pushed["project"])  # the sixth image: the reviewer's own work
        reviewer.submit()

        pulled = studio.ddiseg("label", "pull")
        assert pulled["counts"] == {"added": 6, "unchanged": 0, "repaired": 0, "refused": 0}
        assert _states(studio) == ["submitted", "skipped", *["submitted"] * 4]
        _check_stroke(studio, pushed["project"])
        _check_untouched(studio)
        assert studio.ddiseg("label", "pull")["counts"]["added"] == 0

        reviews = studio.ddiseg("review", "push")
        assert reviews["counts"]["added"] == 5
        _review(reviewer, reviews["tabs"]["reviewer@ddiseg.local"])
        verdicts = studio.ddiseg("review", "pull")
        assert verdicts["counts"] == {"added": 4, "unchanged": 0, "repaired": 0, "refused": 0}
        assert _states(studio) == [
            *("accepted", "skipped", "accepted", "rework", "accepted", "submitted")
        ]
        _check_people(studio)
        _check_release(studio, tmp_path / "release")

        _mend(annotator, studio, pushed["project"])
    studio.ddiseg("label", "pull")
    assert _states(studio)[3] == "submitted"
    assert studio.ddiseg("review", "push")["counts"]["added"] == 1, "a new mask, a new review"
    assert studio.ddiseg("verify")["ok"]


def person(opened: Any, studio: Studio, role: str) -> Person:
    account = studio.accounts[role]
    return Person(opened, studio.url, account.email, account.password, ARTEFACTS)


def _annotate(annotator: Person, project: str) -> None:
    """First: a stroke of lesion over skin. Second: skipped. Third: as it is. Then two more strokes."""
    annotator.label_all(project)
    annotator.shot("1-prediction-shown")
    assert annotator.regions() >= {"lesion", "skin"}, "the prediction is shown at once"
    _check_the_photograph_is_visible(annotator)
    annotator.stroke("1", (0.05, 0.06), (0.3, 0.1))
    annotator.shot("2-lesion-stroke")
    annotator.submit()
    annotator.press("6")
    annotator.write("Note", "moved while it was taken")
    annotator.shot("3-skip-with-reason")
    annotator.skip()
    annotator.submit()
    annotator.stroke("1", (0.6, 0.9), (0.9, 0.95))
    annotator.submit()
    annotator.stroke("0", (0.05, 0.9), (0.3, 0.95))
    annotator.submit()


def _check_the_photograph_is_visible(annotator: Person) -> None:
    """Regions of all five classes fill the picture; they are drawn as rims, not as paint over it."""
    with_regions = annotator.picture().astype(int)
    annotator.press("Control+h")
    bare = annotator.picture().astype(int)
    annotator.press("Control+h")
    difference = np.abs(with_regions - bare).max(axis=-1)
    assert np.median(difference) <= 2, "skin is clear"
    assert 0.001 < (difference > 60).mean() < 0.1, "rims stand out, and they are thin"


def _review(reviewer: Person, tab: str) -> None:
    """First accepted, second corrected, third rejected, fourth accepted; the reviewer's own is not there."""
    reviewer.label_all(tab)
    reviewer.shot("4-review")
    reviewer.press("y")
    reviewer.submit()
    reviewer.stroke("1", (0.05, 0.06), (0.3, 0.1))
    reviewer.press("f")
    reviewer.shot("5-review-fixed")
    reviewer.submit()
    reviewer.press("n")
    reviewer.write("Comment", COMMENT)
    reviewer.shot("6-review-rejected")
    reviewer.submit()
    reviewer.press("y")
    reviewer.submit()
    assert reviewer.nothing_left(), "own work was offered for review"
    reviewer.shot("7-nothing-left")


def _mend(annotator: Person, studio: Studio, project: str) -> None:
    """The returned image, with the reviewer's comment above the picture; changed and updated."""
    task = annotation_tasks(studio.workspace)[3]
    annotator.open(f"{project}?task={task.remote_id}")
    annotator.wait_for_picture()
    annotator.shot("8-returned-with-comment")
    assert COMMENT in annotator.page.inner_text("body")
    annotator.stroke("4", (0.6, 0.9), (0.9, 0.95))
    annotator.update()


def _states(studio: Studio) -> list[str]:
    return [image.state for image in studio.workspace.catalogue.images.select()]


def _masks(studio: Studio, image_id: int) -> list[Mask]:
    return list(studio.workspace.catalogue.masks.of_image(image_id))


def _check_stroke(studio: Studio, project: str) -> None:
    """What the SDK's own decoder makes of the stroke is lesion; all else is as predicted."""
    from label_studio_sdk.converter.brush import decode_rle

    workspace = studio.workspace
    prediction, drawn = _masks(studio, 1)
    task = annotation_tasks(workspace)[0]
    answer = requests.get(
        f"{studio.url}/api/tasks/{task.remote_id}/annotations/",
        headers={"Authorization": f"Token {studio.accounts['admin'].token}"},
        timeout=30,
    ).json()
    (stroke,) = [r for r in answer[0]["result"] if r["origin"] == "manual"]
    rgba = decode_rle(stroke["value"]["rle"]).reshape(task.height, task.width, 4)
    inside = rgba[..., 3] >= 128
    before, after = workspace.mask(prediction), workspace.mask(drawn)
    assert inside.sum() > 200
    assert (before[inside] != LESION).any(), "the stroke went over something else"
    assert (after[inside] == LESION).all()
    assert np.array_equal(after[~inside], before[~inside])
    assert (drawn.annotator, drawn.parent_id) == ("annotator@ddiseg.local", prediction.id)
    assert f"task={task.remote_id}" in str(drawn.origin)


def _check_untouched(studio: Studio) -> None:
    """The third image was submitted as predicted: the same pixels, by a person now."""
    prediction, drawn = _masks(studio, 3)
    assert drawn.content_hash == prediction.content_hash
    assert drawn.annotator == "annotator@ddiseg.local"


def _check_people(studio: Studio) -> None:
    """Who did what, how long it took, and what the events say of it."""
    catalogue = studio.workspace.catalogue
    (skip,) = catalogue.images.skips()
    assert (skip.image_id, skip.reason, skip.note, skip.annotator) == (
        *(2, REASON, "moved while it was taken", "annotator@ddiseg.local"),
    )
    _, drawn, fixed = _masks(studio, 3)
    assert (fixed.annotator, fixed.parent_id) == ("reviewer@ddiseg.local", drawn.id)
    assert catalogue.masks.accepted()[3].id == fixed.id
    reviews = {r.mask_id: r for r in catalogue.masks.last_reviews(range(1, 100)).values()}
    assert {r.verdict for r in reviews.values()} == {"accept", "fixed", "reject"}
    assert {r.reviewer for r in reviews.values()} == {"reviewer@ddiseg.local"}
    assert catalogue.masks.last_reviews(range(1, 100))[4].comment == COMMENT
    work = {w.image_id: w for w in catalogue.accepted_work.accepted()}
    assert set(work) == {1, 3, 5}
    assert all(0 < (w.seconds or 0) < 600 for w in work.values())
    steps = [e.kind for e in catalogue.events.of_image(3)]
    assert steps == ["import", "prelabel", "start", "submit", "accept"]
    assert [e.kind for e in catalogue.events.of_image(4)][-1] == "reject"


def _check_release(studio: Studio, folder: Path) -> None:
    """The export holds exactly the accepted images."""
    studio.ddiseg("export", "--format", "coco", "--keep-names", "--to", folder)
    names = {
        image["file_name"]
        for image in json.loads((folder / "annotations.json").read_text())["images"]
    }
    images = studio.workspace.catalogue.images.select(ids=[1, 3, 5])
    assert {Path(n).stem.rsplit("_")[-1] for n in names} == {Path(i.name).stem for i in images}
