"""One image of a release: its mask, who made that, and what the release calls them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ddiseg.catalogue.release_rows import ReleaseRow
from ddiseg.catalogue.tables import Dataset, Image, Mask
from ddiseg.release.public_names import PublicDataset, PublicNames
from ddiseg.workspace.workspace import Workspace


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
    folder: str = ""  #: with /, where the files of a large release are divided into folders

    @property
    def unlabelled(self) -> int:
        """Pixels of the photograph without a class; where the mask was stretched, rounded."""
        mask, image = self.mask, self.image
        return round(mask.unlabelled * image.width * image.height / (mask.width * mask.height))

    @property
    def path(self) -> str:
        """The path of its files in the release's folders of images and masks, without ending."""
        return self.folder + self.stem

    def file_name(self, *, images: bool) -> str:
        """Return the photograph's file name: a PNG where it is exported, else with its own ending."""
        if images:
            return f"{self.path}.png"
        return self.stem + os.path.splitext(self.identity.name)[1]

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
            "expected_iou": mask.quality,
            "unlabelled": self.unlabelled,
            "mask_created_at": self.identity.mask_created_at,
        }


@dataclass(frozen=True)
class ItemMaker:
    """What all images of a release have in common: its names, datasets, models and subsets."""

    names: PublicNames
    datasets: Mapping[int, Dataset]
    public: Mapping[int, PublicDataset]
    models: Mapping[int, str]
    subsets: Mapping[str, str]  #: what the release calls each, by its name

    @classmethod
    def of(cls, workspace: Workspace, names: PublicNames) -> ItemMaker:
        datasets = {d.id: d for d in workspace.catalogue.images.datasets()}
        public = {number: names.dataset(dataset) for number, dataset in datasets.items()}
        return cls(names, datasets, public, workspace.catalogue.models.names(), names.subsets())

    def item(self, row: ReleaseRow, *, stem: str, group: str, folder: str) -> ReleaseItem:
        """Return an image with all that is told of it."""
        image, mask = row.image, row.mask
        return ReleaseItem(
            image=image,
            dataset=self.public[image.dataset_id],
            identity=self._identity(row),
            mask=mask,
            accepted=row.accepted,
            model=None if mask.model_version_id is None else self.models[mask.model_version_id],
            parent=row.parent_hash,
            # A subset that somebody drew meanwhile has no name here, and is none of this release.
            subsets=tuple(self.subsets[name] for name in row.subsets if name in self.subsets),
            group=group,
            stem=stem,
            folder=folder,
        )

    def _identity(self, row: ReleaseRow) -> Identity:
        image, names = row.image, self.names
        dataset = self.datasets[image.dataset_id]
        diagnosis, diagnosis_notes = names.text(image.diagnosis, "diagnosis")
        tone_source, tone_notes = names.text(image.tone_source, "source of the tone")
        return Identity(
            name=names.image(image),
            patient=names.patient(image, dataset),
            lesion=names.lesion(image, dataset),
            tone_source=tone_source,
            diagnosis=diagnosis,
            annotator=names.person(row.mask.annotator),
            reviewer=names.person(row.reviewer),
            parent_annotator=names.person(row.parent_annotator),
            mask_created_at=names.moment(row.mask.created_at),
            notes=diagnosis_notes + tone_notes,
        )
