"""JSON exports of Label Studio: other people's brush projects, and ddiseg's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from syrupy.assertion import SnapshotAssertion

from annotation_protocol import load_protocol
from ddiseg import masks
from ddiseg.catalogue import State
from ddiseg.errors import InputError
from ddiseg.evaluation.interrater import agreement
from ddiseg.ingest.labelled_masks import Labels, MaskImport, import_labelled_masks
from ddiseg.ingest.labelstudio import read_masks
from ddiseg.ingest.photographs import import_photographs
from ddiseg.labelstudio.task_payload import prediction
from ddiseg.masks import brush_rle
from ddiseg.outcomes import FileOutcome
from ddiseg.workspace.workspace import Workspace
from tests.wording import Refusal

PROTOCOL = load_protocol()
LABELS = Labels(PROTOCOL)

#: As large as the photographs of the fixtures.
HEIGHT, WIDTH = 16, 24
LESION = np.zeros((HEIGHT, WIDTH), bool)
LESION[4:8, 6:12] = True
#: A lesion on skin, as a model predicted it.
PREDICTED = np.where(LESION, 1, 4).astype(np.uint8)


def box(rows: slice, columns: slice) -> NDArray[np.bool_]:
    region = np.zeros((HEIGHT, WIDTH), bool)
    region[rows, columns] = True
    return region


def stroke(label: str, region: NDArray[np.bool_], **columns: Any) -> dict[str, Any]:
    value = {"format": "rle", "rle": brush_rle.encode(region), "brushlabels": [label]}
    return {**outline("brushlabels", value, region.shape), **columns}


def outline(
    kind: str, value: dict[str, Any], size: tuple[int, ...] = (HEIGHT, WIDTH)
) -> dict[str, Any]:
    shape = {"original_height": size[0], "original_width": size[1], "image_rotation": 0}
    names = {"id": "r", "type": kind, "from_name": "tag", "to_name": "img", "origin": "manual"}
    return {**names, **shape, "value": value}


def annotation(*result: dict[str, Any], **columns: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "completed_by": 3,
        "was_cancelled": False,
        "updated_at": "2026-01-01T00:00:00Z",
        "result": list(result),
        "prediction": {},
        **columns,
    }


def task(
    *annotations: dict[str, Any], image: str = "/data/upload/3/0a1b2c3d-a.png", number: int = 7
) -> dict[str, Any]:
    return {"id": number, "annotations": list(annotations), "data": {"image": image}}


@pytest.fixture
def catalogued(workspace: Workspace, folder: Callable[..., Path]) -> Workspace:
    """A workspace with the images a to c."""
    import_photographs(workspace, folder("a.png", "b.png", "c.png"))
    return workspace


@pytest.fixture
def export(tmp_path: Path) -> Callable[[Any], Path]:
    def write(document: Any) -> Path:
        text = document if isinstance(document, str) else json.dumps(document)
        (tmp_path / "export.json").write_text(text)
        return tmp_path / "export.json"

    return write


def run(workspace: Workspace, path: Path, **options: Any) -> MaskImport:
    options = {"labels": LABELS, **options}
    return import_labelled_masks(workspace, path, format_name="labelstudio", **options)


def told(outcomes: list[FileOutcome]) -> dict[str, str]:
    return {o.name: o.outcome.value for o in outcomes}


def drawn(workspace: Workspace) -> NDArray[np.uint8]:
    return workspace.mask(workspace.catalogue.masks.all()[-1])


def refusal(done: MaskImport) -> str:
    (only,) = done.outcomes
    assert only.outcome.value == "refused"
    return str(only.note)


@pytest.mark.slow
def test_import__brush_strokes_of_others(
    catalogued: Workspace, export: Any, refusal: Refusal
) -> None:
    ink = box(slice(0, 2), slice(0, 9))
    path = export([task(annotation(stroke("Nevus", LESION), stroke("pen", ink)))])
    with refusal(InputError):
        run(catalogued, path)
    assert not catalogued.catalogue.masks.all()
    labels = Labels.parse("nevus=lesion,pen=marker,scale=ruler", "skin", PROTOCOL)
    done = run(catalogued, path, labels=labels)
    assert told(done.outcomes) == {"a.png (task 7)": "added"}
    np.testing.assert_array_equal(drawn(catalogued), np.select([LESION, ink], [1, 2], 4))
    (mask,) = catalogued.catalogue.masks.all()
    assert (mask.annotator, mask.classes, mask.mapping) == ("user 3", [1, 2, 3, 4], "same")
    again = run(catalogued, path, labels=labels)
    assert told(again.outcomes) == {"a.png (task 7)": "unchanged"}


@pytest.mark.property
@given(arrays(np.uint8, (5, 7), elements=st.integers(0, 4)))
def test_read_masks__strokes_are_the_mask_they_were_made_of(
    tmp_path_factory: pytest.TempPathFactory, mask: NDArray[np.uint8]
) -> None:
    strokes = [
        stroke(PROTOCOL.class_at(index).name, mask == index) for index in masks.classes_in(mask)
    ]
    path = tmp_path_factory.mktemp("export") / "export.json"
    path.write_text(json.dumps([task(annotation(*strokes))]))
    (file,) = read_masks(path, LABELS).files
    np.testing.assert_array_equal(file.load(), mask)


def test_import__polygon(catalogued: Workspace, export: Any) -> None:
    points = [[25, 25], [50, 25], [50, 50], [25, 50]]
    value = {"points": points, "closed": True, "polygonlabels": ["lesion"]}
    run(catalogued, export([task(annotation(outline("polygonlabels", value)))]))
    np.testing.assert_array_equal(drawn(catalogued), LESION.astype(np.uint8))


@pytest.mark.slow
def test_import__conflicting_strokes_are_counted(
    catalogued: Workspace, export: Any, wording: SnapshotAssertion
) -> None:
    everything = np.ones_like(LESION)
    done = run(
        catalogued, export([task(annotation(stroke("lesion", LESION), stroke("skin", everything)))])
    )
    assert done.outcomes[0].note == wording
    np.testing.assert_array_equal(drawn(catalogued), PREDICTED)


def own_task(*annotations: dict[str, Any]) -> dict[str, Any]:
    """A task that ddiseg made: the picture's address does not have the image's name."""
    data = {"image": "/data/local-files/?d=images/0f-24x16.png", "ddiseg": "0f", "name": "a.png"}
    return {"id": 7, "annotations": list(annotations), "data": data}


def predicted_regions(mask: NDArray[np.uint8] = PREDICTED) -> list[dict[str, Any]]:
    regions = prediction(mask, masks.mask_hash(mask), PROTOCOL, None)["result"]
    return [{**region, "origin": "prediction"} for region in regions]


@pytest.mark.slow
def test_import__own_project_edited_over_what_was_left(catalogued: Workspace, export: Any) -> None:
    """The lesion was made larger over skin that stands later in the list: the edit wins."""
    lesion, skin = predicted_regions()
    larger = box(slice(4, 10), slice(6, 12))
    edited = stroke("lesion", larger, origin="prediction-changed")
    run(
        catalogued,
        export([own_task(annotation(edited, skin, prediction={"result": [lesion, skin]}))]),
    )
    np.testing.assert_array_equal(drawn(catalogued), np.where(larger, 1, 4))
    (mask,) = catalogued.catalogue.masks.all()
    assert mask.classes == [0, 1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize("told_by", ["annotation", "task", "nobody"])
def test_import__prediction_tells_what_an_edit_newly_drew(
    catalogued: Workspace, export: Any, told_by: str
) -> None:
    """Skin was drawn over a part of the lesion, which itself was made larger elsewhere."""
    lesion, skin = predicted_regions()
    part, more = box(slice(4, 6), slice(6, 8)), box(slice(10, 12), slice(0, 4))
    changed = [
        stroke("lesion", LESION | more, origin="prediction-changed"),
        stroke("skin", (PREDICTED == 4) | part, origin="prediction-changed"),
    ]
    begun_with = {"id": 5, "result": [lesion, skin]}
    done = annotation(*changed, parent_prediction=5)
    entry = own_task(done)
    if told_by == "annotation":
        done["prediction"] = begun_with
    elif told_by == "task":
        entry["predictions"] = [{"id": 4, "result": [skin]}, begun_with]
    run(catalogued, export([entry]))
    expected = np.where(LESION | more, 1, 4)
    if told_by != "nobody":  # else all of an edited region counts, and the lesion has precedence
        expected[part] = 4
    np.testing.assert_array_equal(drawn(catalogued), expected)


@pytest.mark.slow
def test_import__own_project_smaller_picture(catalogued: Workspace, export: Any) -> None:
    small = np.ones((8, 12), bool)
    run(catalogued, export([own_task(annotation(stroke("skin", small)))]))
    (mask,) = catalogued.catalogue.masks.all()
    assert (mask.mapping, mask.width, mask.height) == ("stretched", 12, 8)
    done = run(catalogued, export([task(annotation(stroke("skin", small)), image="b.png")]))
    assert "give --stretched" in refusal(done)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("control", "says"),
    [("verdict", "it is a review"), ("skip_reason", "submitted with a reason to skip it")],
)
def test_import__own_project_what_is_no_drawing(
    catalogued: Workspace, export: Any, control: str, says: str
) -> None:
    said = {"type": "choices", "from_name": control, "value": {"choices": ["blurry"]}}
    done = run(catalogued, export([own_task(annotation(stroke("skin", LESION), said))]))
    assert says in refusal(done)
    assert not catalogued.catalogue.masks.all()


def test_import__what_is_said_about_a_picture_is_left(catalogued: Workspace, export: Any) -> None:
    said = [{"type": kind, "from_name": "x", "value": {}} for kind in ("choices", "textarea")]
    done = run(catalogued, export([task(annotation(*said, stroke("lesion", LESION)))]))
    assert set(told(done.outcomes).values()) == {"added"}


def test_import__newest_annotation_and_what_is_left(
    catalogued: Workspace, export: Any, wording: SnapshotAssertion
) -> None:
    newest = annotation(stroke("lesion", LESION), id=3, updated_at="2026-03-01", completed_by=4)
    older = annotation(stroke("skin", LESION), id=2, updated_at="2026-02-01", completed_by=4)
    cancelled = annotation(stroke("ruler", LESION), was_cancelled=True, updated_at="2026-04-01")
    tasks = [task(older, newest, cancelled), task(cancelled, image="b.png", number=8)]
    done = run(catalogued, export([*tasks, task(image="c.png", number=9)]))
    assert told(done.outcomes) == {"a.png (task 7)": "added"}
    assert done.notes == wording
    np.testing.assert_array_equal(drawn(catalogued), LESION.astype(np.uint8))
    assert catalogued.catalogue.masks.all()[0].annotator == "user 4"
    assert catalogued.catalogue.images.find("b.png").state == State.NEW


def two_people() -> list[dict[str, Any]]:
    """Annotations of one task: user 3 began, user 4 followed, user 3 drew again."""
    return [
        annotation(stroke("ruler", LESION), id=1, updated_at="2026-01-01"),
        annotation(stroke("skin", LESION), id=2, updated_at="2026-02-01", completed_by=4),
        annotation(stroke("lesion", LESION), id=3, updated_at="2026-03-01"),
    ]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_import__two_people_in_one_task(
    catalogued: Workspace, export: Any, order: tuple[int, ...]
) -> None:
    drawn_by_two = [two_people()[place] for place in order]
    path = export([task(*drawn_by_two)])
    done = run(catalogued, path)
    assert told(done.outcomes) == {
        "a.png (task 7, user 3)": "added",
        "a.png (task 7, user 4)": "added",
    }
    first, second = catalogued.catalogue.masks.all()
    assert (first.annotator, second.annotator) == ("user 3", "user 4")
    assert first.independent
    assert second.independent
    np.testing.assert_array_equal(catalogued.mask(first), LESION.astype(np.uint8))
    waiting = catalogued.catalogue.masks.in_review()
    assert [m.annotator for m in waiting.values()] == ["user 3"], "the oldest annotation decides"
    readings = catalogued.catalogue.tasks.readings()
    assert [m.annotator for m in readings[first.image_id]] == ["user 3", "user 4"]
    assert [p.readers for p in agreement(catalogued, readings).pairs] == [("user 3", "user 4")]
    again = run(catalogued, path)
    assert set(told(again.outcomes).values()) == {"unchanged"}


def test_import__two_people_and_a_reviewer(catalogued: Workspace, export: Any) -> None:
    path = export([task(*two_people())])
    run(catalogued, path, reviewer="user 4")  # read it, too: may still review the other's
    (accepted,) = catalogued.catalogue.masks.accepted().values()
    assert accepted.annotator == "user 3"
    assert [m.annotator for m in catalogued.catalogue.masks.all()] == ["user 3", "user 4"]


def test_import__first_of_two_people_can_not_be_read(catalogued: Workspace, export: Any) -> None:
    broken, good = two_people()[:2]
    broken["result"] = [stroke("ruler", LESION, image_rotation=90)]
    done = run(catalogued, export([task(broken, good)]))
    assert list(told(done.outcomes).values()) == ["refused", "added"]
    assert [m.annotator for m in catalogued.catalogue.masks.in_review().values()] == ["user 4"]


def test_import__two_people_of_whom_one_is_named(
    catalogued: Workspace, export: Any, refusal: Refusal
) -> None:
    done = run(catalogued, export([task(*two_people())]), annotator="anna")
    assert list(told(done.outcomes).values()) == ["added", "refused"]
    with refusal(InputError):
        raise InputError(done.outcomes[1].note)


def test_import__two_people_in_two_tasks_of_one_image(catalogued: Workspace, export: Any) -> None:
    first, second = two_people()[:2]
    done = run(catalogued, export([task(first), task(second, number=8)]))
    assert set(told(done.outcomes).values()) == {"added"}
    assert len(catalogued.catalogue.tasks.readings()) == 1


def test_import__labels_and_rest_without_a_class(catalogued: Workspace, export: Any) -> None:
    hair = box(slice(4, 6), slice(6, 12))
    path = export([task(annotation(stroke("lesion", LESION), stroke("hair", hair)))])
    labels = Labels.parse("hair=ignore,rest=ignore", None, PROTOCOL)
    run(catalogued, path, labels=labels)
    np.testing.assert_array_equal(drawn(catalogued), np.where(LESION & ~hair, 1, 255))
    (mask,) = catalogued.catalogue.masks.all()
    assert (mask.classes, mask.unlabelled) == ([1], HEIGHT * WIDTH - 12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("who", "name"),
    [
        (3, "user 3"),
        ({"id": 3, "email": "annotator-1@example.org"}, "annotator-1@example.org"),
        ({"id": 3, "username": "annotator-1", "email": ""}, "annotator-1"),
        ({"id": 3}, "user 3"),
    ],
)
def test_import__annotator(catalogued: Workspace, export: Any, who: Any, name: str) -> None:
    path = export([task(annotation(stroke("lesion", LESION), completed_by=who))])
    run(catalogued, path)
    run(catalogued, path, annotator="annotator-9")
    assert [m.annotator for m in catalogued.catalogue.masks.all()] == [name, "annotator-9"]


@pytest.mark.slow
def test_import__no_annotator_and_the_reviewer_drew_one(
    catalogued: Workspace, export: Any, refusal: Refusal, wording: SnapshotAssertion
) -> None:
    nobody = annotation(stroke("lesion", LESION), completed_by=None)
    with refusal(InputError):
        run(catalogued, export([task(nobody)]))
    path = export(
        [
            task(nobody),
            task(annotation(stroke("lesion", LESION), completed_by=4), image="b.png", number=8),
            task(annotation(stroke("lesion", LESION)), image="c.png", number=9),
        ]
    )
    done = run(catalogued, path, reviewer="User 3")
    assert told(done.outcomes) == {
        "a.png (task 7)": "refused",
        "b.png (task 8)": "added",
        "c.png (task 9)": "refused",
    }
    assert done.outcomes[0].note == wording
    assert "needs a second person" in str(done.outcomes[2].note)
    assert len(catalogued.catalogue.masks.accepted()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/3/0a1b2c3d-a.png",
        "https://labels.example/data/upload/3/0a1b2c3d-a.png",
        "/data/local-files/?d=sub/folder/a.png",
        "/label-studio/data/local-files/?d=sub%5Ca.png",
        "s3://bucket/sub/a.png",
        "s3://bucket/0a1b2c3d-a.png",
        "https://bucket.example/a.png?X-Signature=b.png",
        "C:\\photos\\a.png",
        "a.png",
    ],
)
def test_import__image_by_its_name(catalogued: Workspace, export: Any, image: str) -> None:
    done = run(catalogued, export([task(annotation(stroke("lesion", LESION)), image=image)]))
    assert told(done.outcomes) == {"a.png (task 7)": "added"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"image": "s3://bucket/0a1b2c3-a.png"}, "no image has this name"),  # no upload's prefix
        ({"photo": "x/a.png", "text": "b"}, None),
        ({"photo": "a.png", "other": "b.png"}, "its data names 2 pictures instead of one"),
        ({"text": "b"}, "its data names 0 pictures instead of one"),
        ([], "its data names 0 pictures instead of one"),
        ({"image": "data:image/png;base64,AAAA"}, "has no name"),
    ],
)
def test_import__other_data(
    catalogued: Workspace, export: Any, data: Any, says: str | None
) -> None:
    entry = {**task(annotation(stroke("lesion", LESION))), "data": data}
    done = run(catalogued, export([entry]))
    if says is None:
        assert told(done.outcomes) == {"a.png (task 7)": "added"}
    else:
        assert says in refusal(done)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("result", "says"),
    [
        ([], "nothing drawn"),
        (None, "nothing drawn"),
        ([outline("rectanglelabels", {})], "regions of type rectanglelabels"),
        ([outline("ellipse", {}), stroke("skin", LESION)], "regions of type ellipse"),
        ([stroke("skin", LESION, image_rotation=90)], "a turned picture"),
        ([stroke("skin", LESION, original_width=None)], "do not say how large"),
        ([stroke("skin", LESION, original_width=25)], "is 25 x 16, but its photograph is 24 x 16"),
        ([outline("polygonlabels", {"polygonlabels": ["skin"]}, (10**9, 10**9))], "1000000000 x 1000000000"),
        ([stroke("skin", LESION), stroke("skin", LESION[1:])], "it can't lie over it"),
        ([outline("brushlabels", {"brushlabels": []})], "0 labels instead of one"),
        ([outline("brushlabels", {"brushlabels": ["skin"], "format": "x"})], "no brush stroke"),
        ([outline("brushlabels", {"brushlabels": ["skin"], "format": "rle", "rle": [1, 2]})], "truncated"),
        ([outline("polygonlabels", {"polygonlabels": ["skin"], "points": [[1, 2]]})], "no region of it covers a pixel"),
        ([stroke("skin", np.zeros_like(LESION))], "no region of it covers a pixel"),
    ],
)  # fmt: skip
def test_import__annotation_refused(
    catalogued: Workspace, export: Any, result: Any, says: str
) -> None:
    """One that can't be read never stops the rest."""
    bad = {**annotation(), "result": result}
    good = task(annotation(stroke("lesion", LESION)), image="b.png", number=8)
    done = run(catalogued, export([task(bad), good]))
    assert told(done.outcomes) == {"a.png (task 7)": "refused", "b.png (task 8)": "added"}
    assert says in str(done.outcomes[0].note)
    assert "\n" not in str(done.outcomes[0].note)
    assert len(catalogued.catalogue.masks.all()) == 1


@pytest.mark.parametrize(
    "document",
    [
        "{",
        "7",
        ["x"],
        [{"id": 1}],
        {"images": [], "annotations": []},
        [{"image": "a.png", "id": 1, "tag": [], "annotator": 1, "annotation_id": 2}],
    ],
)
def test_import__no_export(
    catalogued: Workspace, export: Any, document: Any, refusal: Refusal
) -> None:
    with refusal(InputError) as raised:
        run(catalogued, export(document))
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_import__folder_or_nothing(catalogued: Workspace, tmp_path: Path, refusal: Refusal) -> None:
    with refusal(InputError):
        run(catalogued, tmp_path)
    with refusal(InputError):
        run(catalogued, tmp_path / "absent.json")


def test_import__two_tasks_of_one_image(catalogued: Workspace, export: Any) -> None:
    """Whatever the tasks are called, each is told by its own outcome."""
    first = task(annotation(stroke("lesion", LESION)))
    second = task(annotation(stroke("skin", LESION)))
    done = run(catalogued, export([first, second, first]))
    assert [o.outcome.value for o in done.outcomes] == ["added", "refused", "unchanged"]


def test_import__subset_and_dataset(
    catalogued: Workspace, export: Any, folder: Callable[..., Path]
) -> None:
    import_photographs(catalogued, folder("a.png", name="more", first_seed=50))
    path = export([task(annotation(stroke("lesion", LESION)))])
    assert "2 images have this name (#1, #4)" in refusal(run(catalogued, path))
    done = run(catalogued, path, dataset="more")
    assert set(told(done.outcomes).values()) == {"added"}


def polygon(label: str, *points: list[int]) -> dict[str, Any]:
    """A region with corners in percent of the picture."""
    value = {"points": list(points), "closed": True, "polygonlabels": [label]}
    return outline("polygonlabels", value)


SPOT = polygon("lesion", [25, 25], [50, 25], [50, 50], [25, 50])
DISC = polygon("marker", [10, 10], [90, 10], [90, 90], [10, 90])


@pytest.mark.parametrize("regions", [(SPOT, DISC), (DISC, SPOT)])
def test_import__polygons_alone_the_smaller_on_top(
    catalogued: Workspace, export: Any, regions: Any, wording: SnapshotAssertion
) -> None:
    """A pen ring as a polygon is a disc: the lesion in it stays."""
    done = run(catalogued, export([task(annotation(*regions))]))
    mask = drawn(catalogued)
    np.testing.assert_array_equal(mask == 1, LESION)
    assert (mask == 2).sum() > 100
    assert done.outcomes[0].note == wording


def test_import__stroke_that_hides_a_class_wholly(
    catalogued: Workspace, export: Any, wording: SnapshotAssertion
) -> None:
    ink = stroke("marker", box(slice(2, 10), slice(4, 14)), id="r2")
    done = run(catalogued, export([task(annotation(stroke("lesion", LESION), ink))]))
    assert refusal(done) == wording
    assert not catalogued.catalogue.masks.all()


def test_import__prediction_that_a_person_drew_over_is_told(
    catalogued: Workspace, export: Any, wording: SnapshotAssertion
) -> None:
    lesion, skin = predicted_regions()
    over = stroke("skin", box(slice(3, 9), slice(5, 13)))
    begun = {"result": [lesion, skin]}
    path = export([own_task(annotation(lesion, skin, over, prediction=begun))])
    done = run(catalogued, path)
    assert told(done.outcomes) == {"a.png (task 7)": "added"}
    assert done.outcomes[0].note == wording


@pytest.mark.parametrize(
    "empty", [polygon("ruler", [3, 3], [9, 9]), stroke("ruler", LESION & False)]
)
def test_import__empty_region_is_left_out_and_told(
    catalogued: Workspace, export: Any, empty: dict[str, Any]
) -> None:
    done = run(catalogued, export([task(annotation(SPOT, empty))]))
    assert told(done.outcomes) == {"a.png (task 7)": "added"}
    assert "covers no pixel: left out" in str(done.outcomes[0].note)
    np.testing.assert_array_equal(drawn(catalogued), LESION.astype(np.uint8))


@pytest.mark.parametrize("as_written", [float, str])
def test_import__numbers_as_floats_and_texts(
    catalogued: Workspace, export: Any, as_written: Callable[[int], Any]
) -> None:
    lesion, skin = predicted_regions()
    edited = stroke("lesion", LESION, origin="prediction-changed")
    regions = [edited, {**skin, "origin": "prediction"}]
    for region in regions:
        region |= {key: as_written(region[key]) for key in ("original_height", "original_width")}
        region["value"] = {**region["value"], "rle": [float(n) for n in region["value"]["rle"]]}
    done = annotation(*regions, parent_prediction=as_written(5))
    entry = own_task(done)
    entry["predictions"] = [{"id": 5, "result": [lesion, skin]}]
    run(catalogued, export([entry]))
    np.testing.assert_array_equal(drawn(catalogued), PREDICTED)
