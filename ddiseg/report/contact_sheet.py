"""The contact sheet: photographs with the outlines of prediction and mask; and a picture of one image.

Arrays: photographs (H, W, 3) uint8 sRGB, masks (H, W) uint8 class ids of the protocol.
"""

from __future__ import annotations

import base64
import io
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from annotation_protocol import load_protocol, metrics
from ddiseg import masks
from ddiseg.catalogue.lifecycle import State
from ddiseg.catalogue.tables import Image, Mask
from ddiseg.errors import DdisegError
from ddiseg.masks import panels
from ddiseg.report.outlines import UNITS, outlines
from ddiseg.workspace.stored_files import read_mask
from ddiseg.workspace.workspace import Workspace

#: Longest edge of a picture in pixels.
SIDE = 256

#: Of the photographs, as JPEG.
QUALITY = 86

#: Images shown for each tone, and as the most doubtful.
SHOWN = 12

#: Of these, images without a lesion IoU, where there are enough with one.
SHOWN_OTHERS = 3

#: Accepted masks of a tone that are compared with their predictions; each comparison reads two files.
COMPARED = 200

ACCEPTED, TRUTH = "accepted mask", "true mask"


@dataclass(frozen=True)
class Reference:
    """The mask that a prediction is compared with."""

    kind: str  #: ACCEPTED or TRUTH
    content_hash: str


@dataclass(frozen=True)
class Pair:
    """An image with its prediction and its mask, where it has them."""

    image: Image
    prediction: Mask | None
    reference: Reference | None
    accepted: Mask | None = None
    trained_on: bool = False  #: all its predictions are by models that were trained on its mask
    compared: bool = False  #: its lesion IoU was computed
    lesion_iou: float | None = None  #: None also where neither has a lesion


class Pairs:
    """The prediction and mask with which each image of a workspace is shown.

    An image of the newest evaluation is shown with the prediction and truth compared there; any other
    accepted image with the newest prediction by a model that was not trained on its mask; any other
    image with its newest prediction.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        catalogue = workspace.catalogue
        self._accepted = catalogue.masks.accepted_images()
        self._skipped = set(catalogue.images.ids(state=State.SKIPPED))
        self._evaluated = catalogue.evaluations.last_compared()
        self._known: dict[int, Pair] = {}
        self.sampled = False  #: whether only some of the accepted masks were compared

    def of_tone(self, image_ids: Sequence[int], seed: str) -> list[Pair]:
        """Return those pairs of images that `choose` may choose, in an order at random.

        Of many accepted images, a random sample has a lesion IoU.
        """
        order = list(image_ids)
        random.Random(seed).shuffle(order)
        compared = {p.image.id: self._compared(p) for p in self._comparable(order)}
        evaluated = [i for i in order if i in self._evaluated and i not in self._skipped]
        scored = sorted(
            (i for i in evaluated if self._evaluated[i].lesion_iou is not None), key=self._iou
        )
        chosen = {p.image.id: p for p in self.of(scored[:SHOWN])} | compared
        left_out = self._skipped.union(scored)
        rest = [i for i in order if i not in left_out]
        chosen |= {p.image.id: p for p in self._others(rest, compared)}
        return [chosen[i] for i in order if i in chosen]

    def _iou(self, image_id: int) -> tuple[float, int]:
        return self._evaluated[image_id].lesion_iou or 0.0, image_id

    def _comparable(self, order: Sequence[int]) -> list[Pair]:
        """Return the first accepted images that are compared: none of the newest evaluation."""
        found: list[Pair] = []
        for part in _parts([i for i in order if i in self._accepted and i not in self._evaluated]):
            found += [pair for pair in self.of(part) if pair.prediction]
            if len(found) > COMPARED:
                self.sampled = True
                break
        return found[:COMPARED]

    def _others(self, order: Sequence[int], compared: Mapping[int, Pair]) -> list[Pair]:
        """Return the first images without a lesion IoU: with a mask or a prediction, and with neither."""
        found: list[Pair] = []
        bare: list[Pair] = []
        for part in _parts(order):
            for each in self.of(part):
                pair = compared.get(each.image.id, each)
                if pair.lesion_iou is None:
                    (found if pair.reference or pair.prediction else bare).append(pair)
            if len(found) >= SHOWN:
                break
        return found[:SHOWN] + bare[:SHOWN]

    def of(self, image_ids: Sequence[int]) -> list[Pair]:
        """Return the pairs of images, with a lesion IoU only from the newest evaluation."""
        catalogue = self._workspace.catalogue
        wanted = [i for i in image_ids if i not in self._known]
        images = catalogue.images.select(ids=wanted)
        accepted = catalogue.masks.accepted(wanted)
        choices = catalogue.provenance.unleaked_predictions(accepted)
        shown = catalogue.masks.newest_predictions([i for i in wanted if i not in accepted])
        ids = [choice.mask_id for choice in choices.values() if choice is not None]
        ids += [self._evaluated[i].mask_id for i in wanted if i in self._evaluated]
        predictions = catalogue.masks.get(ids)
        for image in images:
            mask, choice = accepted.get(image.id), choices.get(image.id)
            if evaluated := self._evaluated.get(image.id):
                own = mask is not None and mask.content_hash == evaluated.truth_hash
                reference = Reference(ACCEPTED if own else TRUTH, evaluated.truth_hash)
                prediction, iou = predictions[evaluated.mask_id], evaluated.lesion_iou
                pair = Pair(image, prediction, reference, mask, compared=True, lesion_iou=iou)
            elif mask is not None:
                unleaked = None if choice is None else predictions[choice.mask_id]
                trained_on = choice is None and image.id in choices
                pair = Pair(
                    image, unleaked, Reference(ACCEPTED, mask.content_hash), mask, trained_on
                )
            else:
                pair = Pair(image, shown.get(image.id), None)
            self._known[image.id] = pair
        return [self._known[image_id] for image_id in image_ids]

    def _compared(self, pair: Pair) -> Pair:
        accepted, lesion = pair.accepted, load_protocol().class_named("lesion").index
        assert pair.prediction is not None
        assert accepted is not None
        if lesion not in accepted.classes:
            return replace(pair, compared=True)
        try:
            truth = self._workspace.mask_over(pair.image, accepted)
            predicted = self._workspace.mask_over(pair.image, pair.prediction)
        except DdisegError:
            return pair  # its card says which file is missing
        if metrics.labels_one_class(truth):
            return replace(pair, compared=True)  # the IoU would be recall
        confusion = metrics.confusion(truth, predicted, len(load_protocol().classes))
        iou = float(metrics.iou_per_class(confusion)[lesion])
        return replace(pair, compared=True, lesion_iou=None if math.isnan(iou) else iou)


def choose(pairs: Sequence[Pair]) -> list[Pair]:
    """Return up to SHOWN images that are not skipped, the lowest lesion IoU first, then others.

    Others with a mask or a prediction come before those with neither.
    """
    shown = [pair for pair in pairs if pair.image.state != State.SKIPPED]
    scored = sorted(
        (p for p in shown if p.lesion_iou is not None), key=lambda p: (p.lesion_iou, p.image.id)
    )
    others = [p for p in shown if p.lesion_iou is None]
    others.sort(key=lambda p: p.reference is None and p.prediction is None)
    room = max(SHOWN - len(scored), SHOWN_OTHERS)
    chosen = others[:room]
    return scored[: SHOWN - len(chosen)] + chosen


def _parts(image_ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield the ids in parts; later ones are larger, since few were found in the ones before."""
    start, size = 0, 2 * COMPARED + 50
    while start < len(image_ids):
        yield image_ids[start : start + size]
        start, size = start + size, min(2 * size, 10_000)


@dataclass(frozen=True)
class Card:
    """One image as the page shows it."""

    id: int
    name: str
    tone: str
    diagnosis: str | None
    malignant: bool | None
    state: str
    lesion_iou: float | None
    doubt: str | None  #: expected IoU in words, or else the uncertainty; None without a prediction
    remark: str  #: the masks compared, or why there are none
    overlay: str  #: contents of the second picture; "" for none
    photograph: str = ""  #: data URI
    size: tuple[int, int] = (0, 0)  #: height and width of the pictures, in UNITS a pixel
    mask_outlines: Mapping[str, str] | None = None  #: path data by class; None without a mask
    predicted_outlines: Mapping[str, str] | None = None
    trouble: str | None = None  #: why the image can't be shown


def draw_card(
    workspace: Workspace, pair: Pair, model_name: Callable[[int], str], coarse: int = 1
) -> Card:
    """Return the card of an image, with the reason where its files can't be read.

    Args:
        coarse: more than 1 for fewer bytes: coarser outlines, and a photograph of lower quality.
    """
    image, prediction, reference = pair.image, pair.prediction, pair.reference
    protocol = load_protocol()
    kinds = [reference.kind] if reference else []
    described: dict[str, Any] = {
        "id": image.id,
        "name": image.name,
        "tone": image.tone,
        "diagnosis": image.diagnosis,
        "malignant": image.malignant,
        "state": image.state,
        "lesion_iou": pair.lesion_iou,
        "doubt": _doubt(prediction) if prediction else None,
        "remark": _remark(pair, model_name),
        "overlay": " and ".join((["prediction"] if prediction else []) + kinds),
    }
    try:
        photograph = _fitted(workspace.photograph(image))
        height, width = photograph.shape[:2]

        def outlined(digest: str) -> dict[str, str]:
            mask = read_mask(workspace.store, digest)
            if count := masks.count_unlabelled(mask):
                described["remark"] += f"; {count / mask.size:.0%} of the pixels unlabelled"
            return outlines(mask, (height, width), protocol, coarse)

        mask_outlines = outlined(reference.content_hash) if reference else None
        predicted_outlines = outlined(prediction.content_hash) if prediction else None
        return Card(
            **described,
            photograph=_data_uri(photograph, QUALITY // coarse),
            size=(height * UNITS, width * UNITS),
            mask_outlines=mask_outlines,
            predicted_outlines=predicted_outlines,
        )
    except DdisegError as error:
        return Card(**described, trouble=str(error))


def _doubt(prediction: Mask) -> str | None:
    if prediction.quality is not None:
        return masks.in_words(prediction.quality)
    if prediction.uncertainty is not None:
        return f"uncertainty {prediction.uncertainty:.3f}"
    return None


def _remark(pair: Pair, model_name: Callable[[int], str]) -> str:
    image, prediction, reference = pair.image, pair.prediction, pair.reference
    model = ""
    if prediction is not None and prediction.model_version_id is not None:
        model = model_name(prediction.model_version_id)
    if reference is None:
        why = _NO_MASK.get(State(image.state), "no mask yet")
        return f"{why}; prediction of {model}" if model else f"{why}, no prediction"
    if model:
        compared = f"prediction of {model} compared with the {reference.kind}"
        if not pair.compared:
            return f"prediction of {model} and {reference.kind}, not compared"
        return compared if pair.lesion_iou is not None else f"{compared}: no lesion in either"
    if pair.trained_on:
        return "no prediction to compare: the model was trained on this mask"
    return "no prediction"


#: Reason for no mask, by state.
_NO_MASK = {
    State.SUBMITTED: "mask in review",
    State.IN_LABELLING: "no mask yet: it is being annotated",
    State.REWORK: "no mask: it was sent back",
    State.SKIPPED: "no mask: it was skipped",
}


def write_picture(workspace: Workspace, image: Image, path: Path) -> None:
    """Write a PNG of the photograph and its masks: accepted, in review, prediction.

    Raises:
        InputError: the file exists already.
        WorkspaceError, InputError: a file of the workspace is missing or damaged.
    """
    photograph = panels.fitted(workspace.photograph(image))
    pictures = [(f"{image.name}, tone {image.tone}", photograph)]
    rows = workspace.catalogue.masks
    shown = {
        "accepted": rows.accepted_of(image.id),
        "in review": rows.in_review_of(image.id),
        "prediction": rows.newest_predictions([image.id]).get(image.id),
    }
    for caption, mask in shown.items():
        if mask is not None:
            overlay = masks.draw_overlay(photograph, workspace.mask(mask), load_protocol())
            pictures.append((caption, overlay))
    panels.write_new(path, panels.join_panels(pictures))


def _fitted(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `pixels` with a longest edge of SIDE, proportions kept."""
    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Picture.fromarray(pixels)
    return np.asarray(picture.resize(size, Picture.Resampling.LANCZOS, reducing_gap=3.0))


def _data_uri(pixels: NDArray[np.uint8], quality: int) -> str:
    buffer = io.BytesIO()
    Picture.fromarray(pixels).save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
