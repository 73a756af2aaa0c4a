from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedd.backbone import IMAGENET_256, DiffusionUNet
from fedd.errors import TrainingDataError, WeightsError
from fedd.malignancy.colours import COLOURS
from fedd.malignancy.discrimination import roc_auc, youden_threshold
from fedd.malignancy.linear import (
    LinearClassifier,
    LinearExamples,
    LinearSettings,
    LinearTraining,
    Reader,
    cross_validated,
    grouped_folds,
    linear_settings,
    train_linear,
)
from fedd.malignancy.stored import load_classifier, probability
from fedd.weights.files import read_safetensors, write_safetensors
from tests.fedd.conftest import TINY
from tests.wording import Refusal

SETTINGS = LinearSettings((3, 5), 10, ("itch",))
GROUPS = [f"p{n // 2}" for n in range(60)]
MALIGNANT = np.arange(60) // 2 % 3 == 0


def _examples(seed: int = 0) -> LinearExamples:
    """60 images of 30 patients; activations tell malignancy well, itching somewhat, colour not at all."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(60, COLOURS + 40)).astype(np.float32)
    features[:, COLOURS:] += 2 * MALIGNANT[:, None]
    itch = np.where(rng.random(60) < 0.9, MALIGNANT, ~MALIGNANT)
    return LinearExamples(features, MALIGNANT, [{"itch": str(bool(i))} for i in itch])


@pytest.fixture(scope="module")
def done(tiny: DiffusionUNet) -> LinearTraining:
    return train_linear(_examples(), GROUPS, tiny, SETTINGS)


def test_train__beside_it_stand_colour_and_the_covariates_alone(done: LinearTraining) -> None:
    auc = {reader: roc_auc(MALIGNANT, read) for reader, read in done.probabilities.items()}
    assert list(auc) == [Reader.ALL, Reader.COLOUR, Reader.COVARIATES]
    assert auc[Reader.ALL] > 0.9
    assert 0.3 < auc[Reader.COLOUR] < 0.7
    assert 0.7 < auc[Reader.COVARIATES] < 0.97
    assert done.folds == 5
    assert done.classifier.threshold == youden_threshold(MALIGNANT, done.probabilities[Reader.ALL])


def test_train__without_covariates(tiny: DiffusionUNet) -> None:
    found = train_linear(_examples(), GROUPS, tiny, replace(SETTINGS, covariates=()))
    assert list(found.probabilities) == [Reader.ALL, Reader.COLOUR]
    features = _examples().features
    told = found.classifier.probabilities(features, _examples().answers)
    np.testing.assert_array_equal(told, found.classifier.probabilities(features))


def test_cross_validation__no_image_is_told_by_its_own_patient() -> None:
    """Noise that names the patient is of no use for other patients."""
    examples = _examples()
    names = np.random.default_rng(5).normal(size=(30, 2000)).astype(np.float32) * 5
    no_colours = np.zeros((60, COLOURS), np.float32)
    of_patient = np.column_stack([no_colours, names[np.arange(60) // 2]])
    known = replace(examples, features=of_patient)
    found = cross_validated(known, GROUPS, replace(SETTINGS, covariates=()))[Reader.ALL]
    leaking = cross_validated(known, [str(n) for n in range(60)], replace(SETTINGS, covariates=()))
    assert roc_auc(MALIGNANT, leaking[Reader.ALL]) > 0.95
    assert roc_auc(MALIGNANT, found) < 0.75


def test_cross_validation__the_model_of_the_other_folds(tiny: DiffusionUNet) -> None:
    examples = _examples()
    fold = grouped_folds(MALIGNANT, GROUPS, 5, 0)
    rest = [g for g, f in zip(GROUPS, fold, strict=True) if f != 2]
    classifier = train_linear(examples.of(fold != 2), rest, tiny, SETTINGS).classifier
    tested = examples.of(fold == 2)
    found = cross_validated(examples, GROUPS, SETTINGS)
    for reader in Reader:
        expected = classifier.probabilities(tested.features, tested.answers, reader)
        np.testing.assert_allclose(found[reader][fold == 2], expected)


def test_folds__whole_groups_and_both_classes_in_each() -> None:
    fold = grouped_folds(MALIGNANT, GROUPS, 5, 0)
    assert sorted(set(fold)) == [0, 1, 2, 3, 4]
    assert all(
        len({f for f, g in zip(fold, GROUPS, strict=True) if g == name}) == 1 for name in GROUPS
    )
    for number in range(5):
        assert MALIGNANT[fold == number].sum() == 4
        assert (~MALIGNANT[fold == number]).sum() == 8
    order = np.random.default_rng(1).permutation(60)
    shuffled = grouped_folds(MALIGNANT[order], [GROUPS[i] for i in order], 5, 0)
    np.testing.assert_array_equal(shuffled, fold[order])
    assert not np.array_equal(grouped_folds(MALIGNANT, GROUPS, 5, 1), fold)


def test_folds__as_many_as_there_are_patients_of_a_class() -> None:
    malignant = np.arange(20) < 3
    assert set(grouped_folds(malignant, [str(n) for n in range(20)], 5, 0)) == {0, 1, 2}


def test_folds__one_patient_of_a_class(refusal: Refusal) -> None:
    with refusal(TrainingDataError):
        grouped_folds(np.arange(20) < 2, [str(max(n, 1)) for n in range(20)], 5, 0)


def test_missing_answers__add_nothing_to_the_logit(done: LinearTraining) -> None:
    row = _examples().features[:1]
    missing = done.classifier.probabilities(row)[0]
    yes, no = (done.classifier.probabilities(row, [{"itch": i}])[0] for i in ("True", "False"))
    assert no < missing < yes
    assert probability(done.classifier, row[0], {"itch": "True"}) == yes
    assert probability(done.classifier, row[0], {"itch": "UNK"}) == missing


def test_file__predicts_as_before(done: LinearTraining, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    done.classifier.save(path)
    again = load_classifier(path)
    assert isinstance(again, LinearClassifier)
    assert again.settings == SETTINGS
    assert again.threshold == done.classifier.threshold
    examples = _examples(7)
    for reader in Reader:
        np.testing.assert_array_equal(
            again.probabilities(examples.features, examples.answers, reader),
            done.classifier.probabilities(examples.features, examples.answers, reader),
        )


def test_file__that_lacks_weights(done: LinearTraining, tmp_path: Path, refusal: Refusal) -> None:
    path = tmp_path / "c.safetensors"
    done.classifier.save(path)
    tensors, header = read_safetensors(path)
    write_safetensors(path, {k: v for k, v in tensors.items() if "colour" not in k}, header)
    with refusal(WeightsError):
        load_classifier(path)


def test_settings__all_blocks_and_the_noise_of_the_network(tiny: DiffusionUNet) -> None:
    assert linear_settings(tiny, ["age"]) == LinearSettings(tiny.blocks, 50, ("age",))

    class Paper:
        blocks, config = (0, 1), IMAGENET_256

    assert linear_settings(Paper()).timestep == 0  # type: ignore[arg-type]
    stored = SETTINGS.to_dict()
    assert (stored["recipe"], stored["blocks"], stored["covariates"]) == ("ours", [3, 5], ["itch"])
    assert LinearSettings.from_dict(stored) == SETTINGS


def test_backbone__another_one(done: LinearTraining, refusal: Refusal) -> None:
    with refusal(WeightsError):
        done.classifier.check_backbone(DiffusionUNet.random(TINY, 9))
    with refusal(WeightsError):
        replace(SETTINGS, blocks=(3, 99)).check_block(DiffusionUNet.random(TINY, 9))
