"""A region from a person's clicks, while Auto-Annotation is on in Label Studio.

The network looks at an image once; its activations are kept, so that each further click is answered
from memory. Fields of a click: https://labelstud.io/tags/keypointlabels
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from annotation_protocol import Protocol, UserError, load_protocol
from annotation_protocol.label_studio_config import IMAGE, MASK
from ddiseg import masks
from ddiseg.catalogue import Arm
from ddiseg.catalogue.tables import Image
from ddiseg.errors import InputError
from ddiseg.labelstudio.task_payload import PAINTED
from ddiseg.masks import brush_rle
from ddiseg.masks.composition import Origin
from ddiseg.model.predict import Predictor
from ddiseg.server.known_tasks import AskedTask, KnownTask, find_tasks
from ddiseg.server.metrics import Metrics
from ddiseg.server.model_cache import ModelCache
from ddiseg.server.predictions import UNKNOWN, WITHHELD
from ddiseg.workspace.workspace import Workspace
from fedd.clicks import Click, ClickSegmenter, prepare_clicks

KEYPOINT = "keypointlabels"

#: Images whose activations are kept at most, and bytes of them.
MOST_IMAGES, MOST_BYTES = 64, 512_000_000


class Clicks:
    """Answers the interactive /predict of a workspace. Every method blocks: call it from a thread."""

    def __init__(self, workspace: Workspace, model: ModelCache, metrics: Metrics) -> None:
        self._workspace, self._model, self._metrics = workspace, model, metrics
        self._seen = _Seen()

    def answer(
        self,
        project: str | None,
        asked: Sequence[AskedTask],
        context: Mapping[str, Any],
        deadline: float,
    ) -> dict[str, Any]:
        """The response: for each task the region of its clicks' class, or nothing and the reason.

        Label Studio sends one task. Its interface wants a `result` even where there is none, and
        stores nothing of it.
        """
        known = find_tasks(self._workspace, project, asked)
        results: list[dict[str, Any]] = []
        for task in known:
            try:
                region = self._region(task, context, deadline)
            except UserError as error:
                self._metrics.predictions.labels("unanswered").inc()
                results.append({"model_version": PAINTED, "result": [], "reason": str(error)})
            else:
                self._metrics.predictions.labels("clicked").inc()
                results.append({"model_version": PAINTED, "result": [region]})
        return {"results": results}

    def _region(
        self, known: KnownTask | None, context: Mapping[str, Any], deadline: float
    ) -> dict[str, Any]:
        if known is None:
            raise InputError(UNKNOWN)
        if known.task.arm == Arm.CONTROL:  # what the model sees is its prediction all the same
            raise InputError(WITHHELD)
        protocol = load_protocol()
        label, clicks = read_clicks(context, protocol, (known.image.height, known.image.width))
        class_id = protocol.class_named(label).index
        with self._model.painter(deadline) as painter:
            key = painter.version.id, known.image.id
            looked = self._seen.get(key)
            if looked is None:
                looked = self._look(painter, known.image)
                self._seen.put(key, looked)
            found = looked.region(clicks, class_id)
        size = known.task.height, known.task.width
        inside = masks.stretch(found.astype(np.uint8), size).astype(np.bool_)
        return _brush(inside, label)

    def _look(self, painter: Predictor, image: Image) -> ClickSegmenter:
        photograph = self._workspace.photograph(image)
        return prepare_clicks(painter.probes, painter.net, photograph)


def read_clicks(
    context: Mapping[str, Any], protocol: Protocol, size: tuple[int, int]
) -> tuple[str, list[Click]]:
    """The class that is clicked for, and the clicks for it on a photograph of `size` (H, W).

    The last click's label decides; clicks for other classes are no part of this region.

    Raises:
        InputError: there is no click, or one that can't be read.
        ProtocolError: the label is no class of the protocol.
    """
    entries = context.get("result")
    try:
        found = [
            _Keypoint.model_validate(entry)
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, Mapping) and entry.get("type") == KEYPOINT
        ]
    except ValidationError:
        raise InputError(
            "a click has no place or no label: give x and y in percent, and one label"
        ) from None
    if not found:
        raise InputError("there is no click: switch Auto-Annotation on and click on the image")
    label = found[-1].value.keypointlabels[0]
    protocol.class_named(label)
    same = [point for point in found if point.value.keypointlabels[0] == label]
    return label, [_click(point, size) for point in same]


def _click(point: _Keypoint, size: tuple[int, int]) -> Click:
    """In pixels; 100 % is the edge, where there is no pixel any more."""
    y, x = (
        min(percent * side / 100, side - 1)
        for percent, side in zip((point.value.y, point.value.x), size, strict=True)
    )
    return Click(x, y, point.is_positive)


class _Place(BaseModel):
    """Percent of the picture's width and height, from its top left corner."""

    x: float = Field(ge=0, le=100)
    y: float = Field(ge=0, le=100)
    keypointlabels: list[str] = Field(min_length=1, max_length=1)


class _Keypoint(BaseModel):
    value: _Place
    is_positive: bool = True


class _Seen:
    """What the network saw of the images that were clicked last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, int], ClickSegmenter] = OrderedDict()

    def get(self, key: tuple[int, int]) -> ClickSegmenter | None:
        """By (model version, image); the one asked for is the last to go."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: tuple[int, int], looked: ClickSegmenter) -> None:
        """Keep one; those that were not asked for longest go where there are too many."""
        self._kept[key] = looked
        while len(self._kept) > 1 and (
            len(self._kept) > MOST_IMAGES or sum(x.nbytes for x in self._kept.values()) > MOST_BYTES
        ):
            self._kept.popitem(last=False)


def _brush(inside: NDArray[np.bool_], label: str) -> dict[str, Any]:
    """A region as a person would paint it: it was their click, and it goes over what lies below."""
    height, width = inside.shape
    return {
        "id": secrets.token_hex(5),
        "type": "brushlabels",
        "from_name": MASK,
        "to_name": IMAGE,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "origin": Origin.MANUAL.value,
        "value": {"format": "rle", "rle": brush_rle.encode(inside), "brushlabels": [label]},
    }
