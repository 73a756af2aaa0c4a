from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedd.backbone import DiffusionUNet
from fedd.dataset import DatasetImage
from fedd.errors import DatasetError, TrainingDataError, WeightsError
from fedd.malignancy.classifier import ClassifierSettings
from fedd.malignancy.discrimination import accuracy, f1, paper_threshold
from fedd.malignancy.study import Learned, fingerprints, learn, predict, results_on_unseen
from tests.fedd.conftest import TINY, mole
from tests.wording import Refusal

QUICK = ClassifierSettings(block=5, timestep=10, epochs=80, learning_rate=0.01, validation=0.25)
TONES = ("I-II", "V-VI")


def _item(folder: Path, number: int, malignant: bool | None, patient: str = "") -> DatasetImage:
    path = folder / f"{number:06d}.png"
    Image.fromarray(mole(number, bool(malignant))).save(path)
    return DatasetImage(path, TONES[number // 2 % 2], patient, malignant)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[DatasetImage]:
    """24 photographs, two a patient, half of them malignant."""
    folder = tmp_path_factory.mktemp("training")
    return [_item(folder, n, n % 2 == 0, f"p{n // 2}") for n in range(24)]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> list[DatasetImage]:
    """12 photographs of nobody known, the last of unknown malignancy."""
    folder = tmp_path_factory.mktemp("other")
    return [_item(folder, n, None if n == 111 else n % 2 == 0) for n in range(100, 112)]


@pytest.fixture(scope="module")
def done(items: list[DatasetImage], tiny: DiffusionUNet) -> Learned:
    return learn(items, tiny, QUICK)


@pytest.fixture
def file(done: Learned, tmp_path: Path) -> Path:
    done.save(tmp_path / "c.safetensors")
    return tmp_path / "c.safetensors"


@pytest.mark.training
def test_learn__figures_are_of_the_validation_part_by_tone(done: Learned) -> None:
    assert list(done.results) == ["all", "I-II", "V-VI"]
    assert done.results["all"].n == done.validation.sum() == 6
    assert done.results["all"].malignant == 3
    assert done.results["all"].threshold == done.classifier.threshold


def test_learn__validation_is_apart_by_patient(done: Learned) -> None:
    held = {i.patient for i, v in zip(done.used.items, done.validation, strict=True) if v}
    rest = {i.patient for i, v in zip(done.used.items, done.validation, strict=True) if not v}
    assert held
    assert not held & rest


@pytest.mark.training
def test_learn__the_seed_decides(
    items: list[DatasetImage], tiny: DiffusionUNet, done: Learned
) -> None:
    again, other = learn(items, tiny, QUICK), learn(items, tiny, QUICK, seed=4)
    assert again.results == done.results
    assert other.classifier.settings.seed == 4
    assert not np.array_equal(other.validation, done.validation)


@pytest.mark.training
def test_learn__unknown_is_left_out_and_counted_and_damaged_is_refused(
    items: list[DatasetImage], tiny: DiffusionUNet, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"nonsense")
    more = [
        *items,
        replace(items[0], malignant=None),
        DatasetImage(tmp_path / "broken.png", malignant=True),
        DatasetImage(tmp_path / "gone.png", malignant=False),
    ]
    done = learn(more, tiny, QUICK)
    assert done.used.items == items
    assert done.used.unknown == 1
    assert [line.split(" can't")[0] for line in done.used.refused] == [
        str(tmp_path / "broken.png"),
        str(tmp_path / "gone.png"),
    ]


def test_learn__nothing_known(
    items: list[DatasetImage], tiny: DiffusionUNet, refusal: Refusal
) -> None:
    with refusal(TrainingDataError):
        learn([replace(i, malignant=None) for i in items], tiny, QUICK)


def test_learn__one_class_only(
    items: list[DatasetImage], tiny: DiffusionUNet, refusal: Refusal
) -> None:
    with refusal(TrainingDataError):
        learn([replace(i, malignant=True) for i in items], tiny, QUICK)


def test_learn__no_photograph_can_be_opened(
    tiny: DiffusionUNet, tmp_path: Path, refusal: Refusal
) -> None:
    with refusal(TrainingDataError):
        learn([DatasetImage(tmp_path / "gone.png", malignant=True)], tiny, QUICK)


def test_predict__others_are_scored(
    file: Path, others: list[DatasetImage], tiny: DiffusionUNet, done: Learned
) -> None:
    classifier, found, refused = predict(file, others, tiny)
    assert refused == []
    assert classifier.threshold == done.classifier.threshold
    assert [p.item for p in found] == others
    assert not any(p.learned_from for p in found)
    figures = results_on_unseen(found, classifier.threshold)
    assert (figures["all"].n, figures["all"].malignant) == (11, 6)
    assert figures["all"].roc_auc.value > 0.9


def test_predict__what_it_learned_from_is_not_scored(
    file: Path,
    items: list[DatasetImage],
    others: list[DatasetImage],
    tiny: DiffusionUNet,
    tmp_path: Path,
) -> None:
    """The photograph under another name, and another photograph of the patient."""
    copied = tmp_path / "copied.png"
    copied.write_bytes(items[0].path.read_bytes())
    same_patient = replace(others[1], patient="p3")
    namesake = replace(others[2], path=others[2].path)
    classifier, found, _ = predict(
        file, [DatasetImage(copied, malignant=True), same_patient, namesake, others[4]], tiny
    )
    assert [p.learned_from for p in found] == [True, True, False, False]
    assert results_on_unseen(found, classifier.threshold)["all"].n == 2


def test_fingerprints__a_stem_is_no_patients_name(tmp_path: Path) -> None:
    one, two = (tmp_path / d / "000001.png" for d in "ab")
    for number, path in enumerate((one, two)):
        path.parent.mkdir()
        path.write_bytes(bytes([number]))
    assert not fingerprints(DatasetImage(one)) & fingerprints(DatasetImage(two))
    assert fingerprints(DatasetImage(one, patient="x")) & fingerprints(
        DatasetImage(two, patient="x")
    )


def test_file__names_no_patient(file: Path) -> None:
    data = file.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    assert "p3" not in json.loads(header["learned_from"])
    assert len(json.loads(header["learned_from"])) == 24 + 12


def test_honest_figures__the_papers_thresholds(
    file: Path, others: list[DatasetImage], tiny: DiffusionUNet
) -> None:
    _, found, _ = predict(file, others, tiny)
    plain = results_on_unseen(found, 0.9999)["all"]
    paper = results_on_unseen(found, 0.9999, as_paper=True)["all"]
    assert (plain.threshold, plain.accuracy_threshold) == (0.9999, 0.9999)
    known = [p for p in found if p.item.malignant is not None]
    truth = np.array([bool(p.item.malignant) for p in known])
    values = np.array([p.malignant for p in known])
    assert paper.threshold == paper_threshold(truth, values)
    assert paper.f1.value == f1(truth, values >= paper.threshold)
    assert paper.accuracy.value == accuracy(truth, values > 0.5)
    assert paper.roc_auc == plain.roc_auc


def test_honest_figures__nothing_to_score(
    file: Path, others: list[DatasetImage], tiny: DiffusionUNet
) -> None:
    _, found, _ = predict(file, others[-1:], tiny)
    assert results_on_unseen(found, 0.5) == {}
    _, found, _ = predict(file, others[1:2], tiny)
    (figures, _) = results_on_unseen(found, 0.5, as_paper=True).values()
    assert (figures.n, figures.malignant, figures.accuracy.interval) == (1, 0, None)


def test_predict__another_backbone(
    file: Path, others: list[DatasetImage], refusal: Refusal
) -> None:
    with refusal(WeightsError):
        predict(file, others, DiffusionUNet.random(TINY, 9))


def test_predict__missing_photograph_is_refused_and_the_rest_goes_on(
    file: Path, others: list[DatasetImage], tiny: DiffusionUNet, tmp_path: Path
) -> None:
    _, found, refused = predict(file, [DatasetImage(tmp_path / "gone.png"), others[0]], tiny)
    assert [p.item for p in found] == [others[0]]
    assert len(refused) == 1
    with pytest.raises(DatasetError):
        DatasetImage(tmp_path / "gone.png").photograph()
