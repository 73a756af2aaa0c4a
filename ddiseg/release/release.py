"""The content of a release: reviewed masks with all their metadata.

Arrays: H rows, W columns of the photograph; masks (H, W) uint8 class ids of the protocol.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from annotation_protocol import Protocol, UserError, load_protocol
from ddiseg import masks
from ddiseg.catalogue import State
from ddiseg.catalogue.tables import Image, Mask
from ddiseg.errors import DamagedFileError, InputError, MissingFileError
from ddiseg.outcomes import FileOutcome, Outcome, Progress, counted, silent, worker_threads
from ddiseg.pixel_budget import BUDGET
from ddiseg.release.naming import unique_stems
from ddiseg.release.public_names import PublicDataset, PublicNames
from ddiseg.sampling.groups import Groups
from ddiseg.workspace.workspace import Workspace

#: Images that are read and encoded at once; each holds a photograph in memory.
WORKERS = min(4, os.cpu_count() or 1)

T = TypeVar("T")


@dataclass(frozen=True)
class Identity:
    """How a release calls an image and the people about it: by pseudonyms, unless names are kept."""

    name: str
    patient: str | None
    lesion: str | None
    tone_source: str | None
    diagnosis: str | None
    annotator: str | None
    reviewer: str | None  #: who accepted it; of a fix also who drew it
    parent_annotator: str | None  #: who drew the mask that this one corrects; None for a prediction
    mask_created_at: str | None
    notes: tuple[str, ...] = ()  #: names and ids that were removed from its texts, for the terminal

    @property
    def note(self) -> str | None:
        return "; ".join(self.notes) or None


@dataclass(frozen=True)
class ReleaseItem:
    """One image of a release with its mask and who made that."""

    image: Image
    dataset: PublicDataset
    identity: Identity
    mask: Mask
    accepted: bool  #: False: a prediction that no person has reviewed
    model: str | None  #: name of the model version, where the mask is a prediction
    parent: str | None  #: content hash of the mask that this one corrects
    subsets: tuple[str, ...]
    group: str  #: key of its group: a split of the release must not cut one
    stem: str  #: file name without ending, unique in the release

    @property
    def unlabelled(self) -> int:
        """Pixels of the photograph without a class; where the mask was stretched, rounded."""
        mask, image = self.mask, self.image
        return round(mask.unlabelled * image.width * image.height / (mask.width * mask.height))

    def file_name(self, *, images: bool) -> str:
        """Return the photograph's file name: a PNG where it is exported, else with its own ending."""
        return self.stem + (".png" if images else os.path.splitext(self.identity.name)[1])

    def facts(self) -> dict[str, Any]:
        """Return the metadata as JSON values; in every format under these names."""
        image = self.image
        return {
            "image_id": image.id,
            "name": self.identity.name,
            "dataset": self.dataset.name,
            "licence": self.dataset.licence,
            "source": self.dataset.source,
            "tone": image.tone,
            "tone_source": self.identity.tone_source,
            "fitzpatrick": image.fitzpatrick,
            "malignant": image.malignant,
            "diagnosis": self.identity.diagnosis,
            "patient": self.identity.patient,
            "lesion": self.identity.lesion,
            "group": self.group,
            "width": image.width,
            "height": image.height,
            "state": image.state,
            "subsets": list(self.subsets),
            "content_hash": image.content_hash,
            **self.mask_facts(),
        }

    def mask_facts(self) -> dict[str, Any]:
        """Return the metadata of the mask alone."""
        mask = self.mask
        return {
            "accepted": self.accepted,
            "annotator": self.identity.annotator,
            "model": self.model,
            "reviewer": self.identity.reviewer,
            "mask_hash": mask.content_hash,
            "parent": self.parent,
            "parent_annotator": self.identity.parent_annotator,
            "mapping": mask.mapping,
            "labelled_classes": list(mask.classes),
            "protocol_version": mask.protocol_version,
            "uncertainty": mask.uncertainty,
            "unlabelled": self.unlabelled,
            "mask_created_at": self.identity.mask_created_at,
        }


@dataclass(frozen=True)
class ExportSummary:
    """The outcomes of an export and its counts."""

    outcomes: tuple[FileOutcome, ...]  #: one an image, in the order of the release
    with_class: dict[str, dict[str, int]]  #: images in whose mask a class is, by tone and class


@dataclass(frozen=True)
class Release:
    """Images with one mask each, in the order of their ids."""

    workspace: Workspace
    protocol: Protocol
    items: tuple[ReleaseItem, ...]
    subset: str | None
    include_predictions: bool
    names: PublicNames

    @classmethod
    def gather(
        cls,
        workspace: Workspace,
        *,
        subset: str | None = None,
        include_predictions: bool = False,
        keep_names: bool = False,
    ) -> Release:
        """Select the images with an accepted mask, of a subset or of all.

        With `include_predictions` also the newest prediction of each image that has no accepted
        mask and is not skipped. Raises InputError where nothing is left, NotFoundError where the
        subset does not exist.
        """
        catalogue = workspace.catalogue
        if subset is not None:
            catalogue.subsets.members(subset)  # names the subsets that there are, if this is none
        rows = catalogue.images.select(subset=subset)
        chosen = catalogue.masks.accepted()
        accepted = set(chosen)
        if include_predictions:
            chosen = {**catalogue.masks.newest_predictions(), **chosen}
        rows = [
            r for r in rows if r.id in accepted or (r.id in chosen and r.state != State.SKIPPED)
        ]
        if not rows:
            raise InputError(_nothing(workspace, subset, include_predictions))
        names = PublicNames.of(workspace, keep=keep_names)
        items = _items(workspace, rows, chosen, accepted, names)
        return cls(workspace, load_protocol(), items, subset, include_predictions, names)

    @property
    def public_subset(self) -> str | None:
        """The name of the subset as the release says it."""
        return self.subset and self.names.subsets()[self.subset]

    def each(
        self, work: Callable[[ReleaseItem, masks.Mask], T], progress: Progress = silent
    ) -> tuple[list[T], ExportSummary]:
        """Run `work` on every image and its mask, on several threads; return the results in order.

        The mask is at its own size, verified by its hash; `over` brings it to its photograph. An
        image whose work raises a UserError is refused with that reason and has no result; any
        other error, such as a full disk, stops everything.
        """
        results: list[T] = []
        outcomes: list[FileOutcome] = []
        classes: dict[str, Counter[str]] = {}
        # Nothing may be written any more once the caller clears up after an error.
        with worker_threads(WORKERS) as pool:
            futures = [pool.submit(self._one, work, item) for item in self.items]
            for done, (item, future) in enumerate(zip(self.items, futures, strict=True), 1):
                try:
                    present, result = future.result()
                except UserError as error:
                    name = item.image.name
                    outcomes.append(
                        FileOutcome(name, Outcome.REFUSED, str(error).removeprefix(f"{name}: "))
                    )
                else:
                    results.append(result)
                    outcomes.append(FileOutcome(item.image.name, Outcome.ADDED, item.identity.note))
                    classes.setdefault(item.image.tone, Counter()).update(present)
                progress(done, len(self.items))
        counts = {
            tone: {name: found[name] for name in self.protocol.class_names}
            for tone, found in classes.items()
        }
        return results, ExportSummary(tuple(outcomes), counts)

    def over(self, item: ReleaseItem, mask: masks.Mask) -> masks.Mask:
        """Return `mask` at the size of its photograph, (H, W); stretched back where it was stretched."""
        size = item.image.height, item.image.width
        return mask if mask.shape == size else masks.stretch(mask, size)

    def photograph_png(self, item: ReleaseItem) -> bytes:
        """Return the photograph as a PNG without metadata, checked against its hash."""
        return self.workspace.photograph_png(item.image)

    def content(self, format_name: str, *, images: bool, left_out: Sequence[int] = ()) -> str:
        """Return the SHA-256 of everything in the release but the time; `left_out` are ids of refused images."""
        from ddiseg import __version__

        absent = set(left_out)
        document = {
            "format": format_name,
            "ddiseg": __version__,
            "protocol": self.protocol.version,
            "images": images,
            "subset": self.public_subset,
            "names_kept": self.names.are_kept,
            "include_predictions": self.include_predictions,
            "items": [[i.stem, i.facts()] for i in self.items if i.image.id not in absent],
            "left_out": sorted(absent),
        }
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

    def _one(
        self, work: Callable[[ReleaseItem, masks.Mask], T], item: ReleaseItem
    ) -> tuple[list[str], T]:
        with BUDGET.hold(item.image.width * item.image.height):
            return self._work_on(work, item)

    def _work_on(
        self, work: Callable[[ReleaseItem, masks.Mask], T], item: ReleaseItem
    ) -> tuple[list[str], T]:
        try:
            mask = self.workspace.mask(item.mask)
        except (DamagedFileError, MissingFileError) as error:  # without the name of who drew it
            raise InputError(
                "its stored mask is damaged or missing; 'ddiseg verify --repair' says how to put it back"
            ) from error
        present = [self.protocol.class_names[index] for index in masks.classes_in(mask)]
        return present, work(item, mask)


def _items(
    workspace: Workspace,
    rows: Sequence[Image],
    chosen: dict[int, Mask],
    accepted: set[int],
    names: PublicNames,
) -> tuple[ReleaseItem, ...]:
    catalogue = workspace.catalogue
    datasets = {d.id: d for d in catalogue.images.datasets()}
    models = {m.id: m.name for m in catalogue.models.all()}
    # Of an accepted image the newest review accepted it, whether of this mask or, for a reviewer's
    # fix, of the mask that was fixed.
    reviews = catalogue.masks.last_reviews()
    every = {m.id: m for m in catalogue.masks.all()}
    members = {label: catalogue.subsets.members(name) for name, label in names.subsets().items()}
    public = {number: names.dataset(dataset) for number, dataset in datasets.items()}
    stems = unique_stems([(r.id, names.image(r), public[r.dataset_id].name) for r in rows])
    keys = Groups.read(catalogue).keys(rows)
    items = []
    for row, stem, group in zip(rows, stems, keys, strict=True):
        mask = chosen[row.id]
        parent = None if mask.parent_id is None else every[mask.parent_id]
        review = reviews.get(row.id) if row.id in accepted else None
        diagnosis, diagnosis_notes = names.text(row.diagnosis, "diagnosis")
        tone_source, tone_notes = names.text(row.tone_source, "source of the tone")
        items.append(
            ReleaseItem(
                image=row,
                dataset=public[row.dataset_id],
                identity=Identity(
                    name=names.image(row),
                    patient=names.patient(row, datasets[row.dataset_id]),
                    lesion=names.lesion(row, datasets[row.dataset_id]),
                    tone_source=tone_source,
                    diagnosis=diagnosis,
                    annotator=names.person(mask.annotator),
                    reviewer=names.person(None if review is None else review.reviewer),
                    parent_annotator=names.person(None if parent is None else parent.annotator),
                    mask_created_at=names.moment(mask.created_at),
                    notes=diagnosis_notes + tone_notes,
                ),
                mask=mask,
                accepted=row.id in accepted,
                model=None if mask.model_version_id is None else models[mask.model_version_id],
                parent=None if parent is None else parent.content_hash,
                subsets=tuple(name for name, ids in members.items() if row.id in ids),
                group=group,
                stem=stem,
            )
        )
    return tuple(items)


def _nothing(workspace: Workspace, subset: str | None, include_predictions: bool) -> str:
    where = f"subset '{subset}'" if subset else "the workspace"
    count = len(workspace.catalogue.images.select(subset=subset))
    if count == 0:
        return f"{where} has no images: nothing to export; add some with 'ddiseg import' first"
    images = counted(count, "image")
    if include_predictions:
        return (
            f"{where} has {images} and no accepted mask or prediction: nothing to "
            "export; import reviewed masks ('ddiseg masks import') or run 'ddiseg prelabel' first"
        )
    return (
        f"{where} has {images} and no accepted mask: nothing to export; import "
        "reviewed masks ('ddiseg masks import --annotator A --reviewer B') first, or add "
        "--include-predictions to export predictions, too"
    )
