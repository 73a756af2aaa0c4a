"""Interactive segmentation: a region from a person's clicks, while Auto-Annotation is on.

The network sees an image once. Its activations are cached, so each further click is answered from
memory.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from annotation_protocol import Protocol, UserError, load_protocol
from annotation_protocol.label_studio_config import IMAGE, MASK
from ddiseg import masks
from ddiseg.catalogue import Arm
from ddiseg.errors import InputError
from ddiseg.labelstudio.task_payload import MODEL_VERSION
from ddiseg.masks import brush_rle
from ddiseg.masks.composition import Origin
from ddiseg.server.metrics import Metrics
from ddiseg.server.model_cache import ModelCache
from ddiseg.server.predictions import UNKNOWN, WITHHELD, KnownTask, find_tasks
from ddiseg.server.schemas import Keypoint, RequestedTask
from ddiseg.workspace.workspace import Workspace
from fedd.clicks import Click, ClickSegmenter, prepare_clicks

KEYPOINT = "keypointlabels"

#: Limits of the cache of activations: images, and bytes.
MAX_IMAGES, MAX_BYTES = 64, 512_000_000


class Clicks:
    """Answers the interactive /predict of a workspace. Every method blocks: call it from a thread."""

    def __init__(self, workspace: Workspace, model: ModelCache, metrics: Metrics) -> None:
        self._workspace, self._model, self._metrics = workspace, model, metrics
        self._cache = _ActivationCache()

    def answer(
        self,
        project: str | None,
        requested: Sequence[RequestedTask],
        context: Mapping[str, Any],
        deadline: float,
    ) -> dict[str, Any]:
        """Return the response: for each task the region of the clicked class, or a reason.

        Label Studio sends one task. It expects a `result` even if that is empty, and stores nothing
        of it.
        """
        results: list[dict[str, Any]] = []
        for task in find_tasks(self._workspace, project, requested):
            try:
                region = self._region(task, context, deadline)
            except UserError as error:
                self._metrics.predictions.labels("unanswered").inc()
                results.append({"model_version": MODEL_VERSION, "result": [], "reason": str(error)})
            else:
                self._metrics.predictions.labels("clicked").inc()
                results.append({"model_version": MODEL_VERSION, "result": [region]})
        return {"results": results}

    def _region(
        self, known: KnownTask | None, context: Mapping[str, Any], deadline: float
    ) -> dict[str, Any]:
        if known is None:
            raise InputError(UNKNOWN)
        if known.task.arm == Arm.CONTROL:  # a region from clicks would show the prediction, too
            raise InputError(WITHHELD)
        protocol = load_protocol()
        label, clicks = read_clicks(context, protocol, (known.image.height, known.image.width))
        class_id = protocol.class_named(label).index
        with self._model.predictor(deadline) as predictor:
            key = predictor.version.id, known.image.id
            segmenter = self._cache.get(key)
            if segmenter is None:
                photograph = self._workspace.photograph(known.image)
                segmenter = prepare_clicks(predictor.probes, predictor.net, photograph)
                self._cache.put(key, segmenter)
            found = segmenter.region(clicks, class_id)
        size = known.task.height, known.task.width
        inside = masks.stretch(found.astype(np.uint8), size).astype(np.bool_)
        return _brush(inside, label)


def read_clicks(
    context: Mapping[str, Any], protocol: Protocol, size: tuple[int, int]
) -> tuple[str, list[Click]]:
    """Return the clicked class and its clicks, in pixels of a photograph of `size` (H, W).

    The last click's label decides; clicks for other classes are ignored.

    Raises:
        InputError: there is no click, or one that can't be read.
        ProtocolError: the label is no class of the protocol.
    """
    entries = context.get("result")
    try:
        found = [
            Keypoint.model_validate(entry)
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, Mapping) and entry.get("type") == KEYPOINT
        ]
    except ValidationError:
        raise InputError(
            "a click has no position or no label: give x and y in percent, and one label"
        ) from None
    if not found:
        raise InputError("there is no click: switch Auto-Annotation on and click on the image")
    label = found[-1].value.keypointlabels[0]
    protocol.class_named(label)
    same = [point for point in found if point.value.keypointlabels[0] == label]
    return label, [_click(point, size) for point in same]


def _click(point: Keypoint, size: tuple[int, int]) -> Click:
    """Convert a click to pixels; 100 % is the edge, beyond the last pixel."""
    y, x = (
        min(percent * length / 100, length - 1)
        for percent, length in zip((point.value.y, point.value.x), size, strict=True)
    )
    return Click(x, y, point.is_positive)


class _ActivationCache:
    """Activations of the images that were clicked last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, int], ClickSegmenter] = OrderedDict()

    def get(self, key: tuple[int, int]) -> ClickSegmenter | None:
        """Return the activations of a (model version, image), and mark them as used last."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: tuple[int, int], segmenter: ClickSegmenter) -> None:
        """Add activations; evicts the least recently used ones beyond the limits."""
        self._kept[key] = segmenter
        while len(self._kept) > 1 and (
            len(self._kept) > MAX_IMAGES or sum(x.nbytes for x in self._kept.values()) > MAX_BYTES
        ):
            self._kept.popitem(last=False)


def _brush(inside: NDArray[np.bool_], label: str) -> dict[str, Any]:
    """Return a region as Label Studio stores a brush stroke of a person, as the clicks were theirs."""
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
