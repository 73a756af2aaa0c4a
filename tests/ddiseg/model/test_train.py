from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sqlalchemy import select
from syrupy.assertion import SnapshotAssertion

from annotation_protocol import load_protocol
from ddiseg.catalogue import NewMask, Split, State
from ddiseg.catalogue.embeddings import embedding_space
from ddiseg.catalogue.records import StoredTraining
from ddiseg.catalogue.tables import Image
from ddiseg.errors import InputError
from ddiseg.evaluation import gate
from ddiseg.model import train as refreshing
from ddiseg.model.backbones import Backbones
from ddiseg.model.compare import load_current_model
from ddiseg.model.predict import prelabel
from ddiseg.model.storage import load_version
from ddiseg.model.train import CACHE, Refreshed, train_version
from ddiseg.model.training_metrics import training_metrics
from ddiseg.outcomes import Progress
from ddiseg.sampling.groups import Groups
from ddiseg.workspace.store import Kind
from ddiseg.workspace.verify import verify
from ddiseg.workspace.workspace import Workspace
from fedd import validation
from fedd.backbone import DiffusionUNet, precision_of
from fedd.cache import FeatureCache
from fedd.errors import DeviceError, WeightsError
from fedd.probes.training import Example, train_probes
from fedd.segment import Probes
from fedd.weights.files import save_backbone
from tests.ddiseg.spots import accept_more
from tests.fedd.conftest import QUICK, TINY, spot
from tests.fedd.counting import Counting
from tests.wording import Refusal

Learn = Callable[..., Refreshed]


@pytest.mark.training
def test_refresh__records_what_made_the_version(spots: Workspace, learn: Learn) -> None:
    done = learn(spots)
    version = done.version
    accepted = spots.catalogue.masks.accepted().values()
    assert done.new
    assert version.name == "fedd-1"
    assert sorted(version.training_masks) == sorted(m.content_hash for m in accepted)
    assert version.metrics["by_tone"] == {"I-II": 2, "III-IV": 1, "V-VI": 1}
    assert version.settings["seed"] == 0
    assert "on_its_own_training_images" not in version.metrics, "they would flatter"
    assert spots.store.digests(Kind.MODEL) == {version.file_hash}


@pytest.mark.training
def test_refresh__shows_each_stage_and_the_backbone_s_passes(
    spots: Workspace, learn: Learn, monkeypatch: pytest.MonkeyPatch, wording: SnapshotAssertion
) -> None:
    monkeypatch.setattr(validation, "FEWEST_IMAGES", 4)
    accept_more(spots, [5, 6, 7, 8, 9])
    told: dict[str, list[tuple[int, int]]] = {}

    def stages(stage: str) -> Progress:
        return lambda *at: told.setdefault(stage, []).append(at)

    done = learn(spots, replace(QUICK, validation_share=0.4), stages=stages, start_holdout=True)
    assert list(told) == wording
    learned = len(done.version.training_masks)
    assert told["Reading photographs"] == [(n, learned) for n in range(learned + 1)]
    passes = told["Photographs through the backbone"]
    assert passes == [(n, passes[-1][1]) for n in range(1, len(passes) + 1)]
    assert passes[-1][1] >= learned
    for calls in told.values():
        assert calls[-1][0] == calls[-1][1], "each stage ends"


@pytest.mark.training
def test_refresh__few_masks_hold_nothing_out_and_say_so(spots: Workspace, learn: Learn) -> None:
    done = learn(spots)
    assert done.version.metrics["validation"] is None
    assert done.version.metrics["steps"] == QUICK.steps
    assert any("4 images are too few" in note for note in done.notes)


@pytest.mark.training
def test_refresh__held_out_part_is_on_record(
    spots: Workspace, learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "FEWEST_IMAGES", 4)
    accept_more(spots, [5, 6, 7, 8, 9])
    metrics = learn(spots, replace(QUICK, validation_share=0.4)).version.metrics
    found = metrics["validation"]
    assert found["images"] == 4
    assert set(found["by_tone"]) == {"I-II", "III-IV", "V-VI"}
    assert found["scores"]["lesion"]["n"] == 4
    assert found["scores"]["lesion"]["iou_mean"] is not None
    assert set(found["scores"]) == {"lesion", "skin"}
    assert found["calibration"]["images"] == 4
    assert 0 <= found["calibration"]["ece"] < 0.2
    assert found["loss"] > 0


@pytest.mark.training
def test_refresh__near_duplicates_without_a_patient_are_held_out_together(
    spots: Workspace, learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept_more(spots, [5, 6, 7, 8, 9])
    with spots.catalogue._database.write() as session:
        for number, image in enumerate(session.scalars(select(Image))):
            image.patient = None
            image.near_group = number // 3
    spots.catalogue.grouping.rebuild()
    seen: list[str] = []

    def note(examples: Iterable[Example], *_: object, **__: object) -> Probes:
        seen.extend(example.patient for example in examples)
        raise KeyboardInterrupt

    monkeypatch.setattr(refreshing, "train_probes", note)
    with pytest.raises(KeyboardInterrupt):
        learn(spots)
    assert sorted(Counter(seen).values()) == [3, 3, 3]


@pytest.mark.training
def test_refresh__one_more_mask_goes_on_from_the_version_in_use(
    spots: Workspace, learn: Learn
) -> None:
    learn(spots)
    accept_more(spots, [6])
    version = learn(spots).version
    assert version.metrics["went_on_from"] == "fedd-1"
    assert version.metrics["steps"] == QUICK.warm_steps
    assert len(version.training_masks) == 5
    again = learn(spots)
    assert (again.new, again.version.id) == (False, version.id)


@pytest.mark.training
def test_refresh__members_that_decide_otherwise_are_another_version(
    spots: Workspace, learn: Learn
) -> None:
    learn(spots)
    voting = learn(spots, ensemble="vote")
    assert (voting.new, voting.version.settings["ensemble"]) == (True, "vote")
    assert load_version(spots, voting.version)[0].settings.ensemble == "vote"
    assert not learn(spots, ensemble="vote").new
    accept_more(spots, [6])
    assert learn(spots).version.metrics["went_on_from"] == "fedd-2", "the training is the same"


@pytest.mark.training
def test_refresh__corrected_pixels_weigh_more_on_request(
    spots: Workspace, learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(spots)
    prelabel(spots, spots.catalogue.images.select(ids=[5]))
    prediction = spots.catalogue.masks.newest_predictions()[5]
    truth = spot(4)[1]
    kept = ("image_id", "width", "height", "mapping", "classes", "protocol_version")
    columns: dict[str, Any] = {name: getattr(prediction, name) for name in kept}
    new = NewMask(
        **columns,
        content_hash=spots.store_mask(truth),
        annotator="anna",
        parent_id=prediction.id,
    )
    spots.catalogue.masks.submit([new], reviewer="ben")
    given: list[Example] = []

    def train(examples: Iterable[Example], *rest: Any, **options: Any) -> Probes:
        given[:] = examples
        return train_probes(given, *rest, **options)

    monkeypatch.setattr(refreshing, "train_probes", train)
    alike = learn(spots, from_scratch=True).version
    assert [e.corrected for e in given] == [None] * 5, "nothing depends on them"
    heavier = learn(spots, corrected_weight=8).version
    (corrected,) = [e.corrected for e in given if e.corrected is not None]
    np.testing.assert_array_equal(corrected, spots.mask(prediction) != truth)
    assert corrected.any()
    assert heavier.settings["corrected_weight"] == 8
    assert heavier.file_hash != alike.file_hash
    assert not learn(spots, corrected_weight=8).new


@pytest.mark.training
def test_refresh__precision_is_on_record_and_another_one_another_version(
    spots: Workspace, learn: Learn
) -> None:
    first = learn(spots, precision="auto").version
    assert first.training.precision == first.metrics["precision"] == "float32"
    rounded = learn(spots, precision="bfloat16")
    assert (rounded.new, rounded.version.training.precision) == (True, "bfloat16")
    assert load_version(spots, rounded.version)[0].record.precision == "bfloat16"
    assert not learn(spots, precision="bfloat16").new
    assert not learn(spots, precision="auto").new, "it did not ask for another precision"
    assert learn(spots, precision="float32").new


def test_training__of_an_old_version_was_in_float32() -> None:
    assert StoredTraining.from_json({"images": 3}).precision == "float32"


@pytest.mark.training
def test_refresh__an_unknown_precision_leaves_all_as_it_was(spots: Workspace, learn: Learn) -> None:
    with pytest.raises(DeviceError, match="no precision float16"):
        learn(spots, precision="float16")
    assert spots.catalogue.models.all() == []


@pytest.mark.training
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gate__both_versions_predict_in_the_same_precision(
    spots: Workspace, learn: Learn, tmp_path: Path, precision: str
) -> None:
    """Also where the current model reads another backbone, which the new one does not share."""
    current = learn(spots).version
    other = tmp_path / "other.safetensors"
    save_backbone(other, "other", TINY, DiffusionUNet.random(TINY, 9).net.state_dict(), {})
    backbones = Backbones(spots)
    net = backbones.get(str(other), "cpu", precision)
    loaded, unusable = load_current_model(spots, current, net, "cpu", backbones)
    assert unusable is None
    assert loaded is not None
    assert loaded.net is not net
    assert precision_of(loaded.net) == precision


@pytest.mark.training
def test_refresh__from_scratch_on_request(spots: Workspace, learn: Learn) -> None:
    learn(spots)
    accept_more(spots, [6])
    learn(spots)
    fresh = learn(spots, from_scratch=True)
    assert (fresh.new, fresh.version.name) == (True, "fedd-3")
    assert fresh.version.metrics["went_on_from"] is None
    assert not learn(spots, from_scratch=True).new, "these probes did start from scratch"


@pytest.mark.training
def test_refresh__other_settings_or_a_replaced_mask_start_from_scratch(
    spots: Workspace, learn: Learn
) -> None:
    learn(spots)
    accept_more(spots, [6])
    assert learn(spots, seed=3).version.metrics["went_on_from"] is None
    accept_more(spots, [6], value=0)
    assert learn(spots, seed=3).version.metrics["went_on_from"] is None


@pytest.mark.training
def test_refresh__keeps_activations_in_the_workspace_and_nothing_depends_on_them(
    spots: Workspace, learn: Learn
) -> None:
    first, _ = load_version(spots, learn(spots).version)
    entries = sorted((spots.root / CACHE).glob("*/*.safetensors"))
    # The image itself and one view, of four images, at two blocks.
    assert len(entries) == 4 * 2 * 2
    for entry in entries:
        entry.write_bytes(b"damaged")
    assert verify(spots).problems == []
    learn(spots, seed=1)
    again, _ = load_version(spots, learn(spots, seed=0, cache_limit=0).version)
    assert all(torch.equal(again.tensors[k], first.tensors[k]) for k in first.tensors)


@pytest.mark.training
def test_refresh__without_a_cache_writes_none(spots: Workspace, learn: Learn) -> None:
    learn(spots, cache_limit=0)
    assert not (spots.root / CACHE).exists()


@pytest.mark.training
def test_refresh__cache_that_cannot_be_written_is_told(spots: Workspace, learn: Learn) -> None:
    (spots.root / CACHE.parent).write_text("a file where the folder should be")
    done = learn(spots)
    assert done.new
    assert sum("activations are not kept" in note for note in done.notes) == 1


@pytest.mark.training
def test_refresh__classes_that_no_mask_shows_are_named(spots: Workspace, learn: Learn) -> None:
    assert learn(spots).absent_classes == ("background", "marker", "ruler")


@pytest.mark.training
def test_refresh__again_is_unchanged_until_something_changes(
    spots: Workspace, learn: Learn
) -> None:
    first = learn(spots)
    again = learn(spots)
    assert (again.new, again.version.id) == (False, first.version.id)
    assert learn(spots, seed=1).version.name == "fedd-2"


@pytest.mark.training
def test_refresh__no_accepted_mask_is_refused(
    workspace: Workspace, learn: Learn, refusal: Refusal
) -> None:
    with refusal(InputError):
        learn(workspace)
    assert list(workspace.catalogue.models.all()) == []


@pytest.mark.training
def test_refresh__weights_that_do_not_exist(spots: Workspace, refusal: Refusal) -> None:
    with refusal(WeightsError):
        train_version(spots, "tester", "nowhere")


@pytest.mark.training
def test_refresh__stopped_leaves_the_old_version_in_use(
    spots: Workspace, learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = learn(spots).version

    def stopped(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(refreshing, "training_metrics", stopped)
    with pytest.raises(KeyboardInterrupt):
        learn(spots, seed=1)
    assert spots.catalogue.models.current().id == first.id
    assert spots.store.digests(Kind.MODEL) == {first.file_hash}


@pytest.mark.training
def test_refresh__what_is_labelled_is_known_to_the_next_draw(
    spots: Workspace, learn: Learn
) -> None:
    version = learn(spots).version
    space = embedding_space(version.backbone_hash, version.settings)
    ids, vectors = spots.catalogue.embeddings.of(space)
    assert ids.tolist() == sorted(spots.catalogue.masks.accepted())
    assert vectors.std(axis=0).any()


@pytest.fixture
def held_out(spots: Workspace) -> None:
    """#1 and #2, of one patient, are held out for the gate."""
    spots.catalogue.splits.decide({1: Split.HOLDOUT, 3: Split.TRAINING})


@pytest.mark.training
def test_refresh__held_out_masks_are_never_learned_from(
    spots: Workspace, learn: Learn, held_out: None, wording: SnapshotAssertion
) -> None:
    version = learn(spots).version
    accepted = spots.catalogue.masks.accepted()
    assert sorted(version.training_masks) == sorted(accepted[i].content_hash for i in (3, 4))
    assert version.gate is not None
    assert version.gate["held_out"]["images"] == 2
    assert version.gate["reasons"][0] == wording


@pytest.mark.training
def test_refresh__once_begun_holding_out_goes_on(spots: Workspace, learn: Learn) -> None:
    assert learn(spots).version.gate is None
    accept_more(spots, [5])
    assert learn(spots, start_holdout=True).version.gate is not None
    assert learn(spots, seed=1).version.gate is not None


@pytest.mark.training
def test_refresh__everything_held_out_leaves_nothing_to_learn_from(
    spots: Workspace, learn: Learn, refusal: Refusal
) -> None:
    spots.catalogue.splits.decide({1: Split.HOLDOUT, 3: Split.HOLDOUT})
    with refusal(InputError):
        learn(spots)


@pytest.mark.training
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"edited")])
def test_refresh__a_version_in_use_that_can_not_paint_keeps_no_other_from_use(
    spots: Workspace, learn: Learn, held_out: None, damage: Callable[[Path], object]
) -> None:
    damage(Path(spots.store.path(Kind.MODEL, learn(spots).version.file_hash)))
    accept_more(spots, [5])
    done = learn(spots)
    assert done.in_use == done.version.name == "fedd-2"
    assert done.reasons[0].startswith("not evaluated: fedd-1: ")
    assert not any("no version in use" in reason for reason in done.reasons)
    assert done.version.gate is not None
    assert not done.version.gate["judged"]


@pytest.mark.training
@pytest.mark.parametrize("tolerance", [5, -1, float("nan")])
def test_refresh__a_tolerance_that_is_none_is_refused_before_anything_is_done(
    spots: Workspace,
    learn: Learn,
    tolerance: float,
    monkeypatch: pytest.MonkeyPatch,
    refusal: Refusal,
) -> None:
    monkeypatch.setattr(refreshing, "train_probes", None)
    with refusal(InputError):
        learn(spots, start_holdout=True, max_drop=tolerance)
    assert spots.catalogue.splits.all() == {}


@pytest.mark.training
def test_refresh__a_refused_version_is_on_record_and_not_in_use(
    spots: Workspace, learn: Learn, held_out: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(spots)
    accept_more(spots, [5])
    real = gate.decide

    def refuse(*args: Any, **options: Any) -> gate.GateDecision:
        return replace(real(*args, **options), passed=False, reasons=("V-VI: worse",))

    monkeypatch.setattr(gate, "decide", refuse)
    done = learn(spots)
    assert (done.version.name, done.in_use, done.reasons) == ("fedd-2", "fedd-1", ("V-VI: worse",))
    again = learn(spots)
    assert (again.new, again.version.name, again.in_use) == (False, "fedd-2", "fedd-1")
    accept_more(spots, [6])
    assert learn(spots).version.metrics["went_on_from"] == "fedd-1"


@pytest.mark.training
def test_metrics__only_the_validation_split_is_predicted(spots: Workspace, tmp_path: Path) -> None:
    accepted = spots.catalogue.masks.accepted()
    pairs = [(i, accepted[i.id]) for i in spots.catalogue.images.select(ids=list(accepted))]
    examples = [Example(spots.photograph(i), spots.mask(m), f"p{i.id}", i.tone) for i, m in pairs]
    net, cache = Counting(DiffusionUNet.random(TINY, 1)), FeatureCache(tmp_path / "cache")
    probes = train_probes(
        examples[:3],
        net,
        replace(QUICK, mirrored=True, steps=20),
        load_protocol().class_names,
        validation=examples[3:],
        cache=cache,
    )
    trained = net.passed.total()

    record, embeddings = training_metrics(
        spots, probes, net, pairs, Groups.read(spots.catalogue), cache
    )
    assert net.passed.total() - trained == 1, "the mirror image of the one in the validation split"
    assert record["validation"]["images"] == 1
    assert set(embeddings) == {image.id for image, _ in pairs}
    for image, _ in pairs:
        (predicted,) = probes.predict(net, [spots.photograph(image)], cache)
        assert np.array_equal(embeddings[image.id], predicted.embedding)


@pytest.mark.training
def test_refresh__unlabelled_pixels_teach_nothing(spots: Workspace, learn: Learn) -> None:
    """With every lesion unlabelled, the model knows no lesion."""
    protocol = load_protocol()
    for image_id, row in spots.catalogue.masks.accepted().items():
        spots.catalogue.images.reopen(image_id, "tester")
        mask = spots.mask(row)
        partial = np.where(mask == 1, 255, mask).astype(np.uint8)
        partial[:5] = 0  # a second class, without which nothing can be learned
        new = NewMask(
            image_id,
            spots.store_mask(partial),
            partial.shape[1],
            partial.shape[0],
            "same",
            [0, 1, 4],
            protocol.version,
            "anna",
            unlabelled=int((partial == 255).sum()),
        )
        spots.catalogue.masks.submit([new], "ben")
    done = learn(spots)
    assert len(done.version.training_masks) == 4
    prelabel(spots, spots.catalogue.images.select(states=[State.NEW]))
    predicted = [spots.mask(m) for m in spots.catalogue.masks.newest_predictions().values()]
    assert predicted
    assert not any((mask == 1).any() for mask in predicted)
    assert not verify(spots).problems


def _leave_only_lesions(workspace: Workspace, image_ids: Iterable[int]) -> None:
    """Accept masks of images in which all but the lesion is unlabelled."""
    for image_id in image_ids:
        workspace.catalogue.images.reopen(image_id, "tester")
        mask = spot(image_id - 1)[1]
        partial = np.where(mask == 1, 1, 255).astype(np.uint8)
        new = NewMask(
            *(image_id, workspace.store_mask(partial), mask.shape[1], mask.shape[0], "same", [1]),
            *(load_protocol().version, "anna"),
            unlabelled=int((partial == 255).sum()),
        )
        workspace.catalogue.masks.submit([new], "ben")


@pytest.mark.training
def test_refresh__strokes_are_enough_to_learn_both_classes(spots: Workspace, learn: Learn) -> None:
    for image_id, row in spots.catalogue.masks.accepted().items():
        spots.catalogue.images.reopen(image_id, "tester")
        whole = spots.mask(row)
        strokes = np.full_like(whole, 255)
        strokes[:2], strokes[18:21] = whole[:2], np.where(whole[18:21] == 1, 1, 255)
        kept = ("image_id", "width", "height", "mapping", "classes", "protocol_version")
        columns: dict[str, Any] = {name: getattr(row, name) for name in kept}
        new = NewMask(
            **columns,
            content_hash=spots.store_mask(strokes),
            annotator="cleo",
            unlabelled=int((strokes == 255).sum()),
        )
        spots.catalogue.masks.submit([new], reviewer="ben")
    learn(spots)
    prelabel(spots, spots.catalogue.images.select(ids=[7]))
    predicted = spots.mask(spots.catalogue.masks.newest_predictions()[7]) == 1
    lesion = spot(6)[1] == 1
    assert (predicted & lesion).sum() / (predicted | lesion).sum() > 0.4


@pytest.mark.training
def test_refresh__lesion_alone_is_labelled(
    spots: Workspace, learn: Learn, refusal: Refusal
) -> None:
    _leave_only_lesions(spots, spots.catalogue.masks.accepted())
    with refusal(InputError):
        learn(spots)
    assert spots.catalogue.models.all() == []


@pytest.mark.training
def test_refresh__holdout_masks_that_label_the_lesion_alone(
    spots: Workspace, learn: Learn, wording: SnapshotAssertion
) -> None:
    """The gate leaves them out, and says so."""
    spots.catalogue.splits.decide({1: Split.HOLDOUT, 2: Split.HOLDOUT, 3: Split.TRAINING})
    learn(spots)
    _leave_only_lesions(spots, [1, 2])
    accept_more(spots, [5])
    done = learn(spots)
    decision = done.version.decision
    assert decision is not None
    assert not decision.evaluated
    assert decision.holdout.images == 0
    assert done.reasons[:3] == wording
