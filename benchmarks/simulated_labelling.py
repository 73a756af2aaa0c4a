"""Labelling tried out on photographs whose masks are known: they play the annotator.

10 images drawn at random, then batches of 20 up to 90, drawn as `ddiseg batch draw` draws them (equal by
tone, of a patient one image a batch and none who is labelled already as long as there are others, a fifth
of each batch at random, the rest by the strategy). After each batch probes learn anew from all masks so
far and predict the test photographs, which nothing else ever sees.

To be affordable the probes are lighter than the product's: no refinement pass, no mirror image, one
augmented view, 512 pixels of each image, probabilities on a grid of 32. That lowers every curve
alike. Activations and sampled pixels are computed once for all seeds.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from annotation_protocol.metrics import confusion, iou_per_class
from benchmarks.activation_bank import joined
from benchmarks.photographs import CLASSES, LESION
from ddiseg.sampling.quotas import share_out
from ddiseg.sampling.strategies import Candidates, Strategy, pick
from fedd.backbone import Backbone
from fedd.bilinear import most_probable
from fedd.cache import FeatureCache
from fedd.features import FeatureSpec, extract, prepare
from fedd.probes.decision import combine
from fedd.probes.masks import agreement, disagreement
from fedd.probes.pixels import Pixels, PreparedExample, Sampling, sample
from fedd.probes.quality import region_numbers
from fedd.probes.settings import COMPOSITE
from fedd.probes.training import Example, train_probes
from fedd.segment import Probes, ProbeSettings

START, BATCH, END, RANDOM_SHARE = 10, 20, 90, 0.2

SETTINGS = replace(
    COMPOSITE, refined_class=None, mirrored=False, views=1, pixels_per_image=512, grid=32
)

#: Strategies that ask what the model tells of the images that are not labelled yet.
BY_MODEL = (Strategy.QUALITY, Strategy.UNCERTAINTY, Strategy.MIXED)


@dataclass(frozen=True)
class Learned:
    """What probes that learned from some masks make of other photographs."""

    iou: NDArray[np.float64]  #: (T,), of the lesion on the test photographs
    pool_iou: NDArray[np.float64]  #: (P,), on the pool; NaN where labelled or not asked for
    uncertainty: NDArray[np.float64]  #: (P,), likewise
    quality: NDArray[np.float64]  #: (P,), expected IoU of the lesion, likewise


@dataclass
class Activations:
    """Activations and sampled pixels of photographs in memory, computed once."""

    backbone: Backbone
    spec: FeatureSpec
    _whole: dict[int, list[Tensor]] = field(default_factory=dict)
    _sampled: dict[tuple[str, Sampling], Pixels] = field(default_factory=dict)

    def of(self, example: Example) -> list[Tensor]:
        """Return the activations of a photograph, (1, C, h, w) for each block."""
        if id(example) not in self._whole:
            image = prepare(example.photograph, self.backbone.image_size)[None]
            self._whole[id(example)] = [a.half() for a in extract(self.backbone, image, self.spec)]
        return [a.float() for a in self._whole[id(example)]]

    def embedding(self, example: Example) -> NDArray[np.float32]:
        """Return the mean activation of each channel, (D,)."""
        return np.concatenate([a.mean((0, 2, 3)).numpy() for a in self.of(example)])

    def sample(
        self,
        examples: Sequence[PreparedExample],
        backbone: Backbone,
        spec: FeatureSpec,
        sampling: Sampling,
        cache: FeatureCache | None,
        progress: Callable[[int], None],
    ) -> Pixels:
        """Sample pixels of examples, of each the same ones whatever the seed: a `Sampler`."""
        same, found = replace(sampling, seed=0), []
        for number, example in enumerate(examples):
            key = example.digest, same
            if key not in self._sampled:
                self._sampled[key] = sample([example], backbone, spec, same)
            pixels = self._sampled[key]
            found.append(replace(pixels, image=torch.full_like(pixels.image, number)))
            progress(number + 1)
        return joined(found)


#: By strategy: (seeds, points, T) lesion IoU of each test photograph at each number of masks.
Curves = dict[Strategy, NDArray[np.float64]]


@dataclass(frozen=True)
class Trial:
    """A pool to label from, photographs to test on, and the network that sees both."""

    pool: Sequence[Example]
    test: Sequence[Example]
    activations: Activations
    settings: ProbeSettings
    state: Path
    points: tuple[int, ...]  #: numbers of masks
    embeddings: NDArray[np.float32]  #: (P, D), of the pool

    @classmethod
    def of(
        cls,
        pool: Sequence[Example],
        test: Sequence[Example],
        backbone: Backbone,
        state: Path,
        *,
        settings: ProbeSettings = SETTINGS,
        end: int = END,
    ) -> Trial:
        activations = Activations(backbone, settings.features)
        embeddings = np.stack([activations.embedding(example) for example in pool])
        points = tuple(range(START, end + 1, BATCH))
        state.mkdir(parents=True, exist_ok=True)
        return cls(pool, test, activations, settings, state, points, embeddings)

    def run(self, strategy: Strategy, seed: int) -> Iterator[Learned]:
        """Label by one strategy; yields what was learned at each number of masks."""
        nothing = np.full(len(self.pool), np.nan)
        labelled = self._batch(Strategy.RANDOM, seed, START, [], nothing, nothing)
        learned = self._learn(labelled, seed, predict_pool=True)
        yield learned
        for before, now in pairwise(self.points):
            told = learned.uncertainty, learned.quality
            labelled += self._batch(strategy, seed, now - before, labelled, *told)
            asked_for = strategy in BY_MODEL and now < self.points[-1]
            learned = self._learn(labelled, seed, predict_pool=asked_for)
            yield learned

    def _batch(
        self,
        strategy: Strategy,
        seed: int,
        size: int,
        labelled: Sequence[int],
        uncertainty: NDArray[np.float64],
        quality: NDArray[np.float64],
    ) -> list[int]:
        """Return the positions in the pool of the images to label next, as `ddiseg batch draw` does."""
        ranked = np.random.default_rng(seed).permutation(len(self.pool))
        tones = np.array([example.tone for example in self.pool])
        waiting = {t: ranked[(tones[ranked] == t) & ~np.isin(ranked, labelled)] for t in set(tones)}
        waiting = dict(sorted(waiting.items()))
        quotas = share_out(size, {tone: len(images) for tone, images in waiting.items()}, seed)
        at_random = share_out(round(RANDOM_SHARE * size), quotas, seed)
        batch: list[int] = []
        for tone, images in waiting.items():
            full = len(batch) + quotas[tone]
            for way, aim in ((Strategy.RANDOM, len(batch) + at_random[tone]), (strategy, full)):
                # Patients who are labelled already come only for want of others.
                for barred in (labelled, ()):
                    known = [i for i in (*labelled, *batch) if tones[i] == tone]
                    candidates = Candidates(
                        *(uncertainty[images], quality[images]),
                        *(self.embeddings[images], self.embeddings[known]),
                    )
                    pick(way, candidates, aim - len(batch), self._take(images, batch, barred))
        return batch

    def _take(
        self, images: NDArray[np.intp], batch: list[int], barred: Sequence[int]
    ) -> Callable[[int], bool]:
        """Move an image to the batch, unless its patient is in it or barred."""
        patients = {self.pool[i].patient for i in (*batch, *barred)}

        def take(position: int) -> bool:
            image = int(images[position])
            if self.pool[image].patient in patients:
                return False
            patients.add(self.pool[image].patient)
            batch.append(image)
            return True

        return take

    def _learn(self, labelled: Sequence[int], seed: int, *, predict_pool: bool) -> Learned:
        """Learn from the masks of these images and predict the others; read from the state where stored."""
        settings = replace(self.settings, seed=seed)
        parts = len(self.pool), len(self.test), predict_pool
        name = json.dumps([sorted(map(int, labelled)), settings.to_dict(), parts])
        path = self.state / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.npz"
        if not path.is_file():
            examples = [self.pool[i] for i in sorted(labelled)]
            probes = train_probes(
                *(examples, self.activations.backbone, settings, CLASSES),
                sampler=self.activations.sample,
            )
            rest = np.setdiff1d(np.arange(len(self.pool)), labelled)[: None if predict_pool else 0]
            told = np.full((3, len(self.pool)), np.nan)
            for i in rest:
                told[:, i] = self._predicted(probes, self.pool[i])
            iou = [self._predicted(probes, example)[0] for example in self.test]
            temporary = path.with_name(f".{path.name}")
            np.savez(temporary, iou=iou, told=told)
            os.replace(temporary, path)
        with np.load(path) as stored:
            return Learned(stored["iou"], *stored["told"])

    @torch.inference_mode()
    def _predicted(self, probes: Probes, example: Example) -> tuple[float, float, float]:
        """Return the lesion IoU that is reached, the uncertainty, and the lesion IoU that is expected."""
        members = probes.probabilities(self.activations.of(example), self.settings.grid)
        together = combine(members, self.settings.ensemble)
        mask = most_probable(together, example.mask.shape).numpy()
        iou = iou_per_class(confusion(example.mask, mask, len(CLASSES)))[LESION]
        numbers = region_numbers(together, agreement(members)).double().numpy()
        assert probes.quality is not None
        expected = probes.quality.expected(numbers)[LESION]
        return float(iou), float(disagreement(members)), expected
