"""Order, bounds, errors and the ends of the pipeline; predictions as one by one."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fedd import batches
from fedd.backbone import DiffusionUNet
from fedd.errors import DatasetError, WeightsError
from fedd.features import extract, prepare
from fedd.malignancy.classifier import ClassifierSettings
from fedd.malignancy.colours import colour_numbers
from fedd.malignancy.linear import LinearSettings
from fedd.malignancy.pooling import pooled
from fedd.pipeline import Source, embeddings, predictions, summaries
from fedd.probes import prediction
from fedd.probes.decision import combine
from fedd.probes.refiner import REACH, window_around
from fedd.probes.training import Example, train_probes
from fedd.segment import Probes
from tests.fedd.conftest import CLASSES, QUICK, TINY, like, spot

REFINING = replace(QUICK, mirrored=True, refined_class="lesion")


class Imagined:
    """Activations made of the image itself: as quick as can be. `side_by_side` as of a network."""

    def __init__(self, probes: Probes, side_by_side: int = 1) -> None:
        self.name, self.hash = probes.backbone_name, probes.backbone_hash
        self.image_size, self.blocks = 16, (3, 5)
        self.device = torch.device("cpu")
        self.side_by_side = side_by_side
        self.given: list[int] = []
        self.threads: set[str] = set()

    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int], noise: int = 0
    ) -> dict[int, Tensor]:
        self.given.append(len(images))
        self.threads.add(threading.current_thread().name)
        return {block: F.avg_pool2d(images, 4).repeat(1, 11, 1, 1)[:, :32] for block in blocks}


@pytest.fixture(scope="module")
def probes(tiny: DiffusionUNet) -> Probes:
    return train_probes([Example(*spot(s)) for s in range(6)], tiny, QUICK, CLASSES)


@pytest.fixture(params=[1, 3], ids=["one", "lanes"])
def backbone(probes: Probes, request: pytest.FixtureRequest) -> Iterator[Imagined]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield Imagined(probes, request.param)
    torch.set_num_threads(before)


def photograph(value: int, size: tuple[int, int] = (20, 30)) -> NDArray[np.uint8]:
    return np.full((*size, 3), value, np.uint8)


def source(number: int) -> Source[int]:
    return Source(number, lambda: photograph(number % 256))


def refused(number: int, error: Exception) -> Source[int]:
    def fails() -> NDArray[np.uint8]:
        raise error

    return Source(number, fails)


def our_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(("prefetch", "lanes"))]


def one_by_one(
    probes: Probes, backbone: DiffusionUNet, given: NDArray[np.uint8]
) -> tuple[Any, ...]:
    """The plain way: one view at a time, F.interpolate, argmax."""

    def thinks(of: Probes, pixels: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        image = prepare(pixels, TINY.image_size)[None]
        grid = of.settings.grid or TINY.image_size
        views = [image, image.flip(-1)] if of.settings.mirrored else [image]
        members = [
            of.probabilities(extract(backbone, view, of.settings.features), grid) for view in views
        ]
        if len(members) == 2:
            members[1] = members[1].flip(-1)
        mean = torch.stack(members).mean(0)
        return combine(mean, of.settings.ensemble), mean

    def mask(probabilities: Tensor, shape: Sequence[int]) -> NDArray[np.uint8]:
        full = F.interpolate(probabilities[None], tuple(shape), mode="bilinear")[0]
        return full.argmax(0).byte().numpy()

    probabilities, members = thinks(probes, given)
    found = mask(probabilities, given.shape[:2])
    size = (TINY.image_size,) * 2
    window = window_around(mask(probabilities, size) == 1, REACH)
    if probes.refiner and probes.settings.refined_class and window:
        inside = found[window.slices(*found.shape)]
        known = np.isin(inside, probes.refiner.trained)
        refined = mask(thinks(probes.refiner, window.of(given))[0], inside.shape)
        inside[known] = refined[known]
    entropy = torch.special.entr
    mean = members.mean(0)
    information = entropy(mean).sum(0) - entropy(members).sum(1).mean(0)
    return found, float(information.mean())


@pytest.mark.training
@pytest.mark.parametrize("batch", [None, 4])
@pytest.mark.parametrize(
    "settings", [QUICK, REFINING, replace(QUICK, grid=12)], ids=["whole", "refined", "grid"]
)
def test_predictions__as_one_by_one(
    tiny: DiffusionUNet, probes: Probes, settings: Any, batch: int | None
) -> None:
    refining = like(probes, settings, refiner=like(probes, replace(settings, refined_class=None)))
    sizes = [(40, 40), (30, 50), (64, 20), (5, 5), (90, 61), (40, 40)]
    photographs = [spot(20 + i, size)[0] for i, size in enumerate(sizes)]
    photographs.append(np.full((40, 40, 3), 200, np.uint8))
    sources = [Source(i, lambda p=p: p) for i, p in enumerate(photographs)]  # type: ignore[misc]
    found = list(predictions(refining, tiny, sources, batch=batch))
    for given, each in zip(photographs, found, strict=True):
        mask, uncertainty = one_by_one(refining, tiny, given)
        assert each.prediction is not None
        assert (each.prediction.mask != mask).mean() < 0.002
        assert each.prediction.uncertainty == pytest.approx(uncertainty, abs=1e-5)


def test_predictions__the_same_to_the_bit_whatever_the_others(
    tiny: DiffusionUNet, probes: Probes
) -> None:
    refining = like(probes, REFINING, refiner=probes)
    photographs = [spot(20 + i, (40 + i, 50))[0] for i in range(4)]
    together = refining.predict(tiny, photographs)
    for each, given in zip(together, photographs, strict=True):
        (alone,) = refining.predict(tiny, [given])
        assert np.array_equal(alone.mask, each.mask)
        assert alone.uncertainty == each.uncertainty
        assert np.array_equal(alone.embedding, each.embedding)


def test_predictions__in_the_order_of_the_sources(probes: Probes, backbone: Imagined) -> None:
    found = predictions(probes, backbone, map(source, range(40)), workers=4)
    assert [each.key for each in found] == list(range(40))
    assert not our_threads()


def test_predictions__an_error_in_its_turn_and_the_others_go_on(
    probes: Probes, backbone: Imagined
) -> None:
    wrong = {1: DatasetError("damaged"), 2: MemoryError(), 5: OSError("gone"), 7: MemoryError()}
    sources = [refused(n, wrong[n]) if n in wrong else source(n) for n in range(8)]
    found = list(predictions(probes, backbone, sources))
    assert [each.key for each in found] == list(range(8))
    assert {each.key: each.error for each in found if each.error} == wrong
    assert all((each.prediction is None) == (each.key in wrong) for each in found)


def test_predictions__nothing_but_errors(probes: Probes, backbone: Imagined) -> None:
    found = list(predictions(probes, backbone, [refused(n, OSError()) for n in range(5)]))
    assert [each.key for each in found] == list(range(5))
    assert backbone.given == []


def test_predictions__what_is_not_expected_ends_all_in_its_turn(
    probes: Probes, backbone: Imagined
) -> None:
    sources = [source(0), source(1), refused(2, ZeroDivisionError("a bug")), source(3)]
    found = predictions(probes, backbone, sources)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        list(found)
    assert not our_threads()


def test_predictions__a_photograph_of_another_kind_is_refused_alone(
    probes: Probes, backbone: Imagined
) -> None:
    """Resizing fails, on the thread that opened it."""
    odd = Source(1, lambda: np.zeros((5, 5, 7), np.uint8))
    found = list(predictions(probes, backbone, [source(0), odd], expected=(TypeError,)))
    assert [each.error is None for each in found] == [True, False]


class Counted:
    """Endless sources; counts those that were opened."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size, self.opened = size, 0
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Source[int]]:
        for number in itertools.count():
            yield Source(number, self._open)

    def _open(self) -> NDArray[np.uint8]:
        with self._lock:
            self.opened += 1
        return photograph(9, self.size)


def test_predictions__few_photographs_are_open(probes: Probes, backbone: Imagined) -> None:
    sources = Counted((20, 30))
    with closing(predictions(probes, backbone, sources, workers=2)) as found:
        for _ in range(100):
            next(found)
        # Begun and waiting in front of the network, and on its lanes.
        assert sources.opened <= 100 + 16 + 2 * backbone.side_by_side + 2
    assert not our_threads()


def test_predictions__large_photographs_are_bounded_in_pixels(
    probes: Probes, backbone: Imagined, monkeypatch: pytest.MonkeyPatch
) -> None:
    refining = like(probes, REFINING, refiner=probes)
    monkeypatch.setattr(batches, "PIXELS", 3 * 100 * 100)
    monkeypatch.setattr(batches.prefetch, "__defaults__", (3 * 100 * 100,))
    sources = Counted((100, 100))
    with closing(predictions(refining, backbone, sources, workers=2)) as found:
        for _ in range(50):
            next(found)
        assert sources.opened <= 50 + 3 + 4


def test_predictions__large_photographs_make_smaller_batches(
    probes: Probes, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = Imagined(probes)
    monkeypatch.setattr(batches, "PIXELS", 3 * 100 * 100)
    sources = [Source(n, lambda: photograph(1, (100, 100))) for n in range(8)]
    assert len(list(predictions(probes, backbone, sources, batch=64))) == 8
    assert backbone.given == [3, 3, 2]


def test_predictions__opens_the_next_while_it_computes(probes: Probes, backbone: Imagined) -> None:
    """The network waits until a later photograph was opened: without overlap it waits in vain."""
    later = threading.Event()
    inner = backbone.activations

    def waits(*given: Any) -> dict[int, Tensor]:
        assert later.wait(30)
        return inner(*given)

    def announced() -> NDArray[np.uint8]:
        later.set()
        return photograph(1)

    backbone.activations = waits  # type: ignore[method-assign]
    sources = [source(0), source(1), Source(2, announced)]
    assert len(list(predictions(probes, backbone, sources, workers=1))) == 3


def test_predictions__computes_while_the_caller_works(probes: Probes) -> None:
    """On lanes: the second is computed although the caller has only asked for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    backbone, second = Imagined(probes, 2), threading.Event()
    inner = backbone.activations

    def noted(images: Tensor, *given: Any) -> dict[int, Tensor]:
        if float(images[0, 0, 0, 0]) == 1.0:
            second.set()
        return inner(images, *given)

    backbone.activations = noted  # type: ignore[method-assign]
    sources = [Source(n, lambda n=n: photograph(255 * n)) for n in range(2)]  # type: ignore[misc]
    try:
        with closing(predictions(probes, backbone, sources)) as found:
            next(found)
            assert second.wait(30)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_predictions__an_error_in_the_caller_ends_the_threads(
    probes: Probes, backbone: Imagined, error: type[BaseException]
) -> None:
    def consume() -> None:
        for _ in predictions(probes, backbone, Counted((20, 30))):
            raise error

    with pytest.raises(error):
        consume()
    assert not our_threads()


def test_predictions__an_error_of_the_network_ends_the_threads(
    probes: Probes, backbone: Imagined
) -> None:
    def broken(*_: object) -> dict[int, Tensor]:
        raise RuntimeError("no kernel")

    backbone.activations = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="no kernel"):
        list(predictions(probes, backbone, Counted((20, 30))))
    assert not our_threads()


def test_predictions__another_backbone_is_refused_at_once(probes: Probes) -> None:
    with pytest.raises(WeightsError):
        predictions(probes, DiffusionUNet.random(TINY, seed=2), [])


def _full_once(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[int]:
    """Let one of our functions run out of a GPU's memory at its first call."""
    whole: Callable[..., Any] = getattr(owner, name)
    calls: list[int] = []

    def full(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"
            )
        return whole(*given, **named)

    monkeypatch.setattr(owner, name, full)
    return calls


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (None, "activations"),
        (Probes, "probabilities"),
        (prediction, "disagreement"),
        (prediction, "most_probable"),
        (prediction, "_shown"),
        (prediction, "_refined"),
        (prediction, "refine_inside"),
        (prediction, "embedded"),
        (torch, "cat"),
        (prediction, "_Arriving"),
    ],
    ids=lambda of: of if isinstance(of, str) else "",
)
def test_predictions__halved_where_memory_runs_out_in_any_stage(
    tiny: DiffusionUNet,
    probes: Probes,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
) -> None:
    refining = like(probes, REFINING, refiner=probes)
    photographs = [spot(20 + i)[0] for i in range(4)]
    sources = [Source(i, lambda p=p: p) for i, p in enumerate(photographs)]  # type: ignore[misc]
    expected = refining.predict(tiny, photographs)
    calls = _full_once(monkeypatch, owner or tiny, name)
    found = list(predictions(refining, tiny, sources, batch=4))
    assert len(calls) > 1
    for each, one in zip(found, expected, strict=True):
        assert each.prediction is not None
        assert (each.prediction.mask != one.mask).mean() < 0.001


def test_embeddings__those_of_the_predictions(tiny: DiffusionUNet, probes: Probes) -> None:
    sources = [*(Source(s, lambda s=s: spot(s)[0]) for s in range(3)), refused(3, OSError())]  # type: ignore[misc]
    found = list(embeddings(probes, tiny, sources, batch=2))
    assert [each.key for each in found] == [0, 1, 2, 3]
    assert isinstance(found[3].error, OSError)
    for each in found[:3]:
        (one,) = probes.predict(tiny, [spot(each.key)[0]])
        assert each.features is not None
        np.testing.assert_allclose(each.features, one.embedding, rtol=2e-3, atol=2e-3)


def test_summaries__pooled_activations_of_the_papers_block(tiny: DiffusionUNet) -> None:
    sources = [Source(s, lambda s=s: spot(s)[0]) for s in range(3)]  # type: ignore[misc]
    found = list(summaries(tiny, sources, ClassifierSettings(5, 50), batch=2))
    for each in found:
        image = prepare(spot(each.key)[0], TINY.image_size)[None]
        expected = pooled(tiny.activations(image, 50, (5,))[5])[0].numpy()
        assert each.features is not None
        np.testing.assert_allclose(each.features, expected, rtol=1e-4, atol=1e-5)


def test_summaries__colours_and_statistics_of_every_block(tiny: DiffusionUNet) -> None:
    sources = [Source(s, lambda s=s: spot(s)[0]) for s in range(3)]  # type: ignore[misc]
    found = list(summaries(tiny, sources, LinearSettings((3, 5), 50), batch=2))
    for each in found:
        image = prepare(spot(each.key)[0], TINY.image_size)[None]
        expected = [colour_numbers(image)[0].numpy()]
        for of in tiny.activations(image, 50, (3, 5)).values():
            channels = of[0].flatten(1).numpy()
            expected += [channels.mean(1), channels.max(1), channels.std(1)]
        assert each.features is not None
        np.testing.assert_allclose(each.features, np.concatenate(expected), rtol=1e-4, atol=1e-4)
