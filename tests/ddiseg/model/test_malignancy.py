from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import select
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import ModelKind, NewModelVersion, State
from ddiseg.catalogue.malignancy import DISCLAIMER
from ddiseg.catalogue.tables import Image
from ddiseg.errors import InputError, NotFoundError, WorkspaceError
from ddiseg.ingest.metadata import parse_columns
from ddiseg.ingest.photographs import import_photographs
from ddiseg.model import malignancy
from ddiseg.model.clinical import Clinical
from ddiseg.model.malignancy import evaluate_malignancy, prelabel_malignancy
from ddiseg.model.malignancy_training import (
    PAPER_TEST,
    RefreshedMalignancy,
    refresh_malignancy,
)
from ddiseg.outcomes import Outcome
from ddiseg.workspace.image_record import describe
from ddiseg.workspace.store import Kind
from ddiseg.workspace.verify import verify
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import DiffusionUNet
from fedd.errors import DatasetError, DeviceError, TrainingDataError, WeightsError
from fedd.malignancy import classifier as classify
from fedd.malignancy.classifier import ClassifierSettings, Recipe
from fedd.malignancy.covariates import read_clinical
from fedd.weights.files import save_backbone
from fedd.weights.sources import kept_path
from tests.fedd.conftest import TINY, mole
from tests.wording import Refusal

QUICK = ClassifierSettings(block=5, timestep=10, epochs=60, learning_rate=0.01)
TONES = ("I-II", "III-IV", "V-VI")
IMAGES = 30

Learn = Callable[..., RefreshedMalignancy]


@pytest.fixture
def moles(workspace: Workspace, tmp_path: Path) -> Workspace:
    """0.png to 29.png, two a patient, tones in turn; even ones malignant, 28 and 29 not known."""
    (tmp_path / "photographs").mkdir()
    rows = ["file,tone,patient,malignant"]
    for number in range(IMAGES):
        picture = Picture.fromarray(mole(number, number % 2 == 0))
        picture.save(tmp_path / "photographs" / f"{number}.png")
        known = "" if number >= 28 else str(number % 2 == 0)
        rows.append(f"{number}.png,{TONES[number // 2 % 3]},p{number // 2},{known}")
    (tmp_path / "rows.csv").write_text("\n".join(rows))
    columns = parse_columns("image=file,tone=tone,patient=patient,malignant=malignant")
    import_photographs(
        workspace, tmp_path / "photographs", metadata=tmp_path / "rows.csv", columns=columns
    )
    # Rendered moles look alike: only what a test says is near is near.
    with workspace.catalogue._database.write() as session:
        for image in session.scalars(select(Image)):
            image.perceptual_hash = image.content_hash[:16]
    return workspace


@pytest.fixture
def learn(tiny_weights: Path) -> Learn:
    """learn(workspace): refresh with the tiny network and few epochs."""

    def train(
        workspace: Workspace, seed: int = 0, exclude: Sequence[str] = (), **options: Any
    ) -> RefreshedMalignancy:
        weights = str(tiny_weights)
        return refresh_malignancy(workspace, "tester", weights, seed, QUICK, exclude, **options)

    return train


def _ids(workspace: Workspace, *numbers: int) -> list[int]:
    return [workspace.catalogue.images.find(f"{n}.png").id for n in numbers]


def _subset(workspace: Workspace, name: str, *numbers: int) -> None:
    workspace.catalogue.subsets.store({name: _ids(workspace, *numbers)}, {"by": "test"}, "tester")


def test_disclaimer__says_the_same_in_both_packages() -> None:
    assert DISCLAIMER == classify.DISCLAIMER == "research output, not a diagnosis"


@pytest.mark.training
def test_refresh__records_what_made_the_version(moles: Workspace, learn: Learn) -> None:
    done = learn(moles)
    version, metrics = done.version, done.version.metrics
    assert done.new
    assert (version.name, version.kind, version.training_masks) == (
        *("malignancy-1", "malignancy"),
        [],
    )
    known = moles.catalogue.images.select(ids=_ids(moles, *range(28)))
    assert {h: v["malignant"] for h, v in version.training_images.items()} == {
        image.content_hash: image.malignant for image in known
    }
    assert sum(v["validation"] for v in version.training_images.values()) == metrics["validation"]
    assert metrics["note"] == DISCLAIMER
    assert (metrics["images"], metrics["malignant"]) == (28, 14)
    assert metrics["by_tone"] == {"I-II": 10, "III-IV": 10, "V-VI": 8}
    assert done.left_out == {"of unknown malignancy": 2, "skipped": 0, "held out": 0}
    assert metrics["on_its_validation_images"]["all"]["n"] == metrics["validation"]
    assert moles.store.digests(Kind.MODEL) == {version.file_hash}
    event = moles.catalogue.events.last("refresh")
    assert event is not None
    assert event.detail == {"model": "malignancy-1", "images": 28}


@pytest.mark.training
def test_refresh__shows_the_backbone_s_passes(
    moles: Workspace, learn: Learn, wording: SnapshotAssertion
) -> None:
    told: dict[str, list[tuple[int, int]]] = {}
    learn(moles, stages=lambda stage: lambda *at: told.setdefault(stage, []).append(at))
    assert list(told) == wording
    assert told["Photographs through the backbone"] == [(n, 28) for n in range(29)]


@pytest.mark.training
def test_refresh__validation_is_apart_by_patient(moles: Workspace, learn: Learn) -> None:
    trained_on = learn(moles).version.training_images
    by_patient: dict[str | None, set[bool]] = {}
    for image in moles.catalogue.images.select():
        if image.content_hash in trained_on:
            side = trained_on[image.content_hash]["validation"]
            by_patient.setdefault(image.patient, set()).add(side)
    assert set(map(len, by_patient.values())) == {1}


@pytest.mark.training
def test_refresh__again_is_unchanged_until_something_changes(
    moles: Workspace, learn: Learn
) -> None:
    first = learn(moles)
    again = learn(moles)
    assert (again.new, again.version.id, again.left_out) == (
        *(False, first.version.id),
        first.left_out,
    )
    assert learn(moles, seed=1).version.name == "malignancy-2"


@pytest.mark.training
def test_refresh__same_images_same_outcome(moles: Workspace, learn: Learn) -> None:
    first = learn(moles).version
    other = learn(moles, seed=1).version
    again = learn(moles).version
    assert again.name == "malignancy-3", "it is not the one in use that was the same"
    for key in ("threshold", "best_epoch", "on_its_validation_images"):
        assert again.metrics[key] == first.metrics[key]
    assert other.metrics["threshold"] != first.metrics["threshold"]


@pytest.mark.training
def test_refresh__the_paintings_model_stays_in_use(moles: Workspace, learn: Learn) -> None:
    models = moles.catalogue.models
    painter = models.add(NewModelVersion("f" * 64, "small", "b" * 64, {}, [], {}, "1.0"), "tester")
    learn(moles)
    assert models.current().id == painter.id
    assert models.current(ModelKind.MALIGNANCY).name == "malignancy-1"
    assert [m.name for m in models.all(ModelKind.SEGMENTATION)] == ["fedd-1"]
    assert [m.name for m in models.all()] == ["fedd-1", "malignancy-1"]


@pytest.mark.training
@pytest.mark.parametrize(("name", "asked"), [("mine", ["mine"]), (PAPER_TEST, [])])
def test_refresh__held_out_images_and_their_patients_are_not_learned_from(
    moles: Workspace, learn: Learn, name: str, asked: list[str]
) -> None:
    _subset(moles, name, 0, 7)
    done = learn(moles, exclude=asked)
    assert done.left_out["held out"] == 4, "0.png and 7.png, and the patients' 1.png and 6.png"
    learned = set(done.version.training_images)
    held = moles.catalogue.images.select(ids=_ids(moles, 0, 1, 6, 7))
    assert not learned & {image.content_hash for image in held}
    assert len(learned) == 24


@pytest.mark.training
def test_refresh__other_subsets_are_learned_from(moles: Workspace, learn: Learn) -> None:
    _subset(moles, "first", 0, 7)
    assert learn(moles).left_out["held out"] == 0


@pytest.mark.training
def test_refresh__near_duplicates_of_what_is_held_out(moles: Workspace, learn: Learn) -> None:
    with moles.catalogue._database.write() as session:
        images = {i.name: i for i in session.scalars(select(Image))}
        images["9.png"].near_group = images["0.png"].near_group = 1
    moles.catalogue.grouping.rebuild()
    _subset(moles, "mine", 0)
    assert learn(moles, exclude=["mine"]).left_out["held out"] == 4


@pytest.mark.training
def test_refresh__skipped_images_are_left_out(moles: Workspace, learn: Learn) -> None:
    moles.catalogue.images.skip(_ids(moles, 3)[0], "blurry", None, "annotator-1")
    assert learn(moles).left_out["skipped"] == 1


@pytest.mark.training
def test_refresh__unknown_subset(moles: Workspace, learn: Learn, refusal: Refusal) -> None:
    with refusal(NotFoundError):
        learn(moles, exclude=["none"])


@pytest.mark.training
def test_refresh__nothing_is_known(filled: Workspace, learn: Learn, refusal: Refusal) -> None:
    with refusal(InputError):
        learn(filled)
    assert list(filled.catalogue.models.all()) == []


@pytest.mark.training
def test_refresh__one_class_only(moles: Workspace, learn: Learn, refusal: Refusal) -> None:
    _subset(moles, "mine", *range(4, 28))
    with moles.catalogue._database.write() as session:
        for image in session.scalars(select(Image)):
            image.malignant = True
    with refusal(TrainingDataError):
        learn(moles, exclude=["mine"])


@pytest.mark.training
def test_refresh__a_photograph_that_is_missing(
    moles: Workspace, learn: Learn, refusal: Refusal
) -> None:
    image = moles.catalogue.images.find("4.png")
    Path(moles.store.path(Kind.IMAGE, image.content_hash)).unlink()
    with refusal(WorkspaceError):
        learn(moles)
    assert list(moles.catalogue.models.all()) == []


@pytest.mark.training
def test_refresh__block_that_does_not_exist(
    moles: Workspace, tiny_weights: Path, refusal: Refusal
) -> None:
    with refusal(WeightsError):
        refresh_malignancy(
            moles, "tester", str(tiny_weights), settings=ClassifierSettings(block=14)
        )


@pytest.mark.training
def test_prelabel__stores_the_probability_and_nothing_else(moles: Workspace, learn: Learn) -> None:
    version = learn(moles).version
    before = [image.state for image in moles.catalogue.images.select()]
    events = moles.catalogue.events.count()
    used, outcomes = prelabel_malignancy(moles, moles.catalogue.images.select())
    assert used.id == version.id
    assert Counter(o.outcome for o in outcomes) == {Outcome.ADDED: IMAGES}
    found = moles.catalogue.malignancy.of_version(version.id)
    sure = [found[i] for i in _ids(moles, 28)], [found[i] for i in _ids(moles, 29)]
    assert np.mean(sure[0]) > np.mean(sure[1])
    assert [image.state for image in moles.catalogue.images.select()] == before
    assert set(before) == {State.NEW}
    assert list(moles.catalogue.masks.all()) == []
    assert moles.catalogue.events.count() == events
    _, again = prelabel_malignancy(moles, moles.catalogue.images.select())
    assert {o.outcome for o in again} == {Outcome.UNCHANGED}
    assert verify(moles).problems == []


@pytest.mark.training
def test_prelabel__another_precision_is_said_where_something_is_estimated(
    moles: Workspace, learn: Learn, caplog: pytest.LogCaptureFixture
) -> None:
    learn(moles)
    image = moles.catalogue.images.find("29.png")
    with caplog.at_level(logging.INFO, "ddiseg"):
        for _ in range(2):
            prelabel_malignancy(moles, [image], precision="bfloat16")
    assert [record.getMessage() for record in caplog.records] == [
        "malignancy-1 was trained on activations in float32 and predicts here in bfloat16"
    ]


@pytest.mark.training
def test_prelabel__another_version_another_estimate(moles: Workspace, learn: Learn) -> None:
    image = moles.catalogue.images.find("29.png")
    for seed in (0, 1):
        learn(moles, seed=seed)
        prelabel_malignancy(moles, [image])
    found = moles.catalogue.malignancy.of_image(image.id)
    assert [e.model_version_id for e in found] == [m.id for m in moles.catalogue.models.all()]
    assert found[0].probability != found[1].probability


@pytest.mark.training
def test_prelabel__interrupted_keeps_what_was_estimated(
    moles: Workspace, learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(moles)
    monkeypatch.setattr(malignancy, "TRANSACTION", 2)
    todo = moles.catalogue.images.select(ids=_ids(moles, *range(6)))

    def stop(done: int, _total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prelabel_malignancy(moles, todo, stop)
    _, outcomes = prelabel_malignancy(moles, todo)
    assert Counter(o.outcome for o in outcomes) == {Outcome.UNCHANGED: 4, Outcome.ADDED: 2}


@pytest.mark.training
def test_prelabel__missing_photograph_does_not_stop_the_rest(
    moles: Workspace, learn: Learn
) -> None:
    learn(moles)
    image = moles.catalogue.images.find("28.png")
    Path(moles.store.path(Kind.IMAGE, image.content_hash)).unlink()
    _, outcomes = prelabel_malignancy(moles, moles.catalogue.images.select(ids=_ids(moles, 28, 29)))
    assert {o.name: o.outcome for o in outcomes} == {
        "28.png": Outcome.REFUSED,
        "29.png": Outcome.ADDED,
    }


@pytest.mark.training
def test_prelabel__without_a_classifier(moles: Workspace, refusal: Refusal) -> None:
    moles.catalogue.models.add(NewModelVersion("f" * 64, "s", "b", {}, [], {}, "1.0"), "tester")
    with refusal(NotFoundError):
        prelabel_malignancy(moles, moles.catalogue.images.select())


@pytest.mark.training
def test_prelabel__file_changed_on_disk(moles: Workspace, learn: Learn, refusal: Refusal) -> None:
    path = Path(moles.store.path(Kind.MODEL, learn(moles).version.file_hash))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with refusal(WorkspaceError):
        prelabel_malignancy(moles, moles.catalogue.images.select())


@pytest.mark.training
def test_prelabel__backbone_replaced_by_another(
    moles: Workspace, tmp_path: Path, tiny_weights: Path
) -> None:
    path = tmp_path / "own.safetensors"
    path.write_bytes(tiny_weights.read_bytes())
    refresh_malignancy(moles, "tester", str(path), 0, QUICK)
    save_backbone(path, "own", TINY, DiffusionUNet.random(TINY, 7).net.state_dict(), {})
    with pytest.raises(WeightsError, match=r"the backbone tiny \(\w{12}\), not own \(\w{12}\)"):
        prelabel_malignancy(moles, moles.catalogue.images.select())


@pytest.mark.training
def test_prelabel__a_backbone_that_was_fetched_is_found_by_its_name(
    moles: Workspace, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDISEG_CACHE", str(tmp_path / "cache"))
    kept = kept_path("imagenet-256")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(tiny_weights.read_bytes())
    version = refresh_malignancy(moles, "tester", "imagenet-256", 0, QUICK).version
    assert version.backbone == "imagenet-256"
    _, outcomes = prelabel_malignancy(moles, moles.catalogue.images.select())
    assert {each.outcome for each in outcomes} == {Outcome.ADDED}


@pytest.mark.training
def test_device__is_where_the_backbone_is_computed(
    moles: Workspace, tiny_weights: Path, learn: Learn
) -> None:
    with pytest.raises(DeviceError, match="no device cuda:99"):
        refresh_malignancy(moles, "tester", str(tiny_weights), 0, QUICK, device="cuda:99")
    learn(moles)
    images = moles.catalogue.images.select()
    with pytest.raises(DeviceError, match="no device cuda:99"):
        prelabel_malignancy(moles, images, device="cuda:99")
    with pytest.raises(DeviceError, match="no precision float8"):
        prelabel_malignancy(moles, images, precision="float8")


@pytest.fixture
def tested(moles: Workspace, learn: Learn) -> Workspace:
    """Learned from without 0 to 11, and all estimated."""
    _subset(moles, "mine", *range(0, 12, 2))
    learn(moles, exclude=["mine"])
    prelabel_malignancy(moles, moles.catalogue.images.select())
    return moles


@pytest.mark.training
def test_evaluate__only_images_that_it_did_not_learn_from(tested: Workspace) -> None:
    result = evaluate_malignancy(tested, "tester")
    assert (result["n_images"], result["learned_from"], result["unknown_malignancy"]) == (12, 16, 2)
    assert result["without_probability"] == 0
    assert result["note"] == DISCLAIMER
    assert result["threshold_chosen_on"] == "validation images"
    figures = result["by_tone"]
    assert list(figures) == ["all", *TONES]
    assert (figures["all"]["n"], figures["all"]["malignant"]) == (12, 6)
    assert figures["all"]["roc_auc"] > 0.8
    assert figures["all"]["roc_auc_ci95"] is None, "six patients of a class are too few"
    logged = tested.catalogue.events.last("malignancy-evaluation")
    assert logged is not None
    assert logged.detail == json.loads(json.dumps(result))
    assert tested.catalogue.events.last("evaluation") is None


@pytest.mark.training
def test_evaluate__of_a_subset(tested: Workspace) -> None:
    result = evaluate_malignancy(tested, "tester", subset="mine")
    assert (result["n_images"], result["by_tone"]["all"]["malignant"]) == (6, 6)
    assert result["by_tone"]["all"]["roc_auc"] is None, "there is no benign one among them"


@pytest.mark.training
def test_evaluate__the_papers_threshold_is_named(
    tested: Workspace, wording: SnapshotAssertion
) -> None:
    plain = evaluate_malignancy(tested, "tester")
    paper = evaluate_malignancy(tested, "tester", as_paper=True)
    assert paper["threshold_chosen_on"] == wording
    assert paper["by_tone"]["all"]["accuracy_threshold"] == pytest.approx(0.5)
    assert "accuracy_threshold" not in plain["by_tone"]["all"]
    assert paper["threshold"] != plain["threshold"]


@pytest.mark.training
def test_evaluate__nothing_is_left_to_score(
    moles: Workspace, learn: Learn, refusal: Refusal
) -> None:
    learn(moles)
    prelabel_malignancy(moles, moles.catalogue.images.select())
    with refusal(InputError):
        evaluate_malignancy(moles, "tester")


@pytest.mark.training
def test_evaluate__without_probabilities(moles: Workspace, learn: Learn, refusal: Refusal) -> None:
    _subset(moles, "mine", 0)
    learn(moles, exclude=["mine"])
    with refusal(InputError):
        evaluate_malignancy(moles, "tester")


@pytest.mark.training
def test_show__estimates_with_their_model_and_what_they_are(tested: Workspace) -> None:
    (held,) = describe(tested, tested.catalogue.images.find("0.png"))["malignancy_estimates"]
    (learned,) = describe(tested, tested.catalogue.images.find("20.png"))["malignancy_estimates"]
    assert (held["model"], held["note"], held["learned_from"]) == (
        *("malignancy-1", DISCLAIMER),
        False,
    )
    assert 0 <= held["probability"] <= 1
    assert learned["learned_from"]


@pytest.mark.training
def test_evaluate__another_photograph_of_a_patient_it_learned_from(tested: Workspace) -> None:
    """Its malignancy, or whose it is, may become known after the training."""
    with tested.catalogue._database.write() as session:
        for image in session.scalars(select(Image).where(Image.name.in_(["28.png", "29.png"]))):
            image.malignant = True
            image.patient = "p13" if image.name == "28.png" else "somebody new"
    tested.catalogue.grouping.rebuild()
    result = evaluate_malignancy(tested, "tester")
    assert (result["n_images"], result["learned_from"], result["unknown_malignancy"]) == (13, 16, 0)
    assert result["same_group"] == 1


CLINICAL = "img_id,age,itch,diagnostic\n"


@pytest.fixture
def clinical(moles: Workspace, tmp_path: Path) -> Path:
    """Answers of 0.png to 27.png: malignant spots itch, but for 0.png; of 2.png nobody asked."""
    itch = {n: str(n % 2 == 0 and n != 0) for n in range(28)} | {2: ""}
    rows = [f"{n}.png,{40 + n},{answer},NEV\n" for n, answer in itch.items()]
    path = tmp_path / "clinical.csv"
    path.write_text(CLINICAL + "".join(rows))
    return path


Ours = Callable[..., RefreshedMalignancy]


@pytest.fixture
def ours(tiny_weights: Path) -> Ours:
    """ours(workspace): refresh with the default recipe and the tiny network."""

    def train(workspace: Workspace, table: Path | None = None, **options: Any) -> Any:
        answers = None if table is None else Clinical.read(table, ["itch", "age"])
        weights = str(tiny_weights)
        return refresh_malignancy(workspace, "tester", weights, clinical=answers, **options)

    return train


@pytest.mark.training
def test_ours__is_cross_validated_on_all_beside_colour_and_answers(
    moles: Workspace, ours: Ours, clinical: Path
) -> None:
    version = ours(moles, clinical).version
    assert (version.settings["recipe"], version.settings["covariates"]) == ("ours", ["itch", "age"])
    assert version.settings["blocks"] == list(range(8))
    training = version.classifier_training
    assert (training.recipe, training.folds, training.images) == ("ours", 5, 28)
    assert (training.covariates, training.imputed) == (("itch", "age"), {"itch": 1})
    assert (training.scores["all"].n, training.scores["all"].malignant) == (28, 14)
    assert training.scores["all"].roc_auc is not None
    assert training.scores["all"].roc_auc > 0.9
    assert list(training.beside) == ["colour", "covariates"]
    for of in training.beside.values():
        assert list(of) == ["all", *TONES]
        assert (of["all"].n, of["all"].malignant, of["all"].patients) == (28, 14, 14)
    answers = training.beside["covariates"]["all"].roc_auc
    assert answers is not None
    assert 0.7 < answers < 1
    assert not any(each["validation"] for each in version.training_images.values())


@pytest.mark.training
def test_ours__unchanged_until_an_answer_changes(
    moles: Workspace, ours: Ours, clinical: Path
) -> None:
    first = ours(moles, clinical)
    assert not ours(moles, clinical).new
    clinical.write_text(clinical.read_text().replace("2.png,42,,", "2.png,42,True,"))
    again = ours(moles, clinical)
    assert again.new
    assert again.version.name != first.version.name
    assert ours(moles).new, "without answers"


@pytest.mark.training
def test_ours__evaluate_beside_colour_and_answers_on_the_same_images(
    moles: Workspace, ours: Ours, clinical: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _subset(moles, "mine", *range(8))
    ours(moles, clinical, exclude=["mine"])
    table = read_clinical(clinical)
    with caplog.at_level(logging.INFO, "ddiseg"):
        prelabel_malignancy(moles, moles.catalogue.images.select(subset="mine"), clinical=table)
    assert caplog.records[-1].getMessage().endswith("of 8: itch 1")
    result = evaluate_malignancy(moles, "tester", clinical=table)
    assert result["n_images"] == 8
    assert result["imputed"] == {"itch": 1}
    assert {reader: of["all"]["n"] for reader, of in result["beside"].items()} == {
        "colour": 8,
        "covariates": 8,
    }
    # 4 and 6 itch, and 2 has the mean: these are above all benign ones. 0 does not itch: age decides.
    assert result["beside"]["covariates"]["all"]["roc_auc"] >= 12 / 16


@pytest.mark.training
def test_ours__clinical_table_that_does_not_fit(
    moles: Workspace, ours: Ours, learn: Learn, clinical: Path, tmp_path: Path, refusal: Refusal
) -> None:
    ours(moles, clinical)
    images = moles.catalogue.images.select()
    with refusal(InputError):
        prelabel_malignancy(moles, images)
    with refusal(DatasetError):
        (tmp_path / "other.csv").write_text("img_id,age\n1.png,4\n")
        prelabel_malignancy(moles, images, clinical=read_clinical(tmp_path / "other.csv"))
    with refusal(InputError):
        (tmp_path / "nobody.csv").write_text("img_id,age,itch\nx.png,4,True\n")
        prelabel_malignancy(moles, images, clinical=read_clinical(tmp_path / "nobody.csv"))
    assert moles.catalogue.malignancy.of_image(images[0].id) == []
    with refusal(InputError):
        refresh_malignancy(
            *(moles, "tester"),
            recipe=Recipe.PAPER,
            clinical=Clinical.read(clinical, ["age"]),
        )
    ours(moles)
    with refusal(InputError):
        prelabel_malignancy(moles, images, clinical=read_clinical(clinical))


@pytest.mark.training
def test_ours__a_photograph_that_is_gone_leaves_the_scores(moles: Workspace, ours: Ours) -> None:
    _subset(moles, "mine", *range(4))
    ours(moles, exclude=["mine"])
    prelabel_malignancy(moles, moles.catalogue.images.select(subset="mine"))
    image = moles.catalogue.images.find("1.png")
    Path(moles.store.path(Kind.IMAGE, image.content_hash)).unlink()
    result = evaluate_malignancy(moles, "tester")
    assert result["n_images"] == 4
    assert result["beside"] == {}
    assert "1.png" in result["not_beside"]
