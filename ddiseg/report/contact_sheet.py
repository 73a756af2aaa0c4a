"""The contact sheet: photographs with the outlines of prediction and mask; and a picture of one image.

Arrays: photographs (H, W, 3) uint8 sRGB, masks (H, W) uint8 class ids of the protocol.
"""

from __future__ import annotations

import base64
import io
import math
import random
from collections.abc import Callable, Mapping, Sequence
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

#: Images shown for each tone, and as the most uncertain.
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
        self.accepted = catalogue.masks.accepted()
        self.predictions = catalogue.masks.newest_predictions()
        self._unleaked = catalogue.provenance.unleaked_predictions(self.accepted)
        self._unleaked_predictions = catalogue.masks.get(
            [choice.mask_id for choice in self._unleaked.values() if choice is not None]
        )
        self._evaluated = catalogue.evaluations.last_compared()
        self._evaluated_predictions = catalogue.masks.get(
            [e.mask_id for e in self._evaluated.values()]
        )
        self.sampled = False  #: whether only some of the accepted masks were compared

    def of_tone(self, images: Sequence[Image], seed: str) -> list[Pair]:
        """Return the pairs of images; of many accepted ones a random sample has a lesion IoU."""
        pairs = [self.of(image) for image in images]
        random.Random(seed).shuffle(pairs)
        comparable = [
            p.image.id
            for p in pairs
            if p.prediction and p.reference and p.image.id not in self._evaluated
        ]
        wanted = set(comparable[:COMPARED])
        self.sampled = self.sampled or len(comparable) > COMPARED
        return [self._compared(p) if p.image.id in wanted else p for p in pairs]

    def of(self, image: Image) -> Pair:
        """Return the pair of an image, with a lesion IoU only from the newest evaluation."""
        accepted = self.accepted.get(image.id)
        if evaluated := self._evaluated.get(image.id):
            own = accepted is not None and accepted.content_hash == evaluated.truth_hash
            reference = Reference(ACCEPTED if own else TRUTH, evaluated.truth_hash)
            prediction = self._evaluated_predictions[evaluated.mask_id]
            iou = evaluated.lesion_iou
            return Pair(image, prediction, reference, compared=True, lesion_iou=iou)
        if accepted is not None:
            choice = self._unleaked.get(image.id)
            unleaked = None if choice is None else self._unleaked_predictions[choice.mask_id]
            trained_on = choice is None and image.id in self._unleaked
            return Pair(image, unleaked, Reference(ACCEPTED, accepted.content_hash), trained_on)
        return Pair(image, self.predictions.get(image.id), None)

    def _compared(self, pair: Pair) -> Pair:
        accepted, lesion = self.accepted[pair.image.id], load_protocol().class_named("lesion").index
        assert pair.prediction is not None
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


def most_uncertain(images: Sequence[Image], predictions: Mapping[int, Mask]) -> list[Image]:
    """Return up to SHOWN images without a final mask, the least certain prediction first."""
    uncertain = {i: m.uncertainty for i, m in predictions.items() if m.uncertainty is not None}
    closed = (State.ACCEPTED, State.SKIPPED)
    candidates = [i for i in images if i.id in uncertain and i.state not in closed]
    return sorted(candidates, key=lambda i: (-uncertain[i.id], i.id))[:SHOWN]


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
    uncertainty: float | None
    remark: str  #: the masks compared, or why there are none
    overlay: str  #: contents of the second picture; "" for none
    photograph: str = ""  #: data URI
    size: tuple[int, int] = (0, 0)  #: height and width of the pictures, in UNITS a pixel
    mask_outlines: Mapping[str, str] | None = None  #: path data by class; None without a mask
    predicted_outlines: Mapping[str, str] | None = None
    trouble: str | None = None  #: why the image can't be shown


def draw_card(workspace: Workspace, pair: Pair, model_name: Callable[[int], str]) -> Card:
    """Return the card of an image, with the reason where its files can't be read."""
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
        "uncertainty": prediction.uncertainty if prediction else None,
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
            return outlines(mask, (height, width), protocol)

        mask_outlines = outlined(reference.content_hash) if reference else None
        predicted_outlines = outlined(prediction.content_hash) if prediction else None
        return Card(
            **described,
            photograph=_data_uri(photograph),
            size=(height * UNITS, width * UNITS),
            mask_outlines=mask_outlines,
            predicted_outlines=predicted_outlines,
        )
    except DdisegError as error:
        return Card(**described, trouble=str(error))


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


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Picture.fromarray(pixels).save(buffer, "JPEG", quality=86, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
