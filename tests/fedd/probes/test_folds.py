from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from fedd.backbone import DiffusionUNet
from fedd.probes.folds import assign_folds, cross_fitted
from fedd.probes.pixels import prepare_example
from fedd.probes.training import Example, train_probes
from fedd.segment import Probes
from tests.fedd.conftest import CLASSES, QUICK, spot

#: Eight patients of two images each, and two folds of two members each.
EXAMPLES = [Example(*spot(s), patient=f"patient-{s // 2}") for s in range(16)]
FOLDED = replace(
    QUICK, members=4, folds=2, validation_share=0.0, averaging=0.5, views=0, steps=40, warm_steps=10
)


@pytest.fixture(scope="module")
def folded(tiny: DiffusionUNet) -> Probes:
    return train_probes(EXAMPLES, tiny, FOLDED, CLASSES)


@given(st.lists(st.integers(0, 9), min_size=10, max_size=40), st.integers(2, 4), st.integers(0, 99))
def test_assign__whole_patients_in_any_order(images: list[int], count: int, seed: int) -> None:
    patients = [f"p{i}" for i in images]
    folds = assign_folds(patients, count, seed, {})
    if len(set(patients)) < 2 * count:
        assert folds == ()
        return
    of_patient = dict(zip(patients, folds, strict=True))
    assert [of_patient[p] for p in patients] == list(folds)
    assert set(folds) == set(range(count))
    turned = assign_folds(patients[::-1], count, seed, {})
    assert dict(zip(patients[::-1], turned, strict=True)) == of_patient
    sizes = Counter(folds)
    assert max(sizes.values()) - min(sizes.values()) <= max(Counter(patients).values())


def test_assign__patients_keep_their_fold() -> None:
    before = [f"p{i}" for i in range(8)]
    earlier = dict(zip(before, assign_folds(before, 2, 0, {}), strict=True))
    more = ["p9", *before, "a", "b"]
    after = dict(zip(more, assign_folds(more, 2, 0, earlier), strict=True))
    assert {p: after[p] for p in before} == earlier


@pytest.mark.training
def test_folds__members_see_nothing_of_their_fold(tiny: DiffusionUNet) -> None:
    """The masks of one fold show a class that no other shows: its own members never learn it."""
    folds = assign_folds([e.patient for e in EXAMPLES], 2, FOLDED.seed, {})
    ruled = [
        replace(e, mask=e.mask * 0 + 3) if fold == 1 else e
        for e, fold in zip(EXAMPLES, folds, strict=True)
    ]
    probes = train_probes(ruled, tiny, FOLDED, CLASSES)
    shares = []
    for each in cross_fitted(probes):
        found = each.probes.predict(tiny, [e.photograph for e in EXAMPLES[:4]])
        shares.append(sum(float((one.mask == 3).mean()) for one in found) / 4)
    assert shares[0] > 0.3, "these learned from fold 1"
    assert shares[1] == 0, "these did not"


@pytest.mark.training
def test_cross_fitted__each_image_once_and_only_unseen(folded: Probes, tiny: DiffusionUNet) -> None:
    digests = [prepare_example(e, tiny.image_size).digest for e in EXAMPLES]
    found = cross_fitted(folded)
    assert [each.probes.settings.members for each in found] == [2, 2]
    assert sorted(d for each in found for d in each.images) == sorted(digests)
    assert folded.record.learned == tuple(digests), "and the ensemble learned from all"
    for fold, each in enumerate(found):
        assert torch.equal(each.probes.tensors["w1"], folded.tensors["w1"][fold::2])


@pytest.mark.training
def test_folds__calibrate_without_a_validation_split(folded: Probes) -> None:
    assert folded.record.validation == ()
    assert folded.record.notes == ()
    assert folded.calibration is not None
    assert folded.calibration.images == len(EXAMPLES)
    assert folded.calibration.ece <= folded.calibration.ece_before + 0.01


@pytest.mark.training
def test_folds__too_few_patients_say_so(tiny: DiffusionUNet, wording: SnapshotAssertion) -> None:
    few = train_probes(EXAMPLES[:6], tiny, FOLDED, CLASSES)
    assert (few.record.folds, few.calibration, cross_fitted(few)) == ((), None, [])
    assert few.record.notes == wording


@pytest.mark.training
def test_warm_start__images_stay_unseen(folded: Probes, tiny: DiffusionUNet) -> None:
    more = [Example(*spot(s), patient=f"patient-{s // 2}") for s in range(15, -5, -1) if s >= 0]
    more += [Example(*spot(s), patient=f"new-{s}") for s in range(40, 44)]
    warm = train_probes(more, tiny, FOLDED, CLASSES, warm_start=folded)
    assert (warm.record.warm_start, warm.record.steps) == (True, 10)
    before = dict(zip(folded.record.learned, folded.record.folds, strict=True))
    after = dict(zip(warm.record.learned, warm.record.folds, strict=True))
    assert {d: after[d] for d in before} == before


@pytest.mark.training
@pytest.mark.parametrize("kind", ["merged patients", "no folds before"])
def test_warm_start__from_scratch_where_members_have_seen_their_fold(
    kind: str, folded: Probes, tiny: DiffusionUNet, wording: SnapshotAssertion
) -> None:
    examples, earlier = EXAMPLES, folded
    if kind == "merged patients":
        folds = dict(zip((e.patient for e in EXAMPLES), folded.record.folds, strict=True))
        apart = {min(p for p in folds if folds[p] == fold) for fold in (0, 1)}
        examples = [replace(e, patient="one") if e.patient in apart else e for e in EXAMPLES]
    else:
        earlier = train_probes(EXAMPLES[:6], tiny, replace(FOLDED, steps=2), CLASSES)
        earlier.settings = FOLDED
    found = train_probes(examples, tiny, FOLDED, CLASSES, warm_start=earlier)
    assert not found.record.warm_start
    assert found.record.folds
    assert found.record.notes == wording


@pytest.mark.training
def test_folds__a_refiner_has_those_of_its_probes(tiny: DiffusionUNet) -> None:
    settings = replace(FOLDED, refined_class="lesion", steps=4)
    probes = train_probes(EXAMPLES, tiny, settings, CLASSES)
    assert probes.refiner is not None
    assert set(probes.refiner.record.folds) == {0, 1}
    assert len(probes.refiner.record.folds) == len(probes.refiner.record.learned)
    for each in cross_fitted(probes):
        assert each.probes.refiner is not None
        assert len(each.probes.refiner.tensors["w1"]) == 2
        each.probes.predict(tiny, [EXAMPLES[0].photograph])
