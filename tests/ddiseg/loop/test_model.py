from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from annotation_protocol import load_protocol
from ddiseg import masks
from ddiseg.catalogue import State
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.ingest.mask_files import import_masks
from ddiseg.loop import model
from ddiseg.loop.model import CACHE, Refreshed, prelabel, refresh
from ddiseg.outcomes import Outcome
from ddiseg.store import Kind
from ddiseg.verify import verify
from ddiseg.workspace import Workspace
from fedd.probes import validation
from tests.fedd.conftest import QUICK, spot

Learn = Callable[..., Refreshed]


def accept_more(workspace: Workspace, numbers: list[int], value: int | None = None) -> None:
    """Accept the true masks of images by row number; `value` paints one corner, to make another mask."""
    for number in numbers:
        (image,) = workspace.catalogue.images.select(ids=[number])
        mask = spot(number - 1)[1].copy()
        if value is not None:
            mask[:4, :4] = value
        folder = workspace.root.parent / f"more-{number}-{value}"
        folder.mkdir()
        data = masks.encode_png(mask, load_protocol().palette())
        (folder / image.name).write_bytes(data)
        import_masks(
            workspace,
            folder,
            format_name="png",
            annotator="annotator-1",
            reviewer="reviewer-1",
        )


def test_refresh__records_what_made_the_version(spots: Workspace, learn: Learn) -> None:
    done = learn(spots)
    version = done.version
    accepted = spots.catalogue.masks.accepted().values()
    assert done.new
    assert version.name == "fedd-1"
    assert sorted(version.training_masks) == sorted(m.content_hash for m in accepted)
    assert version.metrics["by_tone"] == {"I-II": 2, "III-IV": 1, "V-VI": 1}
    assert version.settings["seed"] == 0
    assert version.metrics["on_its_own_training_images"]["lesion"] > 0.3
    assert spots.store.digests(Kind.MODEL) == {version.file_hash}


def test_refresh__few_masks_hold_nothing_out_and_say_so(spots: Workspace, learn: Learn) -> None:
    done = learn(spots)
    assert done.version.metrics["validation"] is None
    assert done.version.metrics["steps"] == QUICK.steps
    assert any("4 images are too few" in note for note in done.notes)


def test_refresh__held_out_part_is_on_record(
    spots: Workspace, learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "FEWEST_IMAGES", 4)
    accept_more(spots, [5, 6, 7, 8, 9])
    metrics = learn(spots, replace(QUICK, held_out=0.4)).version.metrics
    found = metrics["validation"]
    assert found["images"] == 4
    assert set(found["by_tone"]) == {"I-II", "III-IV", "V-VI"}
    assert found["scores"]["lesion"]["n"] == 4
    assert found["scores"]["lesion"]["iou_mean_ci95"] is not None
    assert set(found["scores"]) == {"lesion", "skin"}
    assert found["calibration"]["images"] == 4
    assert 0 <= found["calibration"]["ece"] < 0.2
    assert found["loss"] > 0


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


def test_refresh__from_scratch_on_request(spots: Workspace, learn: Learn) -> None:
    learn(spots)
    accept_more(spots, [6])
    learn(spots)
    fresh = learn(spots, from_scratch=True)
    assert (fresh.new, fresh.version.name) == (True, "fedd-3")
    assert fresh.version.metrics["went_on_from"] is None
    assert not learn(spots, from_scratch=True).new, "these probes did start from scratch"


def test_refresh__other_settings_or_a_replaced_mask_start_from_scratch(
    spots: Workspace, learn: Learn
) -> None:
    learn(spots)
    accept_more(spots, [6])
    assert learn(spots, seed=3).version.metrics["went_on_from"] is None
    accept_more(spots, [6], value=0)
    assert learn(spots, seed=3).version.metrics["went_on_from"] is None


def test_refresh__keeps_activations_in_the_workspace_and_nothing_depends_on_them(
    spots: Workspace, learn: Learn
) -> None:
    first, _ = model.load_version(spots, learn(spots).version)
    entries = sorted((spots.root / CACHE).glob("*/*.safetensors"))
    # The image itself and one view, of four images, at two blocks.
    assert len(entries) == 4 * 2 * 2
    for entry in entries:
        entry.write_bytes(b"damaged")
    assert verify(spots).problems == []
    learn(spots, seed=1)
    again, _ = model.load_version(spots, learn(spots, seed=0, cache_limit=0).version)
    assert all(torch.equal(again.tensors[k], first.tensors[k]) for k in first.tensors)


def test_refresh__without_a_cache_writes_none(spots: Workspace, learn: Learn) -> None:
    learn(spots, cache_limit=0)
    assert not (spots.root / CACHE).exists()


def test_refresh__cache_that_cannot_be_written_is_told(spots: Workspace, learn: Learn) -> None:
    (spots.root / CACHE.parent).write_text("a file where the folder should be")
    done = learn(spots)
    assert done.new
    assert sum("activations are not kept" in note for note in done.notes) == 1


def test_refresh__classes_that_no_mask_shows_are_named(spots: Workspace, learn: Learn) -> None:
    assert learn(spots).absent_classes == ("background", "marker", "ruler")


def test_refresh__again_is_unchanged_until_something_changes(
    spots: Workspace, learn: Learn
) -> None:
    first = learn(spots)
    again = learn(spots)
    assert (again.new, again.version.id) == (False, first.version.id)
    assert learn(spots, seed=1).version.name == "fedd-2"


def test_refresh__no_accepted_mask_is_refused(workspace: Workspace, learn: Learn) -> None:
    with pytest.raises(InputError, match="no accepted mask to learn from"):
        learn(workspace)
    assert list(workspace.catalogue.models.all()) == []


def test_refresh__weights_that_do_not_exist(spots: Workspace) -> None:
    with pytest.raises(InputError, match="no backbone called nowhere"):
        refresh(spots, "tester", "nowhere")


def test_refresh__stopped_leaves_the_old_version_in_use(
    spots: Workspace, learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = learn(spots).version

    def stopped(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "training_metrics", stopped)
    with pytest.raises(KeyboardInterrupt):
        learn(spots, seed=1)
    assert spots.catalogue.models.current().id == first.id
    assert spots.store.digests(Kind.MODEL) == {first.file_hash}


def test_prelabel__paints_and_moves_new_images_on(spots: Workspace, learn: Learn) -> None:
    version = learn(spots).version
    used, outcomes = prelabel(spots, spots.catalogue.images.select(ids=[5, 6, 7, 8]))
    assert used.id == version.id
    assert Counter(o.outcome for o in outcomes) == {Outcome.ADDED: 4}
    predictions = spots.catalogue.masks.newest_predictions()
    assert set(predictions) == {5, 6, 7, 8}
    for image in spots.catalogue.images.select(ids=[5, 6, 7, 8]):
        assert image.state == State.PRELABELLED
        mask = predictions[image.id]
        assert mask.uncertainty is not None
        assert mask.uncertainty > 0
        assert mask.classes == [1, 4]
        painted = spots.mask(mask) == 1
        truth = spot(image.id - 1)[1] == 1
        assert (painted & truth).sum() / (painted | truth).sum() > 0.4


def test_prelabel__changes_nothing_about_images_that_are_settled(
    spots: Workspace, learn: Learn
) -> None:
    learn(spots)
    spots.catalogue.images.skip(9, "blurry", None, "anna")
    accepted = {i: m.id for i, m in spots.catalogue.masks.accepted().items()}
    _, outcomes = prelabel(spots, spots.catalogue.images.select(ids=[1, 9]))
    assert Counter(o.outcome for o in outcomes) == {Outcome.ADDED: 2}
    states = [i.state for i in spots.catalogue.images.select(ids=[1, 9])]
    assert states == [State.ACCEPTED, State.SKIPPED]
    assert {i: m.id for i, m in spots.catalogue.masks.accepted().items()} == accepted
    assert spots.catalogue.history.contradictions() == []


def test_prelabel__again_is_unchanged(spots: Workspace, learn: Learn) -> None:
    learn(spots)
    todo = spots.catalogue.images.select(states=[State.NEW])
    prelabel(spots, todo)
    events = spots.catalogue.history.count()
    _, outcomes = prelabel(spots, todo)
    assert {o.outcome for o in outcomes} == {Outcome.UNCHANGED}
    assert spots.catalogue.history.count() == events


def test_prelabel__interrupted_keeps_what_was_painted(
    spots: Workspace, learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(spots)
    monkeypatch.setattr(model, "BATCH", 1)
    monkeypatch.setattr(model, "TRANSACTION", 2)
    todo = spots.catalogue.images.select(states=[State.NEW])

    def stop(done: int, _total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prelabel(spots, todo, stop)
    assert len(spots.catalogue.masks.newest_predictions()) == 2
    _, outcomes = prelabel(spots, todo)
    assert Counter(o.outcome for o in outcomes) == {Outcome.UNCHANGED: 2, Outcome.ADDED: 3}
    assert spots.catalogue.history.contradictions() == []


def test_prelabel__missing_photograph_does_not_stop_the_rest(
    spots: Workspace, learn: Learn
) -> None:
    learn(spots)
    image = spots.catalogue.images.find("5.png")
    Path(spots.store.path(Kind.IMAGE, image.content_hash)).unlink()
    _, outcomes = prelabel(spots, spots.catalogue.images.select(states=[State.NEW]))
    refused = [o for o in outcomes if o.outcome is Outcome.REFUSED]
    assert [o.name for o in refused] == ["5.png"]
    assert "missing from the store" in str(refused[0].note)
    assert len(outcomes) == 5


def test_prelabel__without_a_model(spots: Workspace) -> None:
    with pytest.raises(LookupError, match="ddiseg refresh"):
        prelabel(spots, spots.catalogue.images.select())


def test_prelabel__model_file_changed_on_disk(spots: Workspace, learn: Learn) -> None:
    path = Path(spots.store.path(Kind.MODEL, learn(spots).version.file_hash))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(WorkspaceError, match="was changed on disk"):
        prelabel(spots, spots.catalogue.images.select(states=[State.NEW]))


def test_prelabel__backbone_replaced_by_another(
    spots: Workspace, learn: Learn, tmp_path: Path, tiny_weights: Path
) -> None:
    from fedd.backbone import DiffusionUNet
    from fedd.weights.files import save_backbone
    from tests.fedd.conftest import TINY

    path = tmp_path / "own.safetensors"
    path.write_bytes(tiny_weights.read_bytes())
    refresh(spots, "tester", str(path), 0, QUICK)
    save_backbone(path, "own", TINY, DiffusionUNet.random(TINY, 7).net.state_dict(), {})
    with pytest.raises(InputError, match="train probes anew"):
        prelabel(spots, spots.catalogue.images.select(states=[State.NEW]))


def test_prediction__same_image_same_bytes_whatever_the_batch(
    spots: Workspace, learn: Learn, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(spots)
    todo = spots.catalogue.images.select(states=[State.NEW])
    prelabel(spots, todo)
    together = {i: spots.mask(m) for i, m in spots.catalogue.masks.newest_predictions().items()}
    learn(spots, seed=0)
    probes, net = model.load_version(spots, spots.catalogue.models.current())
    for image in todo:
        alone = probes.predict(net, [spots.photograph(image)])[0].mask
        assert np.mean(alone != together[image.id]) < 0.001
    assert masks.classes_in(together[todo[0].id])
