"""The contact sheet: each photograph beside itself with the outlines of its prediction and its mask.

Arrays: photographs (H, W, 3) uint8 sRGB, masks (H, W) uint8 class ids of the protocol.
"""

from __future__ import annotations

import base64
import io
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from annotation_protocol import load_protocol, metrics
from ddiseg import masks
from ddiseg.catalogue.lifecycle import State
from ddiseg.catalogue.provenance import unleaked_predictions
from ddiseg.catalogue.tables import Image, Mask
from ddiseg.errors import DdisegError
from ddiseg.report.outlines import UNITS, outlines
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace

#: Longest side of a picture in pixels.
SIDE = 256

#: Images shown a tone, and as the most uncertain.
SHOWN = 12

#: Of these, up to so many without a lesion IoU, where there are enough that have one.
SHOWN_OTHERS = 3

#: Accepted masks of a tone that are compared with their predictions: each takes two files.
COMPARED = 200

ACCEPTED, TRUTH = "accepted mask", "true mask"


@dataclass(frozen=True)
class Reference:
    """The mask that a prediction is held against."""

    kind: str  #: ACCEPTED or TRUTH
    content_hash: str


@dataclass(frozen=True)
class Pair:
    """An image with its prediction and its mask, as far as it has them."""

    image: Image
    prediction: Mask | None
    reference: Reference | None
    learned: bool = False  #: no prediction of it counts: its models learned from its mask
    compared: bool = False  #: a lesion IoU was asked for
    lesion_iou: float | None = None  #: None also where neither shows a lesion


class Pairs:
    """What each image of a workspace is shown with.

    An image of the newest evaluation is shown with what was compared there. Any other accepted image
    is shown with the newest prediction by a model that did not learn from its mask; any other image
    with the prediction that it stands with.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        catalogue = workspace.catalogue
        self.accepted = catalogue.masks.accepted()
        self.predictions = catalogue.masks.newest_predictions()
        self._honest = unleaked_predictions(catalogue)
        self._evaluated = catalogue.evaluations.last_compared()
        self._scored = catalogue.masks.get([e.mask_id for e in self._evaluated.values()])
        self.sampled = False  #: not all accepted masks that could be compared were

    def of_tone(self, images: Sequence[Image], seed: str) -> list[Pair]:
        """The pairs of images; where many are accepted, a sample of them has a lesion IoU."""
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
        """The pair of an image; its lesion IoU only as far as the newest evaluation has it."""
        accepted = self.accepted.get(image.id)
        if scored := self._evaluated.get(image.id):
            own = accepted is not None and accepted.content_hash == scored.truth_hash
            reference = Reference(ACCEPTED if own else TRUTH, scored.truth_hash)
            prediction = self._scored[scored.mask_id]
            return Pair(image, prediction, reference, compared=True, lesion_iou=scored.lesion_iou)
        if accepted is not None:
            honest, _, learned = self._honest.get(image.id, (None, "", False))
            return Pair(image, honest, Reference(ACCEPTED, accepted.content_hash), learned)
        return Pair(image, self.predictions.get(image.id), None)

    def _compared(self, pair: Pair) -> Pair:
        accepted, lesion = self.accepted[pair.image.id], load_protocol().class_named("lesion").index
        assert pair.prediction is not None
        if lesion not in accepted.classes:
            return replace(pair, compared=True)
        try:
            drawn = self._workspace.mask_over(pair.image, accepted)
            predicted = self._workspace.mask_over(pair.image, pair.prediction)
        except DdisegError:
            return pair  # its card tells which file is missing
        confusion = metrics.confusion(drawn, predicted, len(load_protocol().classes))
        iou = float(metrics.iou_per_class(confusion)[lesion])
        return replace(pair, compared=True, lesion_iou=None if math.isnan(iou) else iou)


def choose(pairs: Sequence[Pair]) -> list[Pair]:
    """Up to SHOWN images that are not skipped: those with the lowest lesion IoU first, then others.

    Of the others, those with a mask or a prediction come before those with neither.
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
    """Up to SHOWN images whose masks are still open, the least certain prediction first."""
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
    remark: str  #: what is held against what, or why there is nothing
    overlay: str  #: what the second picture shows, "" where it would show nothing
    photograph: str = ""  #: data URI
    size: tuple[int, int] = (0, 0)  #: height and width of the pictures, in UNITS a pixel
    mask_outlines: Mapping[str, str] | None = None  #: path data by class; None without a mask
    predicted_outlines: Mapping[str, str] | None = None
    trouble: str | None = None  #: why the image can't be shown


def draw_card(workspace: Workspace, pair: Pair, model_name: Callable[[int], str]) -> Card:
    """The card of an image; one whose files can't be read says why."""
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
            mask = masks.decode_png(workspace.store.get(Kind.MASK, digest))
            return outlines(
                masks.check_mask(mask, len(protocol.classes)), (height, width), protocol
            )

        return Card(
            **described,
            photograph=_data_uri(photograph),
            size=(height * UNITS, width * UNITS),
            mask_outlines=outlined(reference.content_hash) if reference else None,
            predicted_outlines=outlined(prediction.content_hash) if prediction else None,
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
        return f"{why}; prediction of {model}" if model else f"{why}, and no prediction"
    if model:
        said = f"prediction of {model} against the {reference.kind}"
        if not pair.compared:
            return f"{said}, not compared"
        return said if pair.lesion_iou is not None else f"{said}: no lesion to compare"
    if pair.learned:
        return "no prediction to compare: the model learned from this mask"
    return "no prediction was made of it"


#: Why an image has no mask to show, by state.
_NO_MASK = {
    State.SUBMITTED: "its mask waits for review",
    State.IN_LABELLING: "no mask yet: it is being annotated",
    State.REWORK: "no mask: it was sent back",
    State.SKIPPED: "no mask: it was skipped",
}


def _fitted(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`pixels` with their longer side SIDE, in their proportions."""
    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Picture.fromarray(pixels)
    return np.asarray(picture.resize(size, Picture.Resampling.LANCZOS, reducing_gap=3.0))


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Picture.fromarray(pixels).save(buffer, "JPEG", quality=86, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
