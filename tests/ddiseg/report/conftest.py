"""A workspace in which everything that the report shows has happened, and a reader of the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from ddiseg.catalogue import Details, NewMask, NewModelVersion
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.conftest import HEIGHT, WIDTH


def predict(
    workspace: Workspace,
    image_id: int,
    uncertainty: float | None = 0.25,
    quality: float | None = None,
) -> None:
    models = workspace.catalogue.models
    if not models.all():
        models.add(NewModelVersion("f" * 64, "small", "b" * 64, {}, ["m"], {}, "1.0"), "tester")
    mask = np.full((HEIGHT, WIDTH), 4, np.uint8)
    mask[image_id : image_id + 2, 1:5] = 1
    new = NewMask(
        image_id=image_id,
        content_hash=workspace.store_mask(mask),
        width=WIDTH,
        height=HEIGHT,
        mapping="same",
        classes=[0, 1, 2, 3, 4],
        protocol_version="1.0",
        model_version_id=models.current().id,
        uncertainty=uncertainty,
        quality=quality,
    )
    workspace.catalogue.masks.add_predictions([new])


def score(iou: float | None, n: int) -> dict[str, Any]:
    """A score as `ddiseg evaluate` records it; fewer than three images give no interval."""
    interval = None if iou is None or n < 3 else [iou - 0.05, iou + 0.04]
    figures: dict[str, Any] = {"n": n, "patients": n}
    for name in ("iou_mean", "iou_pooled", "dice_mean"):
        figures |= {name: iou, f"{name}_ci95": interval}
    return figures


def evaluated(workspace: Workspace) -> None:
    classes = {"lesion": score(0.613, 41), "marker": score(0.421, 6), "ruler": score(None, 0)}
    by_tone = {
        "V-VI": {"lesion": score(0.554, 20), "marker": score(0.377, 2), "ruler": score(None, 0)},
        "I-II": {"lesion": score(0.672, 21), "marker": score(0.443, 4), "ruler": score(None, 0)},
    }
    detail = {
        "truth": "some/where/truth-2", "subset": None, "models": {"fedd-1": 41}, "n_images": 41,
        "patients": 38, "learned_from": 30, "without_prediction": 0, "refused": ["x.png: no"],
        "classes": classes, "by_tone": by_tone,
    }  # fmt: skip
    workspace.catalogue.evaluations.add(detail, [], "tester")


@pytest.fixture
def worked(filled: Workspace) -> Workspace:
    """`filled` with diagnoses, a prediction of 2.png, an evaluation, 3.png skipped, a subset."""
    catalogue = filled.catalogue
    details = [
        Details("I-II", diagnosis="melanoma", malignant=True),
        Details("V-VI", diagnosis="naevus", malignant=False),
    ]
    catalogue.images.update_details([1, 2], details, "tester")
    predict(filled, 2)
    catalogue.images.skip(3, "scalp", None, "anna")
    catalogue.subsets.store({"pilot": [1, 2]}, {"seed": 0}, "tester")
    evaluated(filled)
    return filled


#: Elements that have no end tag.
VOID = {"meta", "img", "br", "link", "hr", "input", "image", "path", "use", "rect"}


@dataclass
class Page(HTMLParser):
    """What a browser would find in the page; complains of tags that are not closed in order."""

    html: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]
