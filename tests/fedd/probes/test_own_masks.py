"""A training measures itself on its own masks, each by the members that did not learn from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedd.backbone import DiffusionUNet
from fedd.dataset import UNKNOWN
from fedd.probes.choice import FEWEST
from fedd.probes.decision import DEFAULT, Decision, Refinement, SecondPass
from fedd.probes.pixels import Example, prepare_example
from fedd.probes.training import train_probes
from fedd.probes.unseen import SIDE, KeptExamples, predict_unseen, unseen_parts
from fedd.segment import Probes
from tests.fedd.conftest import CLASSES, QUICK, spot

FOLDED = replace(
    QUICK,
    members=2,
    folds=2,
    validation_share=0.0,
    averaging=0.5,
    views=0,
    steps=40,
    refined_class="lesion",
)
EXAMPLES = [Example(*spot(s), patient=f"patient-{s}") for s in range(FEWEST)]


@pytest.fixture(scope="module")
def probes(tiny: DiffusionUNet) -> Probes:
    return train_probes(EXAMPLES, tiny, FOLDED, CLASSES)


def kept(examples: list[Example], limit: int = 60) -> KeptExamples:
    found = KeptExamples(0, limit)
    for example in examples:
        found.add(example, prepare_example(example, 32).digest, example.patient)
    return found


@pytest.mark.training
def test_train__decides_and_expects_by_its_own_masks(probes: Probes) -> None:
    own = probes.own_masks
    assert own is not None
    assert own.choice.decision == probes.decision
    assert own.choice.candidates[0].iou.n == FEWEST
    assert probes.quality is not None
    assert probes.quality.classes[1].n == FEWEST, "its expected IoU is fitted to them"
    assert own.reliability["lesion"].spearman.n == FEWEST
    digests = {prepare_example(e, 32).digest for e in EXAMPLES}
    assert {each.digest for each in own.masks} == digests
    assert all(0.5 < each.predicted / each.accepted < 2 for each in own.masks)


@pytest.mark.training
def test_train__default_and_prior_with_too_few_masks(tiny: DiffusionUNet) -> None:
    settings = replace(FOLDED, steps=5)
    stages: list[str] = []

    def stage(name: str) -> object:
        stages.append(name)
        return lambda done, total: None

    found = train_probes(EXAMPLES[:-1], tiny, settings, CLASSES, stage)  # type: ignore[arg-type]
    assert found.decision == DEFAULT
    assert found.own_masks is not None
    assert found.own_masks.choice.candidates == ()
    assert found.own_masks.choice.why.startswith(f"the default: unseen masks of {FEWEST - 1}")
    assert found.quality is not None
    assert found.quality.classes[1].n == 0
    assert "Own masks through the backbone" not in stages, "nothing is predicted for it"


@pytest.mark.training
def test_unseen__predicted_by_members_of_its_own_fold(probes: Probes, tiny: DiffusionUNet) -> None:
    fold_of = dict(zip(probes.record.learned, probes.record.folds, strict=True))
    found = predict_unseen(unseen_parts(probes, kept(EXAMPLES)), tiny)
    assert len(found) == FEWEST
    for each in found:
        member = fold_of[each.kept.digest]
        assert each.probes.tensors["w1"].equal(probes.tensors["w1"][[member]])


@pytest.mark.training
def test_unseen__mask_as_these_members_would_predict_it(
    probes: Probes, tiny: DiffusionUNet
) -> None:
    each = predict_unseen(unseen_parts(probes, kept(EXAMPLES)), tiny)[0]
    for decision in (
        DEFAULT,
        Decision(SecondPass.OFF, threshold=0.4),
        Decision(SecondPass.REPLACE, Refinement.GRABCUT),
    ):
        each.probes.decision = decision
        predicted = each.probes.predict(tiny, [each.kept.photograph])[0].mask
        np.testing.assert_array_equal(each.mask(decision), predicted)


@pytest.mark.training
def test_unseen__iou_over_known_pixels(probes: Probes, tiny: DiffusionUNet) -> None:
    each = predict_unseen(unseen_parts(probes, kept(EXAMPLES)), tiny)[0]
    mask = each.kept.mask.copy()
    assert each.iou(mask).tolist() == [1, 1, 1, 1, 1], "classes in neither mask count as right"
    rows = mask.copy()
    rows[rows == 1] = 4
    assert each.iou(rows)[1] == 0
    half = replace(each, kept=replace(each.kept, mask=np.where(mask == 1, UNKNOWN, mask)))
    assert half.iou(rows)[4] == 1, "where nobody labelled, nothing is wrong"


def test_kept__the_same_part_in_any_order_and_at_a_bounded_size() -> None:
    large = [Example(*spot(s, (SIDE, 2 * SIDE)), patient=f"p{s}") for s in range(2)]
    for order in (EXAMPLES, EXAMPLES[::-1]):
        assert [e.digest for e in kept(order, 4)] == [e.digest for e in kept(EXAMPLES, 4)]
    assert len(list(kept(EXAMPLES, 4))) == 4
    assert [e.photograph.shape for e in kept(large)] == [(SIDE // 2, SIDE, 3)] * 2


def test_kept__not_a_mask_of_one_class_with_the_rest_unlabelled() -> None:
    image, mask = spot(0)
    partial = Example(image, np.where(mask == 1, 1, UNKNOWN).astype(np.uint8))
    assert list(kept([partial])) == []


def test_kept__not_a_mask_of_strokes() -> None:
    """Their IoU would be of pixels that stay clear of edges."""
    image, mask = spot(0)
    strokes = np.where(np.arange(40)[:, None] % 20 < 3, mask, UNKNOWN).astype(np.uint8)
    assert set(np.unique(strokes)) == {1, 4, UNKNOWN}
    assert list(kept([Example(image, strokes)])) == []
    without_hair = mask.copy()
    without_hair[:, ::10] = UNKNOWN
    assert len(list(kept([Example(image, without_hair)]))) == 1


def test_kept__a_whole_mask() -> None:
    image, mask = spot(0)
    assert len(list(kept([Example(image, mask)]))) == 1
