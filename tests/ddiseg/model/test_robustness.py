from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from annotation_protocol import load_protocol
from ddiseg.catalogue import State
from ddiseg.catalogue.tables import Image
from ddiseg.errors import DdisegError, InputError
from ddiseg.model import robustness as module
from ddiseg.model.robustness import sensitivity
from ddiseg.model.train import Refreshed
from ddiseg.sampling.groups import Groups
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from fedd.pipeline import Predicted, Source
from fedd.segment import Prediction
from tests.wording import Refusal

Learn = Callable[..., Refreshed]


class Shifting:
    """Stands for probes: a lesion of 10 x 10, moved down by what the light changed in its brightness."""

    classes = load_protocol().class_names
    record = SimpleNamespace(precision="float32")

    def __init__(self) -> None:
        self.unchanged: dict[int, float] = {}  # the brightness of each image as it is

    def predictions(
        self, probes: object, net: object, sources: list[Source[Image]]
    ) -> Iterator[Predicted[Image]]:
        """Stands for `fedd.pipeline.predictions`."""
        for source in sources:
            try:
                photograph = source.open()
            except DdisegError as error:
                yield Predicted(source.key, None, error)
                continue
            before = self.unchanged.setdefault(source.key.id, photograph.mean())
            yield Predicted(source.key, self._mask(photograph, before))

    def _mask(self, photograph: np.ndarray, before: float) -> Prediction:
        moved = 5 if abs(photograph.mean() - before) > 8 else 0
        mask = np.full(photograph.shape[:2], 4, np.uint8)
        mask[10 + moved : 20 + moved, 10:20] = 1
        return Prediction(mask, 0.0, np.zeros(0, np.float32))


@pytest.fixture
def learned(spots: Workspace, learn: Learn) -> Workspace:
    learn(spots)
    return spots


@pytest.fixture
def shifting(learned: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    probes = Shifting()
    monkeypatch.setattr(module, "load_version_on", lambda *_: (probes, None))
    monkeypatch.setattr(module, "predictions", probes.predictions)
    return learned


@pytest.mark.training
def test_sensitivity__figures_of_masks_that_move_by_half(shifting: Workspace) -> None:
    """Half of the lesion in both masks: IoU 50 / 150, Dice 100 / 200; the control moves nothing."""
    result = sensitivity(shifting, "tester", exposures=(-0.5,), temperatures=(-500,))
    moved, still = result["by_change"]["-0.5 EV"], result["by_change"]["-500 K"]
    assert moved["all"]["iou_mean"] == pytest.approx(1 / 3)
    assert (moved["all"]["iou_mean_ci95"], moved["all"]["n"]) == (None, 5), "too few patients"
    assert moved["all"]["dice_mean"] == pytest.approx(1 / 2)
    assert still["all"]["iou_mean"] == 1
    assert result["by_change"]["one grey level"]["all"]["iou_mean"] == 1
    assert result["together"]["all"]["iou_mean"] == pytest.approx(2 / 3)
    assert result["beyond_noise"]["iou_mean"] == pytest.approx(-1 / 3)
    assert len(result["sentences"]) == 1, "nothing can be said of the noise of five patients"


@pytest.mark.training
def test_sensitivity__real_probes_by_tone_logged_for_the_report(learned: Workspace) -> None:
    result = sensitivity(learned, "tester")
    assert set(result["by_change"]) == {"-0.3 EV", "+0.3 EV", "-500 K", "+500 K", "one grey level"}
    assert (result["n_images"], result["learned_from"]) == (5, 4)
    for by_tone in result["by_change"].values():
        assert {tone: s["n"] for tone, s in by_tone.items()} == {
            "all": 5, "I-II": 1, "III-IV": 2, "V-VI": 2
        }  # fmt: skip
        assert 0 < by_tone["all"]["iou_mean"] <= 1
        assert by_tone["I-II"]["iou_mean_ci95"] is None, "one patient has no interval"
    last = learned.catalogue.robustness.last()
    assert last is not None
    assert last[1].to_json() == result
    assert sensitivity(learned, "tester") == result, "the same seed, the same figures"


@pytest.mark.training
def test_sensitivity__too_few_images_of_a_tone_is_said(learned: Workspace) -> None:
    result = sensitivity(learned, "tester")
    assert result["difference"] is None
    assert result["sentences"][0].startswith("Too few patients to say whether the masks of one")
    assert (
        "(n = 2 images of 2 patients, too few for an interval) on tone V-VI"
        in result["sentences"][0]
    )


@pytest.mark.training
def test_sensitivity__sample_by_tone_and_seed(shifting: Workspace) -> None:
    one = sensitivity(shifting, "tester", per_tone=1)
    assert one["n_images"] == 3
    drawn = {
        tuple(i.id for i in module._sample(shifting.catalogue.images.select(), 1, seed))
        for seed in range(10)
    }
    assert len(drawn) > 1
    everything = module._sample(shifting.catalogue.images.select(), 1, 0)
    backwards = module._sample(list(shifting.catalogue.images.select())[::-1], 1, 0)
    assert [i.id for i in everything] == [i.id for i in backwards]


@pytest.mark.training
def test_sensitivity__image_without_lesion_says_nothing(
    shifting: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Shifting,
        "_mask",
        lambda self, photograph, before: Prediction(
            np.full((40, 40), 4, np.uint8), 0.0, np.zeros(0, np.float32)
        ),
    )
    result = sensitivity(shifting, "tester")
    assert result["without_lesion"] == 5
    assert result["together"]["all"] == {
        "iou_mean": None, "iou_mean_ci95": None, "n": 0, "patients": 0
    }  # fmt: skip
    assert len(result["sentences"]) == 1


@pytest.mark.training
def test_sensitivity__chosen_by_state_and_unreadable_ones_are_refused(shifting: Workspace) -> None:
    shifting.catalogue.images.skip(5, "scalp", None, "tester")
    assert sensitivity(shifting, "tester")["n_images"] == 4
    assert sensitivity(shifting, "tester", states=[State.SKIPPED])["n_images"] == 1
    broken = shifting.catalogue.images.find("6.png")
    Path(shifting.store.path(Kind.IMAGE, broken.content_hash)).unlink()
    result = sensitivity(shifting, "tester")
    assert result["n_images"] == 3
    assert result["refused"][0].startswith("6.png: ")


@pytest.mark.training
def test_sensitivity__nothing_to_measure(learned: Workspace, refusal: Refusal) -> None:
    with refusal(InputError):
        sensitivity(learned, "tester", states=[State.ACCEPTED])
    with refusal(InputError):
        sensitivity(learned, "tester", exposures=(), temperatures=())


@pytest.mark.parametrize(
    ("dark", "says"),
    [
        (0.7, "masks of tone V-VI are less steady than those of I-II"),
        (0.9, "show no difference between tones"),
        (0.99, "masks of tone I-II are less steady than those of V-VI"),
    ],
)
def test_sentence__names_the_tone_whose_masks_move_more(dark: float, says: str) -> None:
    measured = module._Measurements(["x"], "control", Groups([]))
    measured.images = [  # type: ignore[assignment]
        SimpleNamespace(
            tone=tone, content_hash=f"{tone} {n}", id=n + (100 if tone == "V-VI" else 0)
        )
        for tone in ("I-II", "V-VI")
        for n in range(20)
    ]
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.9, 0.02, 20), rng.normal(dark, 0.02, 20)]).clip(0, 1)
    pixels = np.array([[[0, 0], [1000 - round(1000 * v), round(1000 * v)]] for v in values])
    measured._lesions = [np.stack([p, p]) for p in pixels]
    figures = measured.estimates(load_protocol())
    assert says in figures["sentences"][0]
    assert "n = 20" in figures["sentences"][0]
    assert "it is the model's own noise" in figures["sentences"][1]
