"""Batches drawn: quotas, what is kept apart, what is drawn by lot, and what is said of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import (
    AnnotationPage,
    AnnotationVersion,
    Arm,
    BatchOrigin,
    Catalogue,
    NewImage,
    NewMask,
    NewModelVersion,
    NewTask,
    Purpose,
    State,
)
from ddiseg.catalogue.batches import NewMember
from ddiseg.catalogue.embeddings import embedding_space
from ddiseg.errors import InputError
from ddiseg.sampling.batches import BatchRequest, DrawnBatch, draw_batch
from ddiseg.sampling.strategies import Strategy
from tests.wording import Refusal

TONES = ("I-II", "III-IV", "V-VI")
Fill = Callable[[Iterable[dict[str, Any]]], Catalogue]
Paint = Callable[..., str]


@pytest.fixture
def fill(catalogue: Catalogue, new_image: Callable[..., NewImage]) -> Fill:
    """fill([{"tone": ..., ...}, ...]): a catalogue with these images, #1 being the first."""

    def fill_it(rows: Iterable[dict[str, Any]]) -> Catalogue:
        dataset = catalogue.images.dataset("clinic")
        batch = [new_image(number, **row) for number, row in enumerate(rows, 1)]
        catalogue.images.add(dataset.id, batch, "tester")
        return catalogue

    return fill_it


@pytest.fixture
def paint(catalogue: Catalogue, new_mask: Callable[..., NewMask]) -> Paint:
    """paint({image id: uncertainty}, described=True): by a new version; descriptors are the ids."""

    def paint_it(
        uncertainties: dict[int, float],
        *,
        described: bool = True,
        quality: Mapping[int, float] | None = None,
        **columns: Any,
    ) -> str:
        version = catalogue.models.add(
            NewModelVersion("f", "small", "backbone", {}, [], {}, "1.0", **columns), "tester"
        )
        catalogue.masks.add_predictions(
            [
                new_mask(
                    *(image_id, None, f"{image_id}"),
                    model_version_id=version.id,
                    uncertainty=u,
                    quality=(quality or {}).get(image_id),
                )
                for image_id, u in uncertainties.items()
            ]
        )
        if described:
            vectors = {i: np.array([i, 0], np.float32) for i in uncertainties}
            catalogue.embeddings.add(embedding_space("backbone", {}), vectors)
        return version.name

    return paint_it


def _rows(per_tone: int, tones: Iterable[str] = TONES) -> list[dict[str, Any]]:
    return [{"tone": tone} for tone in tones for _ in range(per_tone)]


def _draw(catalogue: Catalogue, name: str, size: int, **options: Any) -> DrawnBatch:
    strict = options.pop("strict", False)
    return draw_batch(catalogue, name, BatchRequest(size, **options), "tester", strict=strict)


def _ids(drawn: DrawnBatch) -> list[int]:
    return [member.image.id for member in drawn.members]


def _gate(figures: Mapping[str, tuple[float, list[float]]]) -> dict[str, Any]:
    """Lesion IoU and its interval by tone, as a gate stores them."""
    by_tone = {
        tone: {"candidate": {"lesion_iou": {"value": value, "interval": interval, "n": 12}}}
        for tone, (value, interval) in figures.items()
    }
    return {"by_tone": by_tone}


def _submit(catalogue: Catalogue, new_mask: Callable[..., NewMask], *image_ids: int) -> None:
    catalogue.masks.submit([new_mask(i, "annotator-1", f"{i}") for i in image_ids])


def test_draw__as_many_of_each_tone_and_queued(fill: Fill) -> None:
    catalogue = fill([*_rows(20), {"tone": "unknown"}])
    drawn = _draw(catalogue, "week-1", 10)
    assert drawn.new
    assert drawn.by_tone == {"I-II": 4, "III-IV": 3, "V-VI": 3}
    assert {member.image.state for member in drawn.members} == {"queued"}
    assert Counter(i.state for i in catalogue.images.select()) == {"queued": 10, "new": 51}
    event = catalogue.events.of_image(_ids(drawn)[0])[-1]
    assert (event.kind, event.actor, event.detail) == ("queue", "tester", {"batch": "week-1"})
    assert "1 left out: tone unknown" in drawn.notes


def test_draw__same_request_is_unchanged_and_another_is_refused(
    fill: Fill, refusal: Refusal
) -> None:
    catalogue = fill(_rows(20))
    first = _draw(catalogue, "week-1", 6, seed=3)
    events = catalogue.events.count()
    again = _draw(catalogue, "week-1", 6, seed=3)
    assert not again.new
    assert (_ids(again), again.notes) == (_ids(first), first.notes)
    assert catalogue.events.count() == events
    with refusal(InputError):
        _draw(catalogue, "week-1", 6, seed=4)


def test_draw__the_seed_decides(fill: Fill) -> None:
    catalogue = fill(_rows(20))
    drawn = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        drawn[name] = _ids(_draw(catalogue, name, 9, seed=seed))
        catalogue.batches.close(name, "tester")
    assert drawn["a"] == drawn["b"] != drawn["c"]


def test_draw__two_open_batches_share_no_image(fill: Fill) -> None:
    catalogue = fill(_rows(5))
    first, second = _draw(catalogue, "a", 9), _draw(catalogue, "b", 9)
    assert not set(_ids(first)) & set(_ids(second))
    assert len(second.members) == 6
    assert second.lacking == [f"{tone}: 2 of the 3 wanted" for tone in TONES]


def test_draw__a_tone_that_lacks_gives_its_slots_to_the_others(
    fill: Fill, refusal: Refusal, wording: SnapshotAssertion
) -> None:
    catalogue = fill([*_rows(20, TONES[:2]), *_rows(2, TONES[2:])])
    with refusal(InputError):
        _draw(catalogue, "week-1", 12, strict=True)
    assert catalogue.batches.all() == []
    drawn = _draw(catalogue, "week-1", 12)
    assert drawn.by_tone == {"I-II": 5, "III-IV": 5, "V-VI": 2}
    assert drawn.lacking == wording
    with pytest.raises(InputError, match="--strict"):
        _draw(catalogue, "week-1", 12, strict=True)


def test_draw__of_a_patient_and_of_near_duplicates_one(
    fill: Fill, wording: SnapshotAssertion
) -> None:
    rows = _rows(20, ["I-II"])
    for row in rows[:10]:
        row["patient"] = "p"
    for number, row in enumerate(rows[10:15]):
        row["perceptual_hash"] = f"{0xF0F0F0F0F0F0F0F0 ^ (1 << number):016x}"
    drawn = _draw(fill(rows), "week-1", 20)
    ids = set(_ids(drawn))
    assert len(ids & set(range(1, 11))) == len(ids & set(range(11, 16))) == 1
    assert ids >= set(range(16, 21))
    assert drawn.lacking == wording


def test_draw__a_tone_of_few_patients_gives_its_slots_to_the_others(
    fill: Fill, wording: SnapshotAssertion
) -> None:
    rows = _rows(10)
    for row in rows[20:]:
        row["patient"] = "p"
    drawn = _draw(fill(rows), "week-1", 12)
    assert drawn.by_tone == {"I-II": 6, "III-IV": 5, "V-VI": 1}
    assert drawn.lacking == wording


def test_draw__an_odd_slot_that_was_given_back_goes_to_who_had_none(fill: Fill) -> None:
    rows = _rows(10)
    for number, row in enumerate(rows[20:]):
        row["patient"] = f"p{number % 2}"
    drawn = _draw(fill(rows), "week-1", 10)
    assert drawn.by_tone == {"I-II": 4, "III-IV": 4, "V-VI": 2}


def test_draw__a_patient_in_two_tones_is_drawn_once(fill: Fill) -> None:
    rows = [{"tone": tone, "patient": "p"} for tone in TONES] + _rows(1)
    drawn = _draw(fill(rows), "week-1", 6)
    assert len(set(_ids(drawn)) & {1, 2, 3}) == 1


def test_draw__related_to_what_is_labelled_only_for_want_of_others(
    fill: Fill, new_mask: Callable[..., NewMask]
) -> None:
    rows = _rows(8, ["I-II"])
    rows[0]["patient"] = rows[1]["patient"] = "p"
    rows[2]["perceptual_hash"], rows[3]["perceptual_hash"] = "0" * 16, "0" * 15 + "f"
    catalogue = fill(rows)
    _submit(catalogue, new_mask, 1, 3)
    first = _draw(catalogue, "a", 4)
    assert set(_ids(first)) == {5, 6, 7, 8}
    assert not any("related" in note or "labelled" in note for note in first.notes)
    catalogue.batches.close("a", "tester")
    more = _draw(catalogue, "b", 6)
    assert set(_ids(more)) == {2, 4, 5, 6, 7, 8}
    assert (
        "2 share a patient or lesion with, or are near-duplicates of, an image that is labelled or "
        "in an open batch: there were no others"
    ) in more.notes


def test_draw__related_to_an_open_batch(fill: Fill) -> None:
    catalogue = fill([{"tone": "I-II", "patient": f"p{n // 2}"} for n in range(4)])
    first, second = _draw(catalogue, "a", 1), _draw(catalogue, "b", 1)
    patient = first.members[0].image.patient
    assert second.members[0].image.patient != patient


@pytest.mark.slow
def test_draw__only_what_nobody_has_begun(
    fill: Fill, paint: Paint, new_mask: Callable[..., NewMask]
) -> None:
    catalogue = fill(_rows(5, ["I-II"]))
    paint({3: 0.1})
    _submit(catalogue, new_mask, 1)
    catalogue.images.skip(2, "occluded", None, "annotator-1")
    drawn = _draw(catalogue, "week-1", 5)
    assert set(_ids(drawn)) == {3, 4, 5}
    assert catalogue.images.find("#3").state == State.PRELABELLED
    assert "1 left out: skipped" in drawn.notes


@pytest.mark.slow
def test_draw__random_share_is_drawn_from_all_and_recorded(fill: Fill, paint: Paint) -> None:
    catalogue = fill(_rows(30))
    by_lot = _draw(catalogue, "lot", 6, strategy=Strategy.RANDOM)
    assert all(member.random for member in by_lot.members)
    catalogue.batches.close("lot", "tester")
    paint({i: i / 100 for i in range(1, 91)})
    drawn = _draw(catalogue, "week-1", 30, strategy=Strategy.UNCERTAINTY)
    random = [member.image for member in drawn.members if member.random]
    assert Counter(image.tone for image in random) == dict.fromkeys(TONES, 2)
    assert {image.id for image in random} == set(_ids(by_lot))
    assert catalogue.batches.random_images() == set(_ids(by_lot))
    chosen = {m.image.id for m in drawn.members if not m.random and m.image.tone == "V-VI"}
    assert chosen == set(sorted(set(range(61, 91)) - {i.id for i in random})[-8:])


@pytest.mark.slow
@pytest.mark.parametrize(("share", "by_lot"), [(0, 0), (50, 5), (100, 10)])
def test_draw__random_share(fill: Fill, paint: Paint, share: float, by_lot: int) -> None:
    catalogue = fill(_rows(10))
    paint(dict.fromkeys(range(1, 31), 0.5))
    drawn = _draw(catalogue, "week-1", 10, random_share=share)
    assert sum(member.random for member in drawn.members) == by_lot


def test_draw__mixed_without_predictions_is_random_and_says_so(fill: Fill) -> None:
    drawn = _draw(fill(_rows(10)), "week-1", 6)
    assert all(member.random for member in drawn.members)
    assert "V-VI: random instead of mixed, since there is no model yet" in (drawn.notes)


def test_draw__mixed_with_a_model_that_has_predicted_nothing(fill: Fill, paint: Paint) -> None:
    catalogue = fill(_rows(10))
    paint({})
    assert any(
        note.endswith("since there are no predictions: run 'ddiseg prelabel' first")
        for note in _draw(catalogue, "week-1", 6).notes
    )


def test_draw__mixed_without_descriptors_is_by_expected_iou(fill: Fill, paint: Paint) -> None:
    catalogue = fill(_rows(10, ["I-II"]))
    numbers = {i: i / 100 for i in range(1, 11)}
    paint(numbers, described=False, quality=numbers)
    drawn = _draw(catalogue, "week-1", 2, random_share=0)
    assert _ids(drawn) == [1, 2]
    assert [member.reason for member in drawn.members] == [
        "expected IoU 0.01, rank 1 of 10",
        "expected IoU 0.02, rank 2 of 10",
    ]
    assert not any("have no expected IoU" in note for note in drawn.notes)


def test_draw__predictions_without_expected_iou_are_told(
    fill: Fill, paint: Paint, wording: SnapshotAssertion
) -> None:
    catalogue = fill(_rows(4, ["I-II"]))
    paint({1: 0.1, 2: 0.2, 3: 0.9, 4: 0.3}, quality={1: 0.5, 2: 0.25})
    drawn = _draw(catalogue, "week-1", 3, strategy=Strategy.QUALITY, random_share=0)
    assert _ids(drawn) == [2, 1, 3]
    assert [note for note in drawn.notes if "expected IoU" in note] == wording
    old = _draw(catalogue, "week-2", 1, strategy=Strategy.UNCERTAINTY, random_share=0)
    assert not any("have no expected IoU" in note for note in old.notes)


def test_draw__mixed_without_descriptors_is_by_uncertainty(fill: Fill, paint: Paint) -> None:
    catalogue = fill(_rows(10, ["I-II"]))
    paint({i: i / 100 for i in range(1, 11)}, described=False)
    drawn = _draw(catalogue, "week-1", 2, random_share=0)
    assert _ids(drawn) == [10, 9]
    assert any("I-II: quality instead of mixed" in note for note in drawn.notes)


@pytest.mark.parametrize("strategy", [Strategy.QUALITY, Strategy.UNCERTAINTY, Strategy.DIVERSITY])
def test_draw__nothing_to_judge_by(fill: Fill, strategy: Strategy) -> None:
    catalogue = fill(_rows(10))
    with pytest.raises(
        InputError, match=f"--strategy {strategy}: there is no model yet: draw with"
    ):
        _draw(catalogue, "week-1", 6, strategy=strategy)
    catalogue.models.add(NewModelVersion("f", "small", "b", {}, [], {}, "1.0"), "tester")
    with pytest.raises(InputError, match=rf"--strategy {strategy}: .*run 'ddiseg prelabel' first"):
        _draw(catalogue, "week-1", 6, strategy=strategy)


def test_draw__uncertainty_is_that_of_the_version_in_use(fill: Fill, paint: Paint) -> None:
    catalogue = fill(_rows(4, ["I-II"]))
    paint({1: 0.9, 2: 0.1, 3: 0.1, 4: 0.1})
    paint({2: 0.2, 3: 0.3})
    drawn = _draw(catalogue, "week-1", 2, strategy=Strategy.UNCERTAINTY, random_share=0)
    assert _ids(drawn) == [3, 2]
    assert any(note.startswith("2 of 4 images that may be drawn have no") for note in drawn.notes)


def test_draw__diversity_is_far_from_what_is_labelled(
    fill: Fill, paint: Paint, new_mask: Callable[..., NewMask]
) -> None:
    catalogue = fill(_rows(9, ["I-II"]))
    paint(dict.fromkeys(range(1, 10), 0.5))
    _submit(catalogue, new_mask, 9)
    drawn = _draw(catalogue, "week-1", 2, strategy=Strategy.DIVERSITY, random_share=0)
    assert _ids(drawn) == [1, 5]
    catalogue.batches.close("week-1", "tester")
    by_lot = _draw(catalogue, "lot", 1, strategy=Strategy.RANDOM)
    # What is in an open batch is as good as labelled.
    later = _draw(catalogue, "week-2", 1, strategy=Strategy.DIVERSITY, random_share=0)
    away = {i: min(abs(i - 9), abs(i - _ids(by_lot)[0])) for i in range(1, 9)}
    assert away[_ids(later)[0]] == max(away.values())


def test_draw__focus_worst(fill: Fill, paint: Paint) -> None:
    figures = {"I-II": (0.8, [0.7, 0.9]), "III-IV": (0.6, [0.5, 0.7]), "V-VI": (0.7, [0.4, 0.9])}
    catalogue = fill(_rows(30))
    name = paint({1: 0.5}, gate=_gate(figures))
    drawn = _draw(catalogue, "week-1", 30, focus_worst=True)
    assert drawn.by_tone == {"I-II": 7, "III-IV": 7, "V-VI": 16}
    assert (
        "V-VI has the lowest lower bound of lesion IoU: 0.700 [0.400, 0.900], n = 12 "
        f"images (gate of {name})"
    ) in drawn.notes
    assert catalogue.batches.get("week-1").drawn_by["worst"]["tone"] == "V-VI"


def test_draw__focus_worst_is_towards_a_tone(fill: Fill, paint: Paint) -> None:
    """Of images without a tone little may be known too, and more of them help nobody's skin."""
    catalogue = fill(_rows(30, [*TONES, "unknown"]))
    paint({1: 0.5}, gate=_gate(dict.fromkeys(TONES, (0.8, [0.7, 0.9])) | {"V-VI": (0.5, [0.4, 1])}))
    drawn = _draw(catalogue, "week-1", 24, focus_worst=True)
    assert drawn.by_tone == {"I-II": 4, "III-IV": 4, "V-VI": 12, "unknown": 4}


def test_draw__many_without_a_tone_are_a_group(fill: Fill) -> None:
    catalogue = fill([*_rows(9, ["I-II", "V-VI"]), *_rows(22, ["unknown"])])
    drawn = _draw(catalogue, "week-1", 9)
    assert drawn.by_tone == {"I-II": 3, "V-VI": 3, "unknown": 3}
    assert any(note.startswith("22 of 40 images have no tone: 'unk") for note in drawn.notes)
    assert not any("left out" in note for note in drawn.notes)
    assert _draw(catalogue, "week-2", 4, tones=("I-II", "V-VI")).by_tone == {"I-II": 2, "V-VI": 2}


def _give_out(catalogue: Catalogue, *image_ids: int) -> dict[int, int]:
    """Tasks of images, by image, as a push makes them."""
    project = catalogue.tasks.project("server", Purpose.ANNOTATION).id
    new = [NewTask(f"{i}", i, None, Arm.BARE, 8, 6) for i in image_ids]
    catalogue.tasks.plan(project, new, "tester", {})
    tasks = {task.image_id: task.id for task in catalogue.tasks.tasks(project)}
    sent = {tasks[i]: 100 + i for i in image_ids}
    catalogue.tasks.sent(sent, "tester", start=True)
    return tasks


def test_draw__images_with_annotators_that_nobody_has_begun(
    fill: Fill, new_mask: Callable[..., NewMask]
) -> None:
    catalogue = fill(_rows(4))
    tasks = _give_out(catalogue, *range(1, 13))
    submitted = AnnotationVersion(
        tasks[1], 1, "2026-01-01", ("annotator-1",), mask=new_mask(1, "annotator-1")
    )
    spoiled = AnnotationVersion(
        tasks[5], 2, "2026-01-01", ("annotator-1",), problem="nothing drawn"
    )
    page = AnnotationPage([submitted, spoiled], {tasks[1]: {1}, tasks[5]: {2}})
    catalogue.tasks.receive(1, page)
    drawn = _draw(catalogue, "week-1", 6)
    assert drawn.by_tone == dict.fromkeys(TONES, 2)
    assert {member.image.state for member in drawn.members} == {"in_labelling"}
    assert not {1, 5} & set(_ids(drawn))
    assert any(
        note.startswith("10 of those that may be drawn are in Label Studio already")
        for note in drawn.notes
    )
    assert not any("of a patient" in note for note in drawn.notes)
    assert len(_draw(catalogue, "week-2", 6).members) == 4
    assert catalogue.events.contradictions() == []


def test_draw__images_with_annotators_only_where_there_are_too_few_others(fill: Fill) -> None:
    catalogue = fill(_rows(4))
    _give_out(catalogue, 1, 2, 5, 6, 9, 10)
    drawn = _draw(catalogue, "week-1", 6)
    assert not {1, 2, 5, 6, 9, 10} & set(_ids(drawn))
    assert not any("Label Studio" in note for note in drawn.notes)
    catalogue.batches.close("week-1", "tester")
    assert set(_ids(_draw(catalogue, "week-2", 7))) & {1, 2, 5, 6, 9, 10}


def test_draw__an_image_begun_in_the_same_moment(
    fill: Fill, new_mask: Callable[..., NewMask], refusal: Refusal
) -> None:
    catalogue = fill(_rows(2))
    tasks = _give_out(catalogue, *range(1, 7))
    catalogue.tasks.receive(
        1,
        AnnotationPage(
            [AnnotationVersion(tasks[1], 1, "2026-01-01", ("a",), problem="spoiled")],
            {tasks[1]: {1}},
        ),
    )
    with refusal(InputError):
        catalogue.batches.store(
            "week-1", [NewMember(1, True, "r"), NewMember(2, True, "r")], {}, "tester"
        )


def test_draw__returned_images_are_begun(fill: Fill, new_mask: Callable[..., NewMask]) -> None:
    catalogue = fill(_rows(1))
    catalogue.masks.submit([new_mask(1, "annotator-1")])
    (mask,) = catalogue.masks.in_review().values()
    catalogue.masks.review(mask.id, "reviewer-1", "reject", "the rim")
    _give_out(catalogue, 1, 2)
    assert catalogue.images.find("#1").state == State.IN_LABELLING
    assert set(_ids(_draw(catalogue, "week-1", 3))) == {2, 3}


def test_draw__nothing_says_where_the_images_are_and_what_frees_some(
    fill: Fill, new_mask: Callable[..., NewMask], wording: SnapshotAssertion
) -> None:
    catalogue = fill(_rows(2))
    catalogue.masks.submit([new_mask(1, "annotator-1"), new_mask(2, "annotator-1")])
    catalogue.images.skip(3, "blurry", None, "annotator-1")
    _draw(catalogue, "week-1", 3)
    with pytest.raises(InputError) as error:
        _draw(catalogue, "week-2", 3)
    assert str(error.value) == wording


#: Patients by tone; each has two images, of which a batch has at most one.
PATIENTS = [(30, 2, 20), (7, 40, 60), (9, 12, 60), (30, 19, 30), (0, 25, 18)]


@pytest.mark.property
@pytest.mark.parametrize("patients", PATIENTS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(1, 100), focus_worst=st.booleans(), seed=st.integers(0, 3))
def test_draw__as_many_as_asked_for_wherever_there_are_enough(
    catalogue: Catalogue,
    new_image: Callable[..., NewImage],
    patients: tuple[int, ...],
    size: int,
    focus_worst: bool,
    seed: int,
) -> None:
    if not catalogue.images.select():
        dataset = catalogue.images.dataset("clinic")
        tones = [tone for tone, n in zip(TONES, patients, strict=True) for _ in range(2 * n)]
        rows = [new_image(k, tone=tone, patient=f"p{k // 2}") for k, tone in enumerate(tones)]
        catalogue.images.add(dataset.id, rows, "tester")
        gate = _gate(dict.fromkeys(TONES, (0.8, [0.7, 0.9])) | {"V-VI": (0.5, [0.4, 0.6])})
        catalogue.models.add(NewModelVersion("f", "small", "b", {}, [], {}, "1", gate=gate), "t")
    name = f"batch-{len(catalogue.batches.all())}"
    drawn = _draw(catalogue, name, size, focus_worst=focus_worst, seed=seed)
    assert len(drawn.members) == min(size, sum(patients))
    for line in drawn.lacking:
        tone, count = line.split(": ")
        assert count.startswith(f"{patients[TONES.index(tone)]} of the ")
    catalogue.batches.close(name, "tester")


@pytest.mark.slow
def test_draw__worst_is_not_given_more_than_was_asked_for(fill: Fill, paint: Paint) -> None:
    """A tone runs out through its patients after the others have been given a third of its slots."""
    rows = _rows(60)
    for number, row in enumerate(rows[:60]):
        row["patient"] = f"p{number % 9}"
    catalogue = fill(rows)
    paint(
        {1: 0.5}, gate=_gate(dict.fromkeys(TONES, (0.8, [0.7, 0.9])) | {"V-VI": (0.5, [0.4, 0.6])})
    )
    drawn = _draw(catalogue, "week-1", 90, focus_worst=True)
    assert len(drawn.members) == 90
    assert drawn.by_tone["I-II"] == 9
    assert drawn.by_tone["V-VI"] > drawn.by_tone["III-IV"]


@pytest.mark.slow
def test_draw__odd_slots_take_turns_over_the_rounds(fill: Fill, paint: Paint) -> None:
    """The same seed each week, as people leave it: no tone is always the one that goes without."""
    catalogue = fill(_rows(30))
    paint(dict.fromkeys(range(1, 91), 0.5))
    drawn: Counter[str] = Counter()
    by_lot: Counter[str] = Counter()
    for week in range(6):
        members = _draw(catalogue, f"week-{week}", 10).members
        drawn.update(member.image.tone for member in members)
        by_lot.update(member.image.tone for member in members if member.random)
    assert drawn == dict.fromkeys(TONES, 20)
    assert by_lot == dict.fromkeys(TONES, 4)
    so_far = catalogue.batches.get("week-1").drawn_by["so_far"]
    assert so_far == {
        "drawn": {"I-II": 4, "III-IV": 3, "V-VI": 3},
        "by_lot": {"I-II": 1, "III-IV": 1, "V-VI": 0},
    }


def test_draw__a_size_beyond_counting(fill: Fill, wording: SnapshotAssertion) -> None:
    drawn = _draw(fill(_rows(2)), "week-1", 10**12)
    assert len(drawn.members) == 6
    assert drawn.lacking == wording


@pytest.mark.parametrize("tones", [("V-VI",), ("unknown", "I-II")])
def test_draw__only_the_tones_asked_for(fill: Fill, tones: tuple[str, ...]) -> None:
    catalogue = fill(_rows(10, (*TONES, "unknown")))
    assert set(_draw(catalogue, "week-1", 4, tones=tones).by_tone) == set(tones)


def test_draw__nothing_there(fill: Fill, catalogue: Catalogue, wording: SnapshotAssertion) -> None:
    with pytest.raises(InputError) as error:
        _draw(catalogue, "week-1", 4)
    assert str(error.value) == wording
    fill(_rows(3, ["I-II", "unknown"]))
    with pytest.raises(InputError) as error:
        _draw(catalogue, "week-1", 4, tones=("V-VI",))
    assert str(error.value) == wording


def test_draw__nothing_left_of_the_tone_asked_for(fill: Fill, wording: SnapshotAssertion) -> None:
    catalogue = fill(_rows(2, ["I-II", "unknown"]))
    _draw(catalogue, "week-1", 2, tones=("I-II",))
    with pytest.raises(InputError) as error:
        _draw(catalogue, "week-2", 2, tones=("I-II",))
    assert str(error.value) == wording


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "a" * 101])
def test_draw__unusable_name(catalogue: Catalogue, name: str, refusal: Refusal) -> None:
    with refusal(InputError):
        _draw(catalogue, name, 4)


@pytest.mark.parametrize(("size", "share"), [(0, 20), (5, -1), (5, 101)])
def test_request__refused(size: int, share: float, refusal: Refusal) -> None:
    with refusal(InputError):
        BatchRequest(size, random_share=share)


def test_draw__the_same_request_by_another_is_another_batch(fill: Fill, refusal: Refusal) -> None:
    catalogue = fill({"tone": "I-II"} for _ in range(4))
    draw_batch(catalogue, "auto-1", BatchRequest(1), "manager", origin=BatchOrigin.ROUND)
    with refusal(InputError):
        draw_batch(catalogue, "auto-1", BatchRequest(1), "manager")
    draw_batch(catalogue, "auto-7", BatchRequest(1), "manager")
    assert [b.origin for b in catalogue.batches.all()] == ["round", "person"]
