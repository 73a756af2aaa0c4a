from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import jaccard_score
from syrupy.assertion import SnapshotAssertion

from annotation_protocol import load_protocol
from ddiseg import masks
from ddiseg.catalogue import Details, NewMask, State
from ddiseg.errors import InputError
from ddiseg.evaluation.segmentation import evaluate
from ddiseg.ingest.placement import Geometry
from ddiseg.model.predict import prelabel
from ddiseg.model.train import Refreshed
from ddiseg.outcomes import FileOutcome, Outcome
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.fedd.conftest import spot
from tests.wording import Refusal

Learn = Callable[..., Refreshed]


@pytest.fixture
def painted(spots: Workspace, learn: Learn) -> Workspace:
    """The spots, learned from 0 to 3 and painted from 4 on."""
    learn(spots)
    prelabel(spots, spots.catalogue.images.select(states=[State.NEW]))
    return spots


def _paint(workspace: Workspace, image_id: int, mask: np.ndarray) -> None:
    """Another prediction by the newest model, as if it had painted `mask`."""
    version = workspace.catalogue.models.all()[-1]
    new = NewMask(
        image_id=image_id,
        content_hash=workspace.store_mask(mask),
        width=mask.shape[1],
        height=mask.shape[0],
        mapping="same",
        classes=[1, 4],
        protocol_version="1.0",
        model_version_id=version.id,
    )
    workspace.catalogue.masks.add_predictions([new])


@pytest.mark.training
def test_evaluate__figures_are_scikit_learns(painted: Workspace, tmp_path: Path) -> None:
    result = evaluate(painted, "tester", truth=tmp_path / "truth")
    found = painted.catalogue.masks.newest_predictions()
    pairs = [(spot(i - 1)[1], painted.mask(m)) for i, m in sorted(found.items())]
    each = [jaccard_score(t.ravel() == 1, p.ravel() == 1) for t, p in pairs]
    pooled = jaccard_score(
        np.concatenate([t.ravel() == 1 for t, _ in pairs]),
        np.concatenate([p.ravel() == 1 for _, p in pairs]),
    )
    lesion = result["classes"]["lesion"]
    assert lesion["n"] == len(pairs) == 5
    assert lesion["iou_mean"] == pytest.approx(np.mean(each))
    assert lesion["iou_pooled"] == pytest.approx(pooled)
    assert (lesion["iou_mean_ci95"], lesion["patients"]) == (None, 3), "too few for an interval"
    assert {t: s["lesion"]["n"] for t, s in result["by_tone"].items()} == {
        "I-II": 1,
        "III-IV": 2,
        "V-VI": 2,
    }
    assert result["by_tone"]["I-II"]["lesion"]["iou_mean_ci95"] is None, (
        "one patient has no interval"
    )


@pytest.mark.training
def test_evaluate__what_the_model_learned_from_is_left_out_and_counted(
    painted: Workspace, tmp_path: Path
) -> None:
    result = evaluate(painted, "tester", truth=tmp_path / "truth")
    assert (result["n_images"], result["learned_from"], result["without_prediction"]) == (5, 4, 0)


@pytest.mark.training
def test_evaluate__a_model_is_never_scored_on_its_own_training_image(
    painted: Workspace, tmp_path: Path, learn: Learn
) -> None:
    """Reopened and painted again by the model that learned from it, image 1 still does not count."""
    painted.catalogue.images.reopen(1, "tester")
    _paint(painted, 1, spot(0)[1])
    result = evaluate(painted, "tester", truth=tmp_path / "truth")
    assert result["n_images"] == 5
    assert result["learned_from"] == 4


@pytest.mark.training
def test_evaluate__predictions_of_another_version_are_told(
    painted: Workspace, tmp_path: Path, learn: Learn, wording: SnapshotAssertion
) -> None:
    """The version in use learned from the image; the one before did not, and its prediction counts."""
    assert evaluate(painted, "tester", truth=tmp_path / "truth")["notes"] == []
    assert painted.catalogue.evaluations.test_images() == {5, 6, 7, 8, 9}
    new = NewMask(5, painted.store_mask(spot(4)[1]), 40, 40, "same", [1, 4], "1.1", "anna")
    painted.catalogue.masks.submit([new], "ben")
    learn(painted)
    result = evaluate(painted, "tester", truth=tmp_path / "truth")
    assert result["models"] == {"fedd-1": 5}
    assert result["notes"] == wording
    assert painted.catalogue.evaluations.test_images() == {6, 7, 8, 9}


@pytest.mark.training
def test_evaluate__accepted_masks_drawn_over_their_prediction_are_told(painted: Workspace) -> None:
    predictions = painted.catalogue.masks.newest_predictions()
    over = [
        NewMask(
            *(i, predictions[i].content_hash, 40, 40, "same", [1, 4], "1.1", "anna"),
            parent_id=predictions[i].id,
        )
        for i in (5, 7)
    ]
    afresh = NewMask(6, painted.store_mask(spot(5)[1]), 40, 40, "same", [1, 4], "1.1", "anna")
    painted.catalogue.masks.submit([*over, afresh], "ben")
    result = evaluate(painted, "tester", truth=None)
    assert result["n_images"] == 3
    (note,) = result["notes"]
    assert note.startswith(
        "2 of 3 accepted masks were drawn over the same prediction that they are"
    )


@pytest.mark.training
def test_evaluate__foreign_values_are_told_with_what_to_type(
    painted: Workspace, tmp_path: Path
) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    for number in (4, 5):
        grey = np.where(spot(number)[1] == 1, 255, 0).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"{number}.png")
    with pytest.raises(InputError) as raised:
        evaluate(painted, "tester", truth=folder)
    assert str(raised.value) == (
        f"nothing to evaluate of 2 truths ({folder}): refused: 2 truths: mask value 255 is no class; "
        "values seen: 0, 255; give --classes, for example 0=skin,255=lesion; 0 may be background "
        "instead (4.png, 5.png)"
    )
    assert evaluate(painted, "tester", truth=folder, mapping={0: 4, 255: 1})["n_images"] == 2


@pytest.mark.training
def test_evaluate__other_truths_of_the_folder_hold_no_class(
    painted: Workspace, tmp_path: Path
) -> None:
    """A truth of 0 and 255 without a lesion holds only 0: it is not scored as background."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    for number, value in ((4, 0), (5, 0), (6, 255)):
        Image.fromarray(np.full((40, 40), value, np.uint8)).save(folder / f"{number}.png")
    refused: list[FileOutcome] = []
    with pytest.raises(InputError) as raised:
        evaluate(painted, "tester", truth=folder, refused=refused)
    assert str(raised.value) == (
        f"nothing to evaluate of 3 truths ({folder}): refused: 2 truths: other masks of this folder "
        "hold values that are no class (255): give --classes, for example 0=skin,255=lesion; "
        "0 may be background instead (4.png, 5.png); 6.png: mask value 255 is no class; values seen: "
        "0, 255; give --classes, for example 0=skin,255=lesion; 0 may be background instead"
    )
    assert [each.name for each in refused] == ["4.png", "5.png", "6.png"]
    assert painted.catalogue.events.last("evaluation") is None
    assert painted.catalogue.evaluations.all_compared() == []


@pytest.mark.training
def test_evaluate__notes_that_truths_hold_only_0_and_1(painted: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "binary"
    folder.mkdir()
    for number in (4, 5):
        Image.fromarray(spot(number)[1] == 1).save(folder / f"{number}.png")
    note = (
        "all 2 masks hold only 0 and 1, read as background and lesion; if 0 means skin, give "
        "--classes 0=skin,1=lesion"
    )
    assert evaluate(painted, "tester", truth=folder)["notes"] == [note]
    assert evaluate(painted, "tester", truth=folder, mapping={0: 4, 1: 1})["notes"] == []
    assert evaluate(painted, "tester", truth=tmp_path / "truth")["notes"] == []


@pytest.mark.training
def test_evaluate__names_and_reasons_of_refused_truths(painted: Workspace, tmp_path: Path) -> None:
    name = "x1: y.png"
    (tmp_path / "truth" / name).write_bytes((tmp_path / "truth" / "1.png").read_bytes())
    refused: list[FileOutcome] = []
    result = evaluate(painted, "tester", truth=tmp_path / "truth", refused=refused)
    reason = "no image has this name: import the photographs first"
    assert refused == [FileOutcome(name, Outcome.REFUSED, reason)]
    assert result["refused"] == [f"{name}: {reason}"]


@pytest.mark.training
def test_evaluate__why_nothing_is_left(painted: Workspace, tmp_path: Path) -> None:
    painted.catalogue.subsets.store({"first": [1, 2]}, {}, "tester")
    with pytest.raises(InputError) as raised:
        evaluate(painted, "tester", truth=tmp_path / "truth", subset="first")
    assert str(raised.value).endswith(
        "2 are of images that the model was trained on, or of their groups (patient, lesion, "
        "near-duplicates): give --truth masks of other images; 7 are of images outside the subset"
    )


@pytest.mark.training
def test_evaluate__settled_images_are_predicted_where_asked_for(
    spots: Workspace, learn: Learn, tmp_path: Path, refusal: Refusal
) -> None:
    """A plain 'ddiseg prelabel' leaves a skipped image out: it would be the wrong advice."""
    learn(spots)
    for image_id in (6, 7, 8, 9):
        spots.catalogue.images.skip(image_id, "blurry", None, "tester")
    with refusal(InputError):
        evaluate(spots, "tester", truth=tmp_path / "truth")


@pytest.mark.training
def test_evaluate__format_is_guessed(painted: Workspace, tmp_path: Path) -> None:
    assert evaluate(painted, "tester", truth=tmp_path / "truth")["format"] == "png"
    folder = tmp_path / "sddi"
    folder.mkdir()
    np.save(folder / "4.npy", masks.stretch(spot(4)[1], (256, 256)).astype(np.int32))
    result = evaluate(painted, "tester", truth=folder)
    assert (result["format"], result["n_images"]) == ("sddi", 1)


@pytest.mark.training
def test_evaluate__accepted_masks_against_earlier_predictions(
    painted: Workspace, refusal: Refusal
) -> None:
    with refusal(InputError):
        evaluate(painted, "tester", truth=None)
    mask = spot(4)[1]
    new = NewMask(
        image_id=5,
        content_hash=painted.store_mask(mask),
        width=40,
        height=40,
        mapping="same",
        classes=[0, 1, 2, 3, 4],
        protocol_version="1.0",
        annotator="anna",
    )
    painted.catalogue.masks.submit([new], "ben")
    result = evaluate(painted, "tester", truth=None)
    assert (result["n_images"], result["models"]) == (1, {"fedd-1": 1})


@pytest.mark.training
def test_evaluate__leaves_out_the_groups_that_the_model_learned_from(
    painted: Workspace, tmp_path: Path
) -> None:
    """#5 turns out to be of the patient of #1, which the model learned from."""
    before = evaluate(painted, "tester", truth=tmp_path / "truth")
    assert (before["n_images"], before["same_group"]) == (5, 0)
    painted.catalogue.images.update_details([5], [Details(patient="q0")], "tester")
    after = evaluate(painted, "tester", truth=tmp_path / "truth")
    assert (after["n_images"], after["same_group"]) == (4, 1)
    assert after["learned_from"] == before["learned_from"]


@pytest.mark.training
def test_evaluate__only_classes_that_the_truth_could_hold(
    painted: Workspace, tmp_path: Path
) -> None:
    mapping = {4: 4, 1: 1}
    result = evaluate(painted, "tester", truth=tmp_path / "truth", mapping=mapping)
    assert set(result["classes"]) == {"lesion", "skin"}


@pytest.mark.training
def test_evaluate__subset_and_unknown_truth(
    painted: Workspace, tmp_path: Path, refusal: Refusal
) -> None:
    painted.catalogue.subsets.store({"some": [5, 6]}, {}, "tester")
    (tmp_path / "truth" / "stranger.png").write_bytes((tmp_path / "truth" / "1.png").read_bytes())
    result = evaluate(painted, "tester", truth=tmp_path / "truth", subset="some")
    assert result["n_images"] == 2
    assert len(result["refused"]) == 1
    assert "stranger" in result["refused"][0]
    with refusal(LookupError):
        evaluate(painted, "tester", truth=tmp_path / "truth", subset="none")


@pytest.mark.training
def test_evaluate__stretched_truth_is_brought_to_the_photographs_size(
    painted: Workspace, tmp_path: Path
) -> None:
    folder = tmp_path / "stretched"
    folder.mkdir()
    large = masks.stretch(spot(4)[1], (80, 120))
    (folder / "4.png").write_bytes(masks.encode_png(large, load_protocol().palette()))
    refused = pytest.raises(InputError, match="nothing to evaluate")
    with refused:
        evaluate(painted, "tester", truth=folder)
    direct = evaluate(painted, "tester", truth=tmp_path / "truth")
    stretched = evaluate(painted, "tester", truth=folder, geometry=Geometry(stretched=True))
    assert stretched["n_images"] == 1
    painted.catalogue.subsets.store({"four": [5]}, {}, "tester")
    one = evaluate(painted, "tester", truth=tmp_path / "truth", subset="four")
    assert stretched["classes"]["lesion"]["iou_mean"] == one["classes"]["lesion"]["iou_mean"]
    assert direct["n_images"] == 5


@pytest.mark.training
def test_evaluate__is_logged_for_the_report(painted: Workspace, tmp_path: Path) -> None:
    result = evaluate(painted, "tester", truth=tmp_path / "truth")
    last = painted.catalogue.evaluations.last()
    assert last is not None
    assert last[1].to_json() == result
    event = painted.catalogue.events.last("evaluation")
    assert event is not None
    assert event.detail == {key: result[key] for key in ("models", "truth", "subset", "n_images")}


@pytest.mark.training
def test_evaluate__stores_what_it_compared_beside_the_figures(
    painted: Workspace, tmp_path: Path
) -> None:
    masks_before = [(m.id, m.content_hash) for m in painted.catalogue.masks.all()]
    evaluate(painted, "tester", truth=tmp_path / "truth")
    event = painted.catalogue.events.last("evaluation")
    assert event is not None
    predictions = painted.catalogue.masks.newest_predictions()
    compared = painted.catalogue.evaluations.last_compared()
    assert {i: row.mask_id for i, row in compared.items()} == {
        i: mask.id for i, mask in predictions.items()
    }
    for image_id, row in compared.items():
        truth, predicted = spot(image_id - 1)[1], painted.mask(predictions[image_id])
        assert row.event_id == event.id
        assert row.truth_hash == masks.mask_hash(truth)
        stored = masks.decode_png(painted.store.get(Kind.MASK, row.truth_hash))
        np.testing.assert_array_equal(stored, truth)
        expected = jaccard_score(truth.ravel() == 1, predicted.ravel() == 1)
        assert row.lesion_iou == pytest.approx(expected)
    # A truth is nobody's mask: nothing was added that could be accepted or learned from.
    assert [(m.id, m.content_hash) for m in painted.catalogue.masks.all()] == masks_before


@pytest.mark.training
def test_evaluate__the_newest_is_what_is_shown(painted: Workspace, tmp_path: Path) -> None:
    evaluate(painted, "tester", truth=tmp_path / "truth")
    painted.catalogue.subsets.store({"one": [6]}, {}, "tester")
    evaluate(painted, "tester", truth=tmp_path / "truth", subset="one")
    assert set(painted.catalogue.evaluations.last_compared()) == {6}
    assert len(painted.catalogue.evaluations.all_compared()) == 6


@pytest.mark.training
def test_evaluate__a_truth_without_lesion_has_no_lesion_iou(
    painted: Workspace, tmp_path: Path
) -> None:
    """Where the author could not draw one; the prediction is compared all the same."""
    marker = load_protocol().class_named("marker").index
    mapping = {0: 0, 1: marker, 4: marker}
    evaluate(painted, "tester", truth=tmp_path / "truth", mapping=mapping)
    assert {row.lesion_iou for row in painted.catalogue.evaluations.last_compared().values()} == {
        None
    }


@pytest.mark.training
def test_evaluate__figures_and_comparisons_are_one_transaction(
    painted: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_arguments: object) -> None:
        raise RuntimeError("stopped")

    monkeypatch.setattr("ddiseg.catalogue.evaluations.insert", stopped)
    with pytest.raises(RuntimeError, match="stopped"):
        evaluate(painted, "tester", truth=tmp_path / "truth")
    assert painted.catalogue.events.last("evaluation") is None
    assert painted.catalogue.evaluations.all_compared() == []


@pytest.mark.training
def test_evaluate__ignored_values_are_not_scored(painted: Workspace, tmp_path: Path) -> None:
    (tmp_path / "partial").mkdir()
    found = painted.catalogue.masks.newest_predictions()
    for image_id, row in found.items():
        values = 10 * painted.mask(row)
        values[:, :20] = 255  # what the model predicted there is not scored
        name = f"{image_id - 1}_mask.png"
        Image.fromarray(values).save(tmp_path / "partial" / name)
    mapping = {10: 1, 40: 4, 0: 0, 255: 255}
    result = evaluate(
        painted, "tester", truth=tmp_path / "partial", mapping=mapping, suffixes=["_mask"]
    )
    assert result["n_images"] == len(found)
    assert {s["iou_mean"] for s in result["classes"].values() if s["n"]} == {1.0}


@pytest.mark.training
def test_evaluate__lesion_alone_is_labelled(painted: Workspace, tmp_path: Path) -> None:
    """A false positive can't count in such an image: recall is no IoU."""
    for number in (4, 5):
        mask = spot(number)[1]
        data = masks.encode_png(
            np.where(mask == 1, 1, 255).astype(np.uint8), load_protocol().palette()
        )
        (tmp_path / "truth" / f"{number}.png").write_bytes(data)
    mapping = {0: 0, 1: 1, 4: 4, 255: 255}
    result = evaluate(painted, "tester", truth=tmp_path / "truth", mapping=mapping)
    assert result["n_images"] == 5
    assert result["classes"]["lesion"]["n"] == 3
    share = np.mean([(spot(number)[1] == 1).mean() for number in (4, 5)])
    assert result["notes"] == [
        f"2 of 5 masks are labelled in part, on average {share:.0%} of the pixels; "
        "the others are not compared",
        "2 images: lesion alone is labelled, so its IoU is not defined (a false positive can't count)",
    ]
    compared = painted.catalogue.evaluations.last_compared()
    assert [compared[image_id].lesion_iou for image_id in (5, 6)] == [None, None]
