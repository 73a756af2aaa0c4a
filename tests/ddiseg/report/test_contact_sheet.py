"""The images of the contact sheet, against a choice among all of them loaded."""

from __future__ import annotations

import random

import pytest

from annotation_protocol import load_protocol, metrics
from ddiseg.catalogue.lifecycle import State
from ddiseg.catalogue.tables import Mask
from ddiseg.report import contact_sheet, page
from ddiseg.report.contact_sheet import ACCEPTED, TRUTH, Pair, Pairs, Reference, choose
from ddiseg.report.page import write_report
from ddiseg.workspace.workspace import Workspace

LESION, CLASSES = 1, 5


@pytest.mark.slow
@pytest.mark.parametrize(("compared", "evaluated"), [(200, True), (4, True), (4, False)])
def test_pairs__as_of_all_images(
    scale_workspace: Workspace, monkeypatch: pytest.MonkeyPatch, compared: int, evaluated: bool
) -> None:
    monkeypatch.setattr(contact_sheet, "COMPARED", compared)
    catalogue = scale_workspace.catalogue
    if not evaluated:
        with catalogue._database.write() as session:
            session.connection().exec_driver_sql("DELETE FROM evaluated_images")
    pairs, sampled = Pairs(scale_workspace), False
    for tone in load_protocol().tones:
        found = choose(pairs.of_tone(catalogue.images.ids(tone=tone.name), tone.name))
        expected, more = _all_of_tone(scale_workspace, tone.name, compared)
        sampled |= more
        assert [_shown(pair) for pair in found] == [_shown(pair) for pair in choose(expected)]
        assert found
    assert pairs.sampled == sampled
    assert sampled == (compared == 4)


def _shown(pair: Pair) -> tuple[object, ...]:
    prediction = pair.prediction and pair.prediction.id
    flags = pair.trained_on, pair.compared, pair.lesion_iou
    return pair.image.id, prediction, pair.reference, *flags


def _all_of_tone(workspace: Workspace, tone: str, most: int) -> tuple[list[Pair], bool]:
    """Return the pairs of all images of a tone, and whether only some are compared."""
    catalogue = workspace.catalogue
    accepted, predictions = catalogue.masks.accepted(), catalogue.masks.newest_predictions()
    choices = catalogue.provenance.unleaked_predictions()
    evaluated = catalogue.evaluations.last_compared()
    masks = {mask.id: mask for mask in catalogue.masks.all()}
    pairs = []
    for image in catalogue.images.select():
        mask, choice = accepted.get(image.id), choices.get(image.id)
        if image.tone != tone:
            continue
        if each := evaluated.get(image.id):
            own = mask is not None and mask.content_hash == each.truth_hash
            reference = Reference(ACCEPTED if own else TRUTH, each.truth_hash)
            iou = each.lesion_iou
            pair = Pair(image, masks[each.mask_id], reference, compared=True, lesion_iou=iou)
        elif mask is not None:
            unleaked = masks[choice.mask_id] if choice else None
            trained_on = choice is None and image.id in choices
            reference = Reference(ACCEPTED, mask.content_hash)
            pair = Pair(image, unleaked, reference, trained_on=trained_on)
        else:
            pair = Pair(image, predictions.get(image.id), None)
        pairs.append(pair)
    random.Random(tone).shuffle(pairs)
    comparable = [
        n
        for n, p in enumerate(pairs)
        if p.prediction and p.reference and p.image.id not in evaluated
    ]
    for n in comparable[:most]:
        image, prediction = pairs[n].image, pairs[n].prediction
        assert prediction is not None
        iou = _lesion_iou(workspace, accepted[image.id], prediction)
        pairs[n] = Pair(image, prediction, pairs[n].reference, compared=True, lesion_iou=iou)
    return pairs, len(comparable) > most


def _lesion_iou(workspace: Workspace, accepted: Mask, prediction: Mask) -> float:
    truth, predicted = workspace.mask(accepted), workspace.mask(prediction)
    confusion = metrics.confusion(truth, predicted, CLASSES)
    return float(metrics.iou_per_class(confusion)[LESION])


@pytest.mark.slow
@pytest.mark.parametrize("promoted", [True, False])
@pytest.mark.parametrize("rated", [True, False])
def test_most_doubtful__as_of_all_images(
    scale_workspace: Workspace, promoted: bool, rated: bool
) -> None:
    catalogue = scale_workspace.catalogue
    with catalogue._database.write() as session:
        if not promoted:
            session.connection().exec_driver_sql("DELETE FROM promotions")
        if rated:  # but for some of each version
            session.connection().exec_driver_sql(
                "UPDATE masks SET quality = uncertainty * uncertainty "
                "WHERE model_version_id IS NOT NULL AND id % 5 > 0"
            )
    current = catalogue.models.current_or_none()
    shown = catalogue.masks.newest_predictions()
    states = {image.id: image.state for image in catalogue.images.select()}
    open_ = [
        (_doubt(mask, current.id if current else None), image_id)
        for image_id, mask in shown.items()
        if states[image_id] not in (State.ACCEPTED, State.SKIPPED)
    ]
    first = [image_id for _, image_id in sorted(open_)]
    assert catalogue.masks.most_doubtful(12) == first[:12]
    assert catalogue.masks.most_doubtful(len(first)) == first
    assert catalogue.masks.count_predicted() == len(shown)


def _doubt(mask: Mask, current: int | None) -> tuple[bool, bool, float]:
    assert mask.uncertainty is not None
    if mask.quality is None:
        return (True, True, -mask.uncertainty)
    return (False, mask.model_version_id != current, mask.quality)


@pytest.mark.slow
def test_write_report__large_page_is_made_anew_with_coarser_pictures(
    scale_workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write_report(scale_workspace)
    whole = first.path.stat().st_size
    monkeypatch.setattr(page, "MOST_BYTES", whole - 1)
    summary = write_report(scale_workspace)
    assert 0 < summary.path.stat().st_size < whole
    assert summary.shown == first.shown
