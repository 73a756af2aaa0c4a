"""What the model's painting was worth: figures checked by hand-made masks, and who is counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from annotation_protocol import metrics
from annotation_protocol.estimates import Estimate, estimate_classes
from annotation_protocol.intervals import MIN_GROUPS
from ddiseg import masks
from ddiseg.catalogue import AnnotationPage, AnnotationVersion, Arm, NewMask, tables
from ddiseg.evaluation.annotator_study import WorkReport, work_report
from ddiseg.evaluation.drift import Drift
from ddiseg.evaluation.interrater import agreement
from ddiseg.evaluation.measures import COMPARED, SECONDS, Metric
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.people import HEIGHT, WIDTH, People, lesion

PIXELS = HEIGHT * WIDTH


@pytest.fixture
def people(workspace: Workspace) -> People:
    return People(workspace, models=2)


def report_of(people: People) -> WorkReport:
    return work_report(people.workspace)


def painted(report: WorkReport, measure: Metric) -> Estimate:
    return report.arms.shown.estimates[measure]


def dice(a: int, b: int) -> float:
    """Of two masks of `lesion`, whose lesions hold a and b pixels."""
    return 2 * min(a, b) / (a + b)


@pytest.mark.slow
def test_agreement__by_hand(people: People) -> None:
    drawn = [(4, 4), (4, 4), (4, 12), (8, 6), (10, 1)]  # lesion pixels: prediction, accepted
    for before, after in drawn:
        people.accept(lesion(after), lesion(before))
    report = report_of(people)
    lesions = [dice(a, b) for a, b in drawn]
    skins = [dice(PIXELS - a, PIXELS - b) for a, b in drawn]
    changed = [abs(a - b) / PIXELS for a, b in drawn]
    expected = {
        Metric.LESION_DICE: np.mean(lesions),
        Metric.MEAN_DICE: np.mean([lesions, skins]),
        Metric.UNCHANGED: 2 / 5,
        Metric.CHANGED_PIXELS: np.mean(changed),
        Metric.MEDIAN_SECONDS: 30,
        Metric.MEAN_SECONDS: 30,
    }
    for measure, value in expected.items():
        figure = painted(report, measure)
        assert figure.value == pytest.approx(value), measure
        assert (figure.n, figure.groups) == (5, 5)
    assert (report.n, report.patients, report.left_out) == (5, 5, ())


@pytest.mark.slow
def test_agreement__prediction_is_stretched_to_the_accepted_mask(people: People) -> None:
    small = np.full((HEIGHT // 2, WIDTH // 2), 4, np.uint8)
    small[0, :2] = 1
    for _ in range(4):
        people.accept(masks.stretch(small, (HEIGHT, WIDTH)), small)
    people.accept(lesion(8), small)
    report = report_of(people)
    assert painted(report, Metric.UNCHANGED).value == pytest.approx(4 / 5)
    # 2 x 4 pixels of lesion against a row of 8: half of each is shared.
    assert painted(report, Metric.LESION_DICE).value == pytest.approx((4 * 1 + 0.5) / 5)


@pytest.mark.slow
def test_agreement__no_lesion_in_either_mask_is_no_lesion_dice(people: People) -> None:
    for _ in range(5):
        people.accept(lesion(4), lesion(4))
    people.accept(lesion(0), lesion(0))
    people.accept(lesion(0), lesion(4))
    report = report_of(people)
    figure = painted(report, Metric.LESION_DICE)
    assert (figure.n, figure.value) == (6, pytest.approx(5 / 6))
    assert painted(report, Metric.MEAN_DICE).n == 7


@pytest.mark.slow
def test_agreement__a_fix_by_the_reviewer_is_what_was_accepted(people: People) -> None:
    for _ in range(5):
        people.accept(lesion(4), lesion(4), fix=lesion(12), seconds=20)
    report = report_of(people)
    assert painted(report, Metric.LESION_DICE).value == pytest.approx(dice(4, 12))
    assert painted(report, Metric.UNCHANGED).value == 0
    assert painted(report, Metric.MEDIAN_SECONDS).value == 20


@pytest.mark.slow
def test_intervals__means_as_evaluate_has_them(people: People) -> None:
    drawn = [(4, 4), (4, 5), (4, 12), (8, 6), (10, 1), (7, 7), (9, 12)] * 2
    patients = [*"aabcdefghijkll"]
    for (before, after), patient in zip(drawn, patients, strict=True):
        people.accept(lesion(after), lesion(before), patient=patient)
    confusions = np.stack([metrics.confusion(lesion(b), lesion(a), 5) for a, b in drawn])
    scores = estimate_classes(confusions, patients, np.ones((14, 5), bool), list("blmrs"))
    figure = painted(report_of(people), Metric.LESION_DICE)
    assert figure.interval is not None
    assert figure.interval == pytest.approx(scores["l"].dice_mean.interval)
    assert figure.value == pytest.approx(scores["l"].dice_mean.value)
    assert (figure.n, figure.groups) == (14, 12)


@pytest.mark.slow
def test_intervals__median_of_seconds(people: People) -> None:
    seconds = [40.0, 10.0, 11.0, 300.0, 25.0, 60.0, 7.0, 33.0, 18.0, 90.0, 21.0]
    for value in seconds:
        people.accept(lesion(4), lesion(4), seconds=value)
    figure = painted(report_of(people), Metric.MEDIAN_SECONDS)
    assert figure.value == 25
    # Eleven images: exact order statistics (2nd and 10th) hold the median 98.8 % of the time.
    low, high = figure.interval or (0, 0)
    assert 10 <= low < 25 < high <= 90


@pytest.mark.slow
@pytest.mark.parametrize(("accepted", "share"), [(4, 1.0), (5, 0.0)])
def test_intervals__all_or_none_unchanged_is_not_certain(
    people: People, accepted: int, share: float
) -> None:
    for _ in range(10):
        people.accept(lesion(accepted), lesion(4))
    figure = painted(report_of(people), Metric.UNCHANGED)
    assert figure.value == share
    # Wilson's interval of 0 in 10 with Student's quantile for nine degrees of freedom.
    reach = 1 / (1 + 10 / 2.2622**2)
    far = (0.0, reach) if share == 0 else (1 - reach, 1.0)
    assert figure.interval == pytest.approx(far, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "patient"), [(4, None), (6, "the same")])
def test_too_few__value_and_n_without_interval(people: People, n: int, patient: str | None) -> None:
    for _ in range(n):
        people.accept(lesion(4), lesion(4), patient=patient)
    figures = report_of(people).arms.shown.estimates
    for metric, found in figures.items():
        size = (0, 0) if metric is Metric.READERS_DICE else (n, 1 if patient else n)
        assert (found.n, found.groups) == size
        assert (found.value is None) == (found.n == 0)
        assert found.interval is None


@pytest.mark.slow
def test_seconds__missing_ones_are_counted(people: People) -> None:
    for seconds in (10.0, 20.0, 30.0, 40.0, 400.0, None, None):
        people.accept(lesion(4), lesion(4), seconds=seconds)
    report = report_of(people)
    group = report.arms.shown
    assert (group.n, group.not_timed) == (7, 2)
    median, mean = (group.estimates[measure] for measure in SECONDS)
    assert (median.value, median.n) == (30, 5)
    assert (mean.value, mean.n) == (100, 5)
    assert painted(report, Metric.UNCHANGED).n == 7


def two_arms(people: People, control_seconds: float = 90.0) -> None:
    for k in range(10):
        people.accept(lesion(10), lesion(9), seconds=30.0 + k)
        people.accept(lesion(10), lesion(5), arm=Arm.CONTROL, seconds=control_seconds + k)
    people.accept(lesion(10), seconds=200)


@pytest.mark.slow
def test_arms__side_by_side(people: People) -> None:
    two_arms(people)
    arms = report_of(people).arms
    assert (arms.shown.n, arms.control.n, arms.bare.n) == (10, 10, 1)
    assert arms.control.estimates[Metric.LESION_DICE].value == pytest.approx(dice(10, 5))
    assert arms.bare.estimates[Metric.LESION_DICE] == Estimate(None, None, None, 0, 0)
    assert arms.bare.estimates[Metric.MEDIAN_SECONDS].n == 1
    assert tuple(arms.difference) == COMPARED
    seconds = arms.difference[Metric.MEDIAN_SECONDS]
    assert seconds.value == pytest.approx(-60)
    assert (seconds.n, seconds.groups) == ((10, 10), (10, 10))
    assert seconds.interval is not None
    assert -68 <= seconds.interval[0] < -60 < seconds.interval[1] <= -52
    closer = arms.difference[Metric.LESION_DICE]
    assert closer.value == pytest.approx(dice(10, 9) - dice(10, 5))


@pytest.mark.slow
def test_arms__of_different_patients_vary_by_themselves(people: People) -> None:
    two_arms(people, control_seconds=30.0)
    difference = report_of(people).arms.difference[Metric.MEAN_SECONDS]
    assert difference.value == 0
    assert difference.interval is not None
    # The variance of a difference is the sum of both; of the same patients it would be 0.
    one = np.std([30.0 + k for k in range(10)], ddof=1) / np.sqrt(10)
    assert difference.interval[1] == pytest.approx(2.262 * np.sqrt(2) * one, rel=0.1)


@pytest.mark.slow
def test_arms__too_few_in_one_is_no_interval(people: People) -> None:
    for _ in range(5):
        people.accept(lesion(4), lesion(4))
    for _ in range(4):
        people.accept(lesion(4), lesion(4), arm=Arm.CONTROL)
    arms = report_of(people).arms
    assert arms.shown.estimates[Metric.LESION_DICE].value == 1
    readers = arms.difference.pop(Metric.READERS_DICE)
    assert readers.n == (0, 0)
    for difference in arms.difference.values():
        assert (difference.value, difference.interval, difference.n) == (0, None, (5, 4))


def test_arms__a_person_s_mask_was_painted_is_in_none(people: People) -> None:
    people.accept(lesion(4), lesion(4))
    people.accept(lesion(4), lesion(4), given_out_again=True)
    report = report_of(people)
    assert (report.n, report.in_no_arm, report.arms.shown.n) == (2, 1, 1)
    assert report.by_tone["I-II"].shown.n == 1


@pytest.mark.slow
def test_by_tone_and_model(people: People) -> None:
    for tone, model, accepted in (("V-VI", 1, 4), ("I-II", 0, 12), ("V-VI", 0, 4)):
        for _ in range(5):
            people.accept(lesion(accepted), lesion(4), tone=tone, model=model)
    for _ in range(5):
        people.accept(lesion(10), lesion(1), tone="V-VI", model=1, arm=Arm.CONTROL)
    people.accept(lesion(10), tone="unknown")
    report = report_of(people)
    assert list(report.by_tone) == ["I-II", "V-VI", "unknown"]
    light, dark = report.by_tone["I-II"], report.by_tone["V-VI"]
    assert (light.shown.n, light.control.n, dark.shown.n, dark.control.n) == (5, 0, 10, 5)
    assert light.shown.estimates[Metric.LESION_DICE].value == pytest.approx(dice(4, 12))
    assert dark.shown.estimates[Metric.LESION_DICE].value == 1
    assert dark.difference[Metric.LESION_DICE].value == pytest.approx(1 - dice(10, 1))
    # Models: only what people were shown, the control arm would be another question.
    assert {name: group.n for name, group in report.by_model.items()} == {"fedd-1": 10, "fedd-2": 5}
    assert report.by_model["fedd-2"].estimates[Metric.LESION_DICE].value == 1


def test_counted__accepted_masks_of_the_server_only(filled: Workspace) -> None:
    people = People(filled)  # 1.png has an accepted mask that came from a file
    given = people.give_out(lesion(4))
    people.draw(given, lesion(4), 30)
    assert report_of(people).n == 0
    people.accept(lesion(4), lesion(4))
    assert report_of(people).n == 1


def receive(
    people: People,
    image_id: int,
    drawn: NDArray[np.uint8],
    person: str,
    annotation: int = 0,
    classes: tuple[int, ...] = (0, 1, 2, 3, 4),
) -> None:
    """A later annotation of an image that annotator-1 has drawn; 0 is a new version of that one."""
    catalogue = people.catalogue
    tasks = catalogue.tasks.tasks(people.project_id)
    [task] = [task.id for task in tasks if task.image_id == image_id]
    content = people.workspace.store_mask(drawn)
    could = list(classes)
    mask = NewMask(image_id, content, WIDTH, HEIGHT, "same", could, "1.0", annotator=person)
    number = 500 + image_id + 1000 * annotation
    received = AnnotationVersion(task, number, "2026-01-02T00:00:00.000000Z", (person,), 20.0, mask)
    standing = {500 + image_id + 1000 * k for k in range(annotation + 1)}
    catalogue.tasks.receive(people.project_id, AnnotationPage([received], {task: standing}))


def read_again(people: People, image_id: int, drawn: NDArray[np.uint8], reader: int = 2) -> None:
    receive(people, image_id, drawn, f"annotator-{reader}", annotation=reader)


class Clock:
    """Stands in for the class datetime; it shows the same moment until it is set anew."""

    def __init__(self, day: str) -> None:
        self.day = day

    def now(self, zone: tzinfo) -> datetime:
        return datetime.fromisoformat(self.day).replace(tzinfo=zone)


@pytest.mark.slow
def test_readers__as_agreement_has_them(people: People) -> None:
    for k in range(6):
        arm = Arm.CONTROL if k == 5 else None
        image_id = people.accept(lesion(10), lesion(9), arm=arm)
        read_again(people, image_id, lesion(5 + k))
    read_again(people, image_id, lesion(20), reader=3)
    people.accept(lesion(10), lesion(9))  # read once
    report = report_of(people)
    seen = painted(report, Metric.READERS_DICE)
    assert seen.value == pytest.approx(np.mean([dice(10, 5 + k) for k in range(5)]))
    assert (seen.n, seen.groups) == (5, 5)
    assert report.arms.control.estimates[Metric.READERS_DICE].n == 1
    assert report.arms.difference[Metric.READERS_DICE].n == (5, 1)
    alone = agreement(people.workspace, people.catalogue.tasks.readings())
    by_image = {c.image.id: c.measures["lesion_dice"] for c in alone.pairs}
    assert seen.value == pytest.approx(np.mean([by_image[k] for k in range(1, 6)]))


@pytest.mark.slow
def test_readers__without_a_lesion_are_not_measured(people: People) -> None:
    for _ in range(5):
        read_again(people, people.accept(lesion(0), lesion(9)), lesion(0))
    assert painted(report_of(people), Metric.READERS_DICE).n == 0


def test_readers__who_could_not_draw_a_lesion_are_not_compared(people: People) -> None:
    image_id = people.accept(lesion(4), lesion(9))
    receive(people, image_id, lesion(0), "annotator-2", annotation=2, classes=(0, 4))
    assert painted(report_of(people), Metric.READERS_DICE).n == 0


@pytest.mark.slow
def test_order__is_the_event_log_s_and_not_the_clock_s(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock stands still, jumps ahead, and is set back by a year."""
    days = ["2026-03-02"] * 8 + ["2027-03-02"] * 2 + ["2026-03-02"] * 10
    for k, day in enumerate(days):
        monkeypatch.setattr(tables, "datetime", Clock(day))
        people.accept(lesion(4), lesion(4 if k >= 10 else 5))
    report = report_of(people)
    [early, late] = report.drift.periods
    assert [p.masks.estimates[Metric.UNCHANGED].value for p in (early, late)] == [0, 1]
    assert (early.first, early.last, late.first, late.last) == (1, 10, 11, 20)
    assert early.days == ("2026-03-02", "2027-03-02")
    assert late.days == ("2026-03-02", "2026-03-02")
    assert report.set_back == 1
    assert report.accepted is not None
    assert [at[:10] for at in report.accepted] == ["2026-03-02", "2027-03-02"]


@pytest.mark.slow
def test_order__accepted_again_counts_where_it_was_accepted_last(people: People) -> None:
    first = people.accept(lesion(4), lesion(4))
    for _ in range(19):
        people.accept(lesion(5), lesion(4))
    people.catalogue.images.reopen(first, "manager")
    receive(people, first, lesion(4), "annotator-1")
    waiting = people.catalogue.masks.in_review()[first]
    people.catalogue.masks.review(waiting.id, "reviewer-1", "accept")
    late = report_of(people).drift.periods[-1]
    assert late.masks.estimates[Metric.UNCHANGED].value == pytest.approx(0.1)


def damaged(people: People, image_id: int) -> Path:
    """The file of an image's accepted mask."""
    mask = people.catalogue.masks.accepted()[image_id]
    return Path(people.workspace.store.path(Kind.MASK, mask.content_hash))


@pytest.mark.slow
def test_damaged__left_out_and_named(people: People) -> None:
    for k in range(5):
        people.accept(lesion(4 + k), lesion(4))
    missing, broken = people.accept(lesion(20), lesion(4)), people.accept(lesion(21), lesion(4))
    damaged(people, missing).unlink()
    damaged(people, broken).write_bytes(b"no PNG")
    report = report_of(people)
    assert report.n == report.arms.shown.n == 5
    assert len(report.left_out) == 2
    assert report.left_out[0].startswith("drawn-6.png: ")
    assert "the stored file is missing" in report.left_out[0]
    assert report.left_out[1].startswith("drawn-7.png: ")


def test_empty(workspace: Workspace) -> None:
    report = work_report(workspace)
    assert (report.n, report.accepted, report.by_tone, report.by_model) == (0, None, {}, {})
    assert (report.drift, report.drift_by_tone, report.set_back) == (Drift(0, 0), {}, 0)
    assert json.loads(json.dumps(report.as_dict()))["n"] == 0


def test_progress__counts_the_masks_that_are_compared_and_none_twice(people: People) -> None:
    for _ in range(2):
        people.accept(lesion(4), lesion(4))
    people.accept(lesion(4))
    seen: list[tuple[int, int]] = []
    report = work_report(people.workspace, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    for file in (people.workspace.root / "store" / "masks").rglob("*.png"):
        file.unlink()
    again = work_report(people.workspace, lambda done, total: seen.append((done, total)))
    assert (again, len(seen)) == (report, 2), "no file is read again"


@pytest.mark.slow
def test_as_dict__json_and_every_interval_has_its_n(people: People) -> None:
    two_arms(people)
    report = report_of(people)
    data = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert data["arms"]["painted"]["n"] == 10
    assert data["arms"]["painted_minus_control"]["median_seconds"]["n"] == [10, 10]
    assert data["by_tone"]["I-II"]["bare"]["not_timed"] == 0
    assert data["accepted_from"] < data["accepted_to"]
    figures = list(figures_in(data))
    assert len(figures) == 2 * (3 * len(Metric) + len(COMPARED)) + len(Metric)
    for figure in figures:
        assert set(figure) == {"value", "interval", "n", "patients"}
        patients = np.min(figure["patients"])
        assert (figure["interval"] is not None) == (patients >= MIN_GROUPS)
        assert (figure["value"] is not None) == (patients > 0)


def figures_in(data: Any) -> Iterator[dict[str, Any]]:
    if isinstance(data, dict):
        if "interval" in data:
            yield data
        for value in data.values():
            yield from figures_in(value)
