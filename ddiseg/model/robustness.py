"""Robustness: how much the model's masks change when the light changes a little, by tone.

It compares predictions with each other, not with true masks (`evaluate` does), so any photograph
counts. The command is `ddiseg sensitivity`.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import Protocol, load_protocol, metrics
from annotation_protocol.estimates import (
    METHOD,
    ClassEstimates,
    Estimate,
    EstimateDifference,
    Sample,
    difference,
    estimate_classes,
    sample_size,
)
from annotation_protocol.intervals import Scale
from ddiseg.catalogue import State
from ddiseg.catalogue.tables import Image
from ddiseg.errors import InputError
from ddiseg.images import Photograph
from ddiseg.model.backbones import load_version_on, say_precision
from ddiseg.model.lighting import LightChange, colour_temperature, exposure, one_grey_level
from ddiseg.model.photographs import open_photograph, reason
from ddiseg.outcomes import FileOutcome, Outcome, Progress, reasons_in_words, silent, track
from ddiseg.sampling.groups import Groups
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import Placed
from fedd.pipeline import Source, predictions
from fedd.segment import Probes

#: Default changes: a third of a stop, and a common error of automatic white balance.
EXPOSURES, TEMPERATURES = (-0.3, 0.3), (-500.0, 500.0)

#: Images of each tone.
PER_TONE = 30

#: The class whose mask is compared, and the name of all images together.
LESION, ALL = "lesion", "all"


def sensitivity(
    workspace: Workspace,
    actor: str,
    *,
    exposures: Sequence[float] = EXPOSURES,
    temperatures: Sequence[float] = TEMPERATURES,
    per_tone: int = PER_TONE,
    subset: str | None = None,
    states: Collection[State] = (),
    seed: int = 0,
    device: str = "cpu",
    precision: str = "float32",
    refused: list[FileOutcome] | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Predict a sample of photographs as they are and in changed light, and compare the lesion masks.

    The sample has up to `per_tone` images of each tone. It leaves out training images, on which a
    model is steadier than elsewhere. An image without a lesion in both masks says nothing about a
    change; one whose lesion is lost or invented counts 0. The last change, of one grey level, is the
    control: it shows how much of the others is the model's own noise.

    Args:
        states: of the images to sample from; all but skipped ones unless given.
        device: where the backbone runs; "auto" is all GPUs, or the CPU.
        precision: of the backbone, as `Backbones.get` takes it.
        refused: gets the photographs that can't be read, with reasons.

    Returns:
        The estimates as JSON, which are also stored as an event for the report.

    Raises:
        InputError: there is nothing to measure.
    """
    changes = [
        *(exposure(stops) for stops in exposures),
        *(colour_temperature(kelvin) for kelvin in temperatures),
    ]
    if not changes:
        raise InputError("no change of light to measure: give exposures or colour temperatures")
    version = workspace.catalogue.models.current()
    wanted = list(states) or [state for state in State if state is not State.SKIPPED]
    candidates = workspace.catalogue.images.select(subset=subset, states=wanted)
    learned = workspace.catalogue.provenance.images_learned([version.id])
    groups = Groups.read(workspace.catalogue)
    related = groups.relatives(learned)
    chosen = _sample([i for i in candidates if i.id not in related], per_tone, seed)
    if not chosen:
        raise InputError(
            f"no image to measure: {version.name} learned from {sum(i.id in related for i in candidates)} "
            f"of {len(candidates)} images, or from others of their groups (patient, lesion, "
            "near-duplicates); import more photographs, or choose others with --subset and --state"
        )
    protocol = load_protocol()
    refused = [] if refused is None else refused
    measured = _Measurements([change.name for change in changes], one_grey_level().name, groups)
    probes, net = load_version_on(workspace, version, device, precision)
    say_precision(version.name, probes.record.precision, net)
    for image, confusions in _compared(
        workspace,
        (probes, net),
        chosen,
        [*changes, one_grey_level()],
        refused,
        progress,
    ):
        measured.add(image, confusions, protocol.class_names.index(LESION))
    if not measured.images:
        raise InputError(
            f"none of the {len(chosen)} images can be read: {reasons_in_words(refused, 'images')}; "
            "run 'ddiseg verify'"
        )
    result: dict[str, Any] = {
        "model": version.name,
        "subset": subset,
        "states": [state.value for state in states],
        "per_tone": per_tone,
        "seed": seed,
        "n_images": len(measured.images),
        "patients": groups.count(image.id for image in measured.images),
        "learned_from": sum(i.id in learned for i in candidates),
        "same_group": sum(i.id in related - learned for i in candidates),
        "refused": [f"{each.name}: {each.note}" for each in refused],
        "intervals": METHOD,
        **measured.estimates(protocol),
    }
    workspace.catalogue.robustness.add(result, actor)
    return result


def _sample(images: Sequence[Image], per_tone: int, seed: int) -> list[Image]:
    """Return up to `per_tone` images of each tone, whatever the order of the catalogue's rows."""
    by_tone: dict[str, list[Image]] = {}
    for image in sorted(images, key=lambda i: i.content_hash):
        by_tone.setdefault(image.tone, []).append(image)
    return [
        image
        for tone, of_tone in sorted(by_tone.items())
        for image in random.Random(f"{seed} {tone}").sample(of_tone, min(per_tone, len(of_tone)))
    ]


def _compared(
    workspace: Workspace,
    model: tuple[Probes, Placed],
    images: Sequence[Image],
    changes: Sequence[LightChange],
    refused: list[FileOutcome],
    progress: Progress,
) -> Iterator[tuple[Image, NDArray[np.int64]]]:
    """Yield each image with one confusion matrix a change, (changes, C, C): rows are the unchanged light."""
    probes, net = model
    lights = [None, *changes]
    todo = [
        Source(image, partial(_in_light, workspace, image, light))
        for image in images
        for light in lights
    ]
    with closing(predictions(probes, net, todo)) as found:
        for image in track(images, progress):
            predicted = list(islice(found, len(lights)))
            masks = [each.prediction.mask for each in predicted if each.prediction is not None]
            if len(masks) < len(lights):
                error = next(each.error for each in predicted if each.error is not None)
                refused.append(FileOutcome(image.name, Outcome.REFUSED, reason(image, error)))
                continue
            before, *after = masks
            matrices = [metrics.confusion(before, mask, len(probes.classes)) for mask in after]
            yield image, np.stack(matrices)


def _in_light(workspace: Workspace, image: Image, light: LightChange | None) -> Photograph:
    photograph = open_photograph(workspace, image)
    return photograph if light is None else light.apply(photograph)


class _Measurements:
    """The measurements of each image, and the estimates from all of them."""

    def __init__(self, changes: Sequence[str], control: str, groups: Groups) -> None:
        self.changes, self.control = [*changes, control], control
        self.images: list[Image] = []
        self._groups = groups
        self._lesions: list[NDArray[np.int64]] = []

    def add(self, image: Image, confusions: NDArray[np.int64], lesion: int) -> None:
        """Keep the confusion of lesion and rest, (changes, 2, 2)."""
        both = confusions[:, lesion, lesion]
        before, after = confusions[:, lesion].sum(-1), confusions[..., lesion].sum(-1)
        neither = confusions.sum((-1, -2)) - before - after + both
        pairs = np.stack([neither, after - both, before - both, both], -1)
        self.images.append(image)
        self._lesions.append(pairs.reshape(-1, 2, 2))

    def estimates(self, protocol: Protocol) -> dict[str, Any]:
        """Return the estimates by change and tone, over all changes, and the difference between tones."""
        confusions = np.stack(self._lesions, 1)  # (changes, images, 2, 2)
        groups = {ALL: list(range(len(self.images)))}
        for name in (tone.name for tone in protocol.tones):
            rows = [row for row, image in enumerate(self.images) if image.tone == name]
            groups |= {name: rows} if rows else {}
        by_change = {
            name: {
                group: self._score(of_change[rows], rows).to_json()
                for group, rows in groups.items()
            }
            for name, of_change in zip(self.changes, confusions, strict=True)
        }
        steadiness = _steadiness(confusions[:-1])
        together = {
            group: self._with_lesion(steadiness, rows).estimate() for group, rows in groups.items()
        }
        known = [tone.name for tone in protocol.tones if tone.name != "unknown"]
        light, dark = known[0], known[-1]
        first, second = (
            self._with_lesion(steadiness, groups.get(tone, [])) for tone in (light, dark)
        )
        tones = difference(second, first)
        beyond = steadiness - _steadiness(confusions[-1:])
        beyond_noise = self._with_lesion(beyond, groups[ALL], Scale.SIGNED).estimate()
        return {
            "control": self.control,
            "without_lesion": int(np.isnan(steadiness).sum()),
            "by_change": by_change,
            "together": {group: each.to_json("iou_mean") for group, each in together.items()},
            "difference": None
            if tones.interval is None
            else {"iou_mean": tones.value, "iou_mean_ci95": list(tones.interval)},
            "beyond_noise": beyond_noise.to_json("iou_mean"),
            "sentences": [
                _about_tones(together, tones, light, dark),
                *_about_noise(beyond_noise),
            ],
        }

    def _score(self, confusions: NDArray[np.int64], rows: Sequence[int]) -> ClassEstimates:
        keys = self._keys(rows)
        valid = np.ones((len(rows), 2), np.bool_)
        return estimate_classes(confusions, keys, valid, ("rest", LESION))[LESION]

    def _with_lesion(
        self,
        steadiness: NDArray[np.float64],
        rows: Sequence[int],
        scale: Scale = Scale.FRACTION,
    ) -> Sample:
        kept = [row for row in rows if not np.isnan(steadiness[row])]
        return Sample(steadiness[kept], self._keys(kept), scale=scale)

    def _keys(self, rows: Sequence[int]) -> list[str]:
        keys = self._groups.keys(self.images)
        return [keys[row] for row in rows]


def _steadiness(confusions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the lesion's IoU of each image, mean over the changes, (images,); NaN without a lesion."""
    iou = metrics.iou_per_class(confusions)[..., 1]
    counted = ~np.isnan(iou)
    total = np.where(counted, iou, 0).sum(0)
    steadiness = np.full(total.shape, np.nan)
    np.divide(total, counted.sum(0), out=steadiness, where=counted.any(0))
    return steadiness


def _about_tones(
    together: dict[str, Estimate], tones: EstimateDifference, light: str, dark: str
) -> str:
    """Return a sentence on the difference between the lightest and the darkest tone."""
    none = Estimate(groups=0)
    of_dark, of_light = together.get(dark, none), together.get(light, none)
    estimates = f"{of_dark.sized('.3f')} on tone {dark} against {of_light.sized('.3f')} on {light}"
    if tones.interval is None:
        return (
            "Too few patients to say whether the masks of one tone are less steady than those of the "
            f"other when the light changes a little: mean IoU {estimates}."
        )
    estimates += f", a difference of {tones.text('+.3f')}"
    if not tones.sign:
        return (
            "These images show no difference between tones in how steady the masks are when the "
            f"light changes a little: mean IoU {estimates}."
        )
    less, more = (dark, light) if tones.sign < 0 else (light, dark)
    return (
        f"The masks of tone {less} are less steady than those of {more} when the light changes a "
        f"little: mean IoU {estimates}."
    )


def _about_noise(beyond: Estimate) -> list[str]:
    """Return a sentence on whether light moves the masks more than the control; none for too few patients."""
    if beyond.high is None:
        return []
    estimate = (
        f"difference in mean IoU {beyond.text('+.3f')}, {sample_size(beyond.n, beyond.groups)}"
    )
    if beyond.high < 0:
        return [
            "A change of light moves the masks further than a change of one grey level, which no eye "
            f"sees: it is not only the model's own noise ({estimate})."
        ]
    return [
        "These images do not show that a change of light moves the masks further than a change of one "
        f"grey level, which no eye sees: as far as they tell, it is the model's own noise ({estimate})."
    ]
