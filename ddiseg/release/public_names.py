"""How a release calls images, patients, lesions and people: by pseudonyms, or as the catalogue does."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ddiseg.catalogue.identifiers import normalise_id
from ddiseg.catalogue.release_rows import ChosenMask
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
        texts = workspace.catalogue.identities.free_texts()
        return cls(workspace, Pseudonyms.of(workspace), Identifiers.within(workspace, texts))

    @property
    def are_kept(self) -> bool:
        return self.pseudonyms is None

    def write_table(self) -> None:
        """Write into the workspace what the pseudonyms stand for."""
        if self.pseudonyms is not None:
            write_table(self.workspace, self.pseudonyms, self.renamed())

    def image(self, image: Image | ChosenMask) -> str:
        """Return the file name of an image."""
        if self.pseudonyms is None:
            return image.name
        return self.pseudonyms.image(image.content_hash) + os.path.splitext(image.name)[1].lower()

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

    def text(self, text: str | None, what: str) -> tuple[str | None, tuple[str, ...]]:
        """Return a text that a person wrote, names and ids in it replaced, and a note for each of these."""
        if text is None or self.identifiers is None:
            return text, ()
        public, removed = self.identifiers.without(text)
        notes = dict.fromkeys(f"{what}: {each.kind} '{each.value}' removed" for each in removed)
        return public, tuple(notes)

    def label(self, kind: str, number: int, name: str) -> str:
        """Return the name of a subset or dataset; "dataset_3" where it holds a name or an id."""
        if self.identifiers is None or not any(self.identifiers.find(name)):
            return name
        return f"{kind}_{number}"

    def subsets(self) -> dict[str, str]:
        """Return what the release calls each subset, by its name."""
        names = self.workspace.catalogue.subsets.sizes()
        return {name: self.label("subset", number, name) for number, name in enumerate(names, 1)}

    def renamed(self) -> list[tuple[str, str, str]]:
        """Return the datasets and subsets that have another name, as (kind, that, name)."""
        datasets = self.workspace.catalogue.images.datasets()
        labels = [("dataset", self.label("dataset", d.id, d.name), d.name) for d in datasets]
        labels += [("subset", label, name) for name, label in self.subsets().items()]
        return [each for each in labels if each[1] != each[2]]

    def dataset(self, dataset: Dataset) -> PublicDataset:
        """Return what is said of a dataset; its licence and source are public facts, kept as they are."""
        return PublicDataset(
            dataset.id,
            self.label("dataset", dataset.id, dataset.name),
            dataset.licence,
            dataset.source,
            dataset.synthetic,
        )

    def reason(self, reason: str | None) -> str | None:
        """Return why an image is left out; it may hold a path."""
        return reason if self.are_kept else "its photograph or its mask can't be read"
