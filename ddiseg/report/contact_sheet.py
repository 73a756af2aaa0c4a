"""Contact sheets: photographs beside their masks, small, on neutral grey.

Arrays: photographs (H, W, 3) uint8 sRGB, masks (H, W) uint8 class ids of the protocol.
"""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from annotation_protocol import Protocol, load_protocol
from ddiseg import masks
from ddiseg.catalogue.lifecycle import State
from ddiseg.catalogue.models import Image, Mask
from ddiseg.errors import DdisegError
from ddiseg.workspace import Workspace

#: Longest side of a thumbnail in pixels.
SIDE = 192

#: Images shown a tone, and as the most uncertain.
SHOWN = 12

#: Of these, as many as there are with an accepted mask up to this number.
SHOWN_ACCEPTED = 4


@dataclass(frozen=True)
class Card:
    """One image as the page shows it; pictures are data URIs, None where there is none."""

    name: str
    tone: str
    diagnosis: str | None
    malignant: bool | None
    state: str
    uncertainty: float | None
    photograph: str | None
    accepted: str | None
    prediction: str | None
    trouble: str | None = None  #: why the image can't be shown


class ContactSheet:
    """Draws cards, each image once however often it is shown."""

    def __init__(
        self, workspace: Workspace, accepted: dict[int, Mask], predictions: dict[int, Mask]
    ) -> None:
        self._workspace = workspace
        self._accepted = accepted
        self._predictions = predictions
        self._protocol = load_protocol()
        self._drawn: dict[int, Card] = {}

    def card(self, image: Image) -> Card:
        """The card of an image; one that can't be read says why."""
        if image.id not in self._drawn:
            self._drawn[image.id] = self._draw(image)
        return self._drawn[image.id]

    def _draw(self, image: Image) -> Card:
        photograph = accepted = prediction = trouble = None
        try:
            small = _fitted(self._workspace.photograph(image), 2 * SIDE)
            photograph = _data_uri(small)
            accepted = self._painted(image, small, self._accepted.get(image.id))
            prediction = self._painted(image, small, self._predictions.get(image.id))
        except DdisegError as error:
            trouble = str(error)
        predicted = self._predictions.get(image.id)
        return Card(
            name=image.name,
            tone=image.tone,
            diagnosis=image.diagnosis,
            malignant=image.malignant,
            state=image.state,
            uncertainty=None if predicted is None else predicted.uncertainty,
            photograph=photograph,
            accepted=accepted,
            prediction=prediction,
            trouble=trouble,
        )

    def _painted(self, image: Image, small: NDArray[np.uint8], mask: Mask | None) -> str | None:
        if mask is None:
            return None
        # Painted at twice the size and halved: smooth lines, and as thick on every photograph.
        pixels = self._workspace.mask_over(image, mask)
        return _data_uri(_paint(small, pixels, self._protocol))


def sample(
    images: Sequence[Image], accepted: Collection[int], predicted: Collection[int], seed: str
) -> list[Image]:
    """Up to SHOWN images that are not skipped, drawn by `seed`, in the order of their ids.

    First up to SHOWN_ACCEPTED with an accepted mask, so that a reader sees what the truth looks
    like; then those with a prediction, then the rest.
    """
    candidates = [i for i in images if i.state != State.SKIPPED]
    random.Random(seed).shuffle(candidates)
    candidates.sort(key=lambda i: i.id not in predicted)
    chosen = [i for i in candidates if i.id in accepted][:SHOWN_ACCEPTED]
    chosen += [i for i in candidates if i not in chosen][: SHOWN - len(chosen)]
    return sorted(chosen, key=lambda i: i.id)


def most_uncertain(images: Sequence[Image], predictions: dict[int, Mask]) -> list[Image]:
    """Up to SHOWN images whose masks are still open, the least certain prediction first."""
    uncertain = {i: m.uncertainty for i, m in predictions.items() if m.uncertainty is not None}
    closed = (State.ACCEPTED, State.SKIPPED)
    candidates = [i for i in images if i.id in uncertain and i.state not in closed]
    return sorted(candidates, key=lambda i: (-uncertain[i.id], i.id))[:SHOWN]


def _paint(
    photograph: NDArray[np.uint8], mask: NDArray[np.uint8], protocol: Protocol
) -> NDArray[np.uint8]:
    height, width = photograph.shape[:2]
    mask = masks.check_mask(mask, len(protocol.classes))
    return masks.paint(photograph, masks.stretch(mask, (height, width)), protocol)


def _fitted(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """`pixels` with their longer side `side`, in their proportions."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Picture.fromarray(pixels)
    return np.asarray(picture.resize(size, Picture.Resampling.LANCZOS, reducing_gap=3.0))


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Picture.fromarray(_fitted(pixels, SIDE)).save(buffer, "JPEG", quality=86, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
