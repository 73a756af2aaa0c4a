"""How a release calls images, patients, lesions and people: by pseudonyms, or as the catalogue does."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ddiseg.catalogue.identifiers import normalise_id
from ddiseg.catalogue.tables import Dataset, Image
from ddiseg.release.identifiers import Identifiers
from ddiseg.workspace.pseudonyms import Pseudonyms, write_table
from ddiseg.workspace.workspace import Workspace


@dataclass(frozen=True)
class PublicDataset:
    """What a release says of a dataset."""

    id: int
    name: str
    licence: str | None
    source: str | None
    synthetic: bool


@dataclass(frozen=True)
class PublicNames:
    """The names of a release, without pseudonyms those of the catalogue."""

    workspace: Workspace
    pseudonyms: Pseudonyms | None = None
    identifiers: Identifiers | None = None  #: what no text of the release may hold

    @classmethod
    def of(cls, workspace: Workspace, *, keep: bool) -> PublicNames:
        """Return the names of a release of `workspace`; `keep`: those of the catalogue."""
        if keep:
            return cls(workspace)
        return cls(workspace, Pseudonyms.of(workspace), Identifiers.of(workspace))

    @property
    def are_kept(self) -> bool:
        return self.pseudonyms is None

    def write_table(self) -> None:
        """Write into the workspace what the pseudonyms stand for."""
        if self.pseudonyms is not None:
            write_table(self.workspace, self.pseudonyms)

    def image(self, image: Image) -> str:
        """Return the file name of an image."""
        if self.pseudonyms is None:
            return image.name
        return self.pseudonyms.image(image) + os.path.splitext(image.name)[1].lower()

    def patient(self, image: Image, dataset: Dataset) -> str | None:
        patient = normalise_id(image.patient)
        if self.pseudonyms is None or patient is None:
            return patient
        return self.pseudonyms.patient(dataset, patient)

    def lesion(self, image: Image, dataset: Dataset) -> str | None:
        lesion = normalise_id(image.lesion)
        if self.pseudonyms is None or lesion is None:
            return lesion
        return self.pseudonyms.lesion(dataset, lesion, normalise_id(image.patient))

    def person(self, name: str | None) -> str | None:
        return name if self.pseudonyms is None or name is None else self.pseudonyms.person(name)

    def moment(self, at: str) -> str | None:
        """Return when something was done; with pseudonyms only the year."""
        return at if self.are_kept else at[:4]

    def text(self, text: str | None) -> str | None:
        """Return a text that a person wrote; None where it holds a name or an id of the catalogue."""
        if text is None or self.identifiers is None or not self.identifiers.occur_in(text):
            return text
        return None

    def label(self, kind: str, number: int, name: str) -> str:
        """Return the name of a subset or dataset; "dataset_3" where it holds a name or an id."""
        return self.text(name) or f"{kind}_{number}"

    def dataset(self, dataset: Dataset) -> PublicDataset:
        return PublicDataset(
            dataset.id,
            self.label("dataset", dataset.id, dataset.name),
            self.text(dataset.licence),
            self.text(dataset.source),
            dataset.synthetic,
        )

    def reason(self, reason: str | None) -> str | None:
        """Return why an image is left out; it may hold a path."""
        return reason if self.are_kept else "its photograph or its mask can't be read"
