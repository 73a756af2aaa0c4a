"""What was exported, counted while it is written: nothing of an image stays but its outcome."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ddiseg.outcomes import FileOutcome, Outcome
from ddiseg.release.items import ReleaseItem
from ddiseg.release.public_names import PublicDataset

#: Of the entries of a content before and after the images, in the order of JSON's sorted keys.
_FIRST = ("ddiseg", "format", "images", "include_predictions")
_LAST = ("names_kept", "protocol", "subset")


class ContentHash:
    """SHA-256 of all that a release says, whenever it is written.

    It is that of the JSON text, with sorted keys, of the release's head with the list `items` (stem and
    facts of each image) and `left_out` (ids of refused images). An unknown expected IoU is no fact, so
    that a release of masks by people has the hash that earlier versions gave it.
    """

    def __init__(self, head: Mapping[str, Any]) -> None:
        first = json.dumps({name: head[name] for name in _FIRST}, sort_keys=True)
        self._digest = hashlib.sha256(f'{first[:-1]}, "items": ['.encode())
        self._last = {name: head[name] for name in _LAST}
        self._separator = ""

    def add(self, item: ReleaseItem) -> None:
        """Add the next image."""
        facts = item.facts()
        if facts["expected_iou"] is None:
            del facts["expected_iou"]
        text = json.dumps([item.stem, facts], sort_keys=True)
        self._digest.update(f"{self._separator}{text}".encode())
        self._separator = ", "

    def hexdigest(self, left_out: Iterable[int]) -> str:
        """Return the hash; `left_out` are the ids of the images that were refused."""
        whole = self._digest.copy()
        last = json.dumps({"left_out": sorted(left_out), **self._last}, sort_keys=True)
        whole.update(f"], {last[1:]}".encode())
        return whole.hexdigest()


@dataclass(frozen=True)
class LeftOut:
    """An image that could not be exported."""

    image_id: int
    name: str  #: in the release
    reason: str | None


@dataclass
class ToneCounts:
    """The exported images of one tone."""

    accepted: int = 0
    predictions: int = 0
    with_class: Counter[str] = field(default_factory=Counter)  #: images in whose mask a class is


@dataclass
class ExportSummary:
    """The outcomes of an export and its counts."""

    class_names: Sequence[str]
    content_hash: ContentHash
    outcomes: list[FileOutcome] = field(default_factory=list)  #: one an image, in their order
    left_out: list[LeftOut] = field(default_factory=list)
    tones: dict[str, ToneCounts] = field(default_factory=dict)
    #: datasets of the release by id, also those of which no image was exported
    datasets: dict[int, PublicDataset] = field(default_factory=dict)
    per_dataset: Counter[int] = field(default_factory=Counter)  #: images by id of the dataset
    partly_labelled: int = 0  #: images with pixels without a class
    unlabelled_pixels: int = 0
    newest: str = "0000-00-00"  #: when the newest mask was made

    def add(self, item: ReleaseItem, present: Iterable[str]) -> None:
        """Count an image that was written; `present` are the classes in its mask."""
        self.content_hash.add(item)
        self.outcomes.append(FileOutcome(item.image.name, Outcome.ADDED, item.identity.note))
        counts = self.tones.setdefault(item.image.tone, ToneCounts())
        counts.accepted += item.accepted
        counts.predictions += not item.accepted
        counts.with_class.update(present)
        self.datasets.setdefault(item.dataset.id, item.dataset)
        self.per_dataset[item.dataset.id] += 1
        self.partly_labelled += item.unlabelled > 0
        self.unlabelled_pixels += item.unlabelled
        self.newest = max(self.newest, item.mask.created_at)

    def leave_out(self, item: ReleaseItem, reason: str) -> None:
        """Count an image that could not be written."""
        self.outcomes.append(FileOutcome(item.image.name, Outcome.REFUSED, reason))
        self.datasets.setdefault(item.dataset.id, item.dataset)
        self.left_out.append(LeftOut(item.image.id, item.identity.name, reason))

    @property
    def accepted(self) -> int:
        return sum(counts.accepted for counts in self.tones.values())

    @property
    def predictions(self) -> int:
        return sum(counts.predictions for counts in self.tones.values())

    @property
    def images(self) -> int:
        return self.accepted + self.predictions

    @property
    def exported_datasets(self) -> list[PublicDataset]:
        """The datasets of which an image was exported, the oldest first."""
        return [self.datasets[number] for number in sorted(self.per_dataset)]

    @property
    def content(self) -> str:
        """The SHA-256 of everything that was exported but the time."""
        return self.content_hash.hexdigest(each.image_id for each in self.left_out)

    def with_class(self, tone: str | None = None) -> dict[str, int]:
        """Return the number of images in whose mask each class is, of one tone or of all."""
        tones = self.tones.values() if tone is None else [self.tones[tone]]
        return {name: sum(t.with_class[name] for t in tones) for name in self.class_names}
