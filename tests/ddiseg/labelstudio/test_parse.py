"""Every kind of result that a browser can send, and what it is understood as."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from syrupy.assertion import SnapshotAssertion

from annotation_protocol import load_protocol
from ddiseg import masks
from ddiseg.catalogue import REASON_MISSING, AnnotationVersion, Arm, Purpose
from ddiseg.catalogue.tables import Image, Mask, Task
from ddiseg.labelstudio.parse import TaskContext, parse_annotation
from ddiseg.labelstudio.task_payload import prediction
from ddiseg.masks import brush_rle
from tests.ddiseg.labelstudio.studio import (
    HEIGHT,
    WIDTH,
    Result,
    box,
    chosen,
    skin_and_lesion,
    stroke,
    wrote,
)

PROTOCOL = load_protocol()
LINK = "http://labels.example/projects/1/data?task=7"
PEOPLE = {1: "annotator-1", 2: "annotator-2"}
LESION = box(slice(0, 2), slice(0, 4))

#: What the task was painted with: a lesion of a row and a half on skin.
PREDICTED = skin_and_lesion(12)
OLDER = skin_and_lesion(3)


@dataclass
class Case:
    """A task that shows PREDICTED, and what is kept of the answers to it."""

    purpose: Purpose = Purpose.ANNOTATION
    arm: Arm = Arm.PREDICTED
    size: tuple[int, int] = (WIDTH, HEIGHT)
    image_size: tuple[int, int] = (WIDTH, HEIGHT)
    stored: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    shown: NDArray[np.uint8] = field(default_factory=PREDICTED.copy)

    def read(self, result: Result | None, **columns: Any) -> AnnotationVersion:
        annotation = {"id": 5, "updated_at": "2026-01-01T00:00:00Z", "completed_by": 1, **columns}
        return parse_annotation(self.asked(), {**annotation, "result": result}, PEOPLE, PROTOCOL)

    def asked(self) -> TaskContext:
        painted = {
            masks.mask_hash(mask): Mask(id=number, content_hash=masks.mask_hash(mask))
            for number, mask in enumerate((OLDER, self.shown), 1)
        }
        pixels = {mask.id: (OLDER, self.shown)[mask.id - 1] for mask in painted.values()}
        width, height = self.image_size
        return TaskContext(
            Task(id=3, width=self.size[0], height=self.size[1], arm=self.arm.value, mask_id=2),
            Image(id=9, name="9.png", width=width, height=height),
            LINK,
            self.purpose,
            lambda digest: next(
                (m for h, m in reversed(painted.items()) if h.startswith(digest)), None
            ),
            lambda mask: masks.stretch(pixels[mask.id], self.size[::-1]),
            self.store,
        )

    def store(self, mask: NDArray[np.uint8]) -> str:
        self.stored[masks.mask_hash(mask)] = mask
        return masks.mask_hash(mask)

    def drawn(self, received: AnnotationVersion) -> NDArray[np.uint8]:
        assert received.problem is None, received.problem
        assert received.mask is not None
        return self.stored[received.mask.content_hash]


@pytest.fixture
def case() -> Case:
    return Case()


def painted(mask: NDArray[np.uint8] = PREDICTED, origin: str = "prediction") -> Result:
    """The regions that a mask was painted as, in the order of their classes."""
    regions = prediction(mask, masks.mask_hash(mask), PROTOCOL, None)["result"]
    return [{**region, "origin": origin} for region in regions]


def edited(region: dict[str, Any], inside: NDArray[np.bool_]) -> dict[str, Any]:
    value = {**region["value"], "rle": brush_rle.encode(inside)}
    return {**region, "origin": "prediction-changed", "value": value}


def expect_problem(case: Case, result: Result | None, says: str, **columns: Any) -> None:
    """Nothing is understood but the problem, one line that names the task."""
    received = case.read(result, **columns)
    assert received.problem is not None
    assert received.problem.endswith(f"; see {LINK}")
    assert "\n" not in received.problem
    assert says in received.problem
    assert (received.mask, received.skip, received.verdict) == (None, None, None)
    assert case.stored == {}


# Masks


def test_mask__untouched(case: Case) -> None:
    received = case.read(painted(), lead_time=61.5)
    assert received == AnnotationVersion(
        task_id=3,
        remote_id=5,
        updated_at="2026-01-01T00:00:00Z",
        people=("annotator-1",),
        lead_time=61.5,
        mask=received.mask,
        conflicts=0,
        holes=0,
        changed=0,
        link=LINK,
    )
    np.testing.assert_array_equal(case.drawn(received), PREDICTED)
    assert received.mask is not None
    assert received.mask.content_hash == masks.mask_hash(PREDICTED)
    assert (received.mask.image_id, received.mask.annotator, received.mask.parent_id) == (
        9,
        "annotator-1",
        2,
    )
    assert (received.mask.width, received.mask.height, received.mask.mapping) == (8, 6, "same")
    assert (received.mask.classes, received.mask.protocol_version) == ([0, 1, 2, 3, 4], "1.1")
    assert received.mask.origin == f"{LINK} annotation 5"


def test_mask__stroke_over_what_was_painted(case: Case) -> None:
    ink = box(slice(2, 4), slice(2, 5))
    received = case.read([*painted(), stroke("marker", ink)])
    wanted = PREDICTED.copy()
    wanted[ink] = 2
    np.testing.assert_array_equal(case.drawn(received), wanted)
    assert (received.changed, received.conflicts, received.holes) == (6, 0, 0)


def test_mask__lesion_region_made_larger_over_untouched_skin(case: Case) -> None:
    lesion, skin = painted()
    received = case.read([edited(lesion, LESION | (PREDICTED == 1)), skin])
    wanted = PREDICTED.copy()
    wanted[LESION] = 1
    np.testing.assert_array_equal(case.drawn(received), wanted)


def test_mask__region_made_smaller_leaves_a_hole(case: Case) -> None:
    lesion, skin = painted()
    inside = (PREDICTED == 1) & ~box(slice(0, 1), slice(0, 3))
    received = case.read([edited(lesion, inside), skin])
    wanted = PREDICTED.copy()
    wanted[0, :3] = 0
    np.testing.assert_array_equal(case.drawn(received), wanted)
    assert (received.holes, received.changed) == (3, 3)


def test_mask__strokes_only_on_a_bare_task() -> None:
    case = Case(arm=Arm.BARE)
    received = case.read([stroke("lesion", LESION)])
    np.testing.assert_array_equal(case.drawn(received), LESION.astype(np.uint8))
    assert received.mask is not None
    assert received.mask.parent_id is None
    assert (received.changed, received.holes) == (None, 40)


def test_mask__control_task_has_no_parent_though_there_is_a_prediction() -> None:
    received = Case(arm=Arm.CONTROL).read([stroke("lesion", LESION)])
    assert received.mask is not None
    assert received.mask.parent_id is None


def test_mask__strokes_only_after_all_that_was_painted_was_deleted(case: Case) -> None:
    received = case.read([stroke("lesion", LESION)])
    assert received.mask is not None
    assert received.mask.parent_id == 2
    assert received.changed == int(np.count_nonzero(LESION.astype(np.uint8) != PREDICTED))


def test_mask__painted_from_an_older_prediction_than_the_task_shows_now(case: Case) -> None:
    received = case.read(painted(OLDER))
    np.testing.assert_array_equal(case.drawn(received), OLDER)
    assert received.mask is not None
    assert received.mask.parent_id == 1
    assert received.changed == 0


def test_mask__empty_layer_is_one(case: Case) -> None:
    """A region that was erased to the last pixel."""
    lesion, skin = painted()
    received = case.read([edited(lesion, np.zeros_like(LESION)), skin])
    assert set(np.unique(case.drawn(received))) == {0, 4}


def test_mask__region_without_an_origin_is_the_person_s(case: Case) -> None:
    ink = box(slice(2, 4), slice(2, 5))
    for origin in (None, "manual", "duplicate"):
        received = case.read([*painted(), stroke("marker", ink, origin)])
        assert (case.drawn(received)[ink] == 2).all()


def test_mask__alpha_threshold(case: Case) -> None:
    """The brush is antialiased: half a pixel and more is the stroke's."""
    case.arm = Arm.BARE
    result = [stroke("lesion", LESION)]
    # A literal of one grey pixel, then a run of the rest: 32 + 5 + 16 bits of header, tokens.
    for alpha, inside in ((127, False), (128, True)):
        result[0]["value"]["rle"] = _one_pixel(alpha)
        received = case.read(result)
        assert bool(case.drawn(received)[0, 0]) is inside
        assert not case.drawn(received).ravel()[1:].any()


def _one_pixel(alpha: int) -> list[int]:
    """RLE of a canvas whose first pixel has that strength and whose others have none."""
    words = 4 * WIDTH * HEIGHT
    bits = f"{words:032b}{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    bits += f"100{3:03b}{alpha:08b}"  # a run of 4 words
    bits += f"110{words - 5:08b}{0:08b}"  # a run of the other words
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def test_mask__at_the_size_of_the_copy_of_a_larger_photograph() -> None:
    case = Case(image_size=(80, 60))
    received = case.read(painted())
    assert received.mask is not None
    assert (received.mask.width, received.mask.height, received.mask.mapping) == (
        8,
        6,
        "stretched",
    )


def test_mask__written_note_does_not_matter(case: Case) -> None:
    received = case.read([*painted(), wrote("note", "the rim is faint")])
    np.testing.assert_array_equal(case.drawn(received), PREDICTED)


def test_people__who_began_and_who_changed_it_last(case: Case) -> None:
    for columns, people in (
        ({"updated_by": 2}, ("annotator-1", "annotator-2")),
        ({"updated_by": 1}, ("annotator-1", "annotator-1")),
        ({"updated_by": None}, ("annotator-1",)),
        ({"completed_by": 8}, ("user 8",)),  # deleted there since
        ({"completed_by": None}, ("unknown",)),
    ):
        received = case.read(painted(), **columns)
        assert received.people == people
        assert received.mask is not None
        assert received.mask.annotator == people[-1]


# Annotations that can't be understood


def spoilt(value: dict[str, Any] | None = None, **columns: Any) -> dict[str, Any]:
    """A stroke with something of it replaced; columns that are None are left out."""
    region = stroke("lesion", LESION) | columns
    region["value"] = {**region["value"], **(value or {})}
    return {key: content for key, content in region.items() if content is not None}


LARGER = stroke("lesion", box(slice(2), slice(2), (16, 12)))
NO_REGION = "submitted without any region: draw one, or skip the task with a reason"
NO_CONTROL = "which the labelling configuration of the protocol"


@pytest.mark.parametrize(
    ("result", "says"),
    [
        ([], NO_REGION),
        (None, NO_REGION),
        ([wrote("note", "nothing to see")], NO_REGION),
        (
            [*painted(), chosen("skip_reason", "blurry")],
            "submitted with the skip reason 'blurry': skip it, or take the reason away",
        ),
        *(
            ([*painted(), spoilt({"rle": rle})], "brush RLE")
            for rle in ([], [1, 2, 3], "text", None, [0, 0, 300], [0.5], {"a": 1})
        ),
        (
            [*painted(), LARGER],
            "a region of lesion is 16 x 12 pixels, the picture is 8 x 6: it can't lie over it and is "
            "never resized; delete it and draw it again",
        ),
        ([LARGER | {"original_width": WIDTH, "original_height": HEIGHT}], "another size"),
        ([spoilt(original_width=None)], "is never resized"),
        ([spoilt(original_height=None)], "is never resized"),
        ([*painted(), stroke("Lesion (new)", LESION)], "Lesion (new)"),
        ([spoilt({"brushlabels": []})], "0 labels instead of one: give it one"),
        ([spoilt({"brushlabels": ["skin", "lesion"]})], "2 labels instead of one: give it one"),
        ([spoilt({"format": "bitmap"})], "is no brush stroke (bitmap)"),
        *(
            ([*painted(), other], NO_CONTROL)
            for other in (
                {"type": "rectanglelabels", "from_name": "box", "value": {"x": 1}},
                {"type": "brushlabels", "from_name": "tag", "value": {}},
                {"type": "choices", "from_name": "quality", "value": {"choices": ["good"]}},
                {"type": "textarea", "from_name": "skip_reason", "value": {"text": ["x"]}},
                {"type": "relation", "from_id": "a", "to_id": "b"},
                {},
            )
        ),
        (painted(skin_and_lesion(30)), "Restore the newer catalogue"),
    ],
)
def test_problem__of_what_was_submitted(case: Case, result: Result | None, says: str) -> None:
    expect_problem(case, result, says)


def test_problem__truncated_rle(case: Case) -> None:
    rle = brush_rle.encode(LESION)
    for length in range(1, len(rle)):
        expect_problem(case, [spoilt({"rle": rle[:length]})], "brush RLE")


# Skips


@pytest.mark.parametrize(
    ("result", "skip"),
    [
        (
            [*painted(), chosen("skip_reason", "blurry"), wrote("note", "  moved \n")],
            ("blurry", "moved"),
        ),
        # Somebody removed the alias from the project's configuration.
        ([chosen("skip_reason", "Significantly blurry")], ("blurry", None)),
        ([], (REASON_MISSING, None)),
        (None, (REASON_MISSING, None)),
        ([chosen("skip_reason", "")], (REASON_MISSING, None)),
        ([wrote("note", "hair everywhere")], (REASON_MISSING, "hair everywhere")),
        ([spoilt({"rle": [1]}), chosen("skip_reason", "other")], ("other", None)),
    ],
)
def test_skip__reason_and_note(
    case: Case, result: Result | None, skip: tuple[str, str | None]
) -> None:
    received = case.read(result, was_cancelled=True)
    assert (received.skip, received.mask, received.problem) == (skip, None, None)


def test_skip__reason_that_the_protocol_has_not(case: Case) -> None:
    expect_problem(case, [chosen("skip_reason", "boring")], "boring", was_cancelled=True)


def test_note__in_several_lines(case: Case) -> None:
    said = wrote("note", "")
    for text, note in ((["a", "b"], "a\nb"), ("one line", "one line"), ([], None), (None, None)):
        said["value"]["text"] = text
        received = case.read([chosen("skip_reason", "other"), said], was_cancelled=True)
        assert received.skip == ("other", note)


# Reviews


@pytest.fixture
def review() -> Case:
    return Case(purpose=Purpose.REVIEW)


def test_review__verdict_and_mask(review: Case) -> None:
    received = review.read([*painted(), chosen("verdict", "accept")])
    assert received.verdict == ("accept", None)
    assert (received.changed, received.skip) == (0, None)
    np.testing.assert_array_equal(review.drawn(received), PREDICTED)


def test_review__mask_that_is_labelled_in_part(review: Case) -> None:
    review.shown[:2] = 255
    received = review.read([*painted(review.shown), chosen("verdict", "accept")])
    assert received.problem is None, "what nobody labelled is no change of the reviewer"
    assert (received.changed, received.holes) == (0, 2 * WIDTH)
    ink = box(slice(0, 1), slice(0, 3))
    answer = [*painted(review.shown), stroke("marker", ink), chosen("verdict", "fixed")]
    received = review.read(answer)
    assert (received.changed, received.holes) == (3, 2 * WIDTH - 3)
    expected = np.where(ink, 2, np.where(review.shown == 255, 0, review.shown))
    np.testing.assert_array_equal(review.drawn(received), expected)


def test_review__fixed_with_a_comment(review: Case, wording: SnapshotAssertion) -> None:
    ink = box(slice(2, 4), slice(2, 5))
    said = [chosen("verdict", "fixed"), wrote("comment", "the ring was missing")]
    received = review.read([*painted(), stroke("marker", ink), *said])
    assert received.verdict == wording
    assert received.changed == 6
    assert (review.drawn(received)[ink] == 2).all()


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ([chosen("verdict", "reject"), wrote("comment", "no")], ("reject", "no")),
        ([chosen("verdict", "Reject")], ("reject", None)),  # by its label
    ],
)
def test_review__reject(review: Case, answer: Result, verdict: tuple[str, str | None]) -> None:
    assert review.read([*painted(), *answer]).verdict == verdict


NO_VERDICT = "the review has no verdict: open it and choose one"


@pytest.mark.parametrize(
    ("result", "says", "columns"),
    [
        (painted(), NO_VERDICT, {}),
        ([], NO_VERDICT, {}),
        (
            [chosen("verdict", "accept")],
            "the review was skipped: a review needs a verdict",
            {"was_cancelled": True},
        ),
        ([*painted(), chosen("verdict", "perfect")], "perfect", {}),
        ([spoilt({"rle": [1, 2]}), chosen("verdict", "fixed")], "brush RLE", {}),
    ],
)
def test_problem__of_a_review(
    review: Case, result: Result, says: str, columns: dict[str, bool]
) -> None:
    expect_problem(review, result, says, **columns)
