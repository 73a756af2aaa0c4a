"""What in a text identifies a person: names, ids, e-mails and moments of the catalogue.

Texts and identifiers are cut into runs of letters and digits. An identifier is found where its runs
follow each other, whatever stands between them; so `Mueller_Hans_left_arm.png` is found in
`Mueller-Hans, left arm`. One pass over a text looks up each run in a table.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from annotation_protocol import load_protocol
from ddiseg.catalogue import State
from ddiseg.catalogue.tables import Image
from ddiseg.workspace.pseudonyms import people
from ddiseg.workspace.workspace import Workspace

_RUN = re.compile(r"[^\W_]+")

#: Shorter identifiers are found only as the whole value of a field of their kind: "17" is anywhere.
_SHORTEST, _SHORTEST_NUMBER = 3, 6


class IdentifierKind(StrEnum):
    """Kinds of identifiers."""

    NAME = "name"  #: file name or path of a photograph, with or without its ending
    PATIENT = "patient"
    LESION = "lesion"
    PERSON = "person"  #: who drew, reviewed or skipped; an account's e-mail
    MOMENT = "date"  #: when somebody did something, to the second


#: Parts of the names of fields whose whole value is compared with short identifiers.
FIELDS = {
    IdentifierKind.NAME: ("name", "image", "mask", "file", "path", "stem"),
    IdentifierKind.PATIENT: ("patient", "subject"),
    IdentifierKind.LESION: ("lesion",),
    IdentifierKind.PERSON: ("annotator", "reviewer", "person", "author"),
    IdentifierKind.MOMENT: (),
}


@dataclass
class Identifiers:
    """The identifiers of a catalogue, ready to be looked for."""

    vocabulary: set[str] = field(default_factory=set)  #: ordinary words, never taken for one
    counts: dict[IdentifierKind, int] = field(
        default_factory=lambda: dict.fromkeys(IdentifierKind, 0)
    )
    words: set[str] = field(default_factory=set)  #: identifiers that are ordinary words
    _long: dict[tuple[str, ...], set[IdentifierKind]] = field(
        default_factory=lambda: defaultdict(set)
    )
    #: numbers of runs of the identifiers that begin with a run
    _lengths: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    _short: dict[str, set[IdentifierKind]] = field(default_factory=lambda: defaultdict(set))
    _known: set[tuple[str, IdentifierKind]] = field(default_factory=set)

    @classmethod
    def of(cls, workspace: Workspace) -> Identifiers:
        """Return those of a workspace's whole catalogue."""
        catalogue = workspace.catalogue
        images = catalogue.images.select()
        found = cls(vocabulary=_vocabulary(workspace))
        for path, _ in catalogue.images.source_paths():
            for text in {path, path.rsplit("/", 1)[-1]}:
                found.add(IdentifierKind.NAME, text)
                found.add(IdentifierKind.NAME, text.rpartition(".")[0])
        for image in images:
            found.add(IdentifierKind.NAME, image.name)
            found.add(IdentifierKind.NAME, image.name.rpartition(".")[0])
            found.add(IdentifierKind.PATIENT, image.patient or "")
            found.add(IdentifierKind.LESION, image.lesion or "")
        for person in people(workspace):
            found.add(IdentifierKind.PERSON, person)
        masks = catalogue.masks.all()
        reviews = catalogue.masks.reviews([mask.id for mask in masks])
        for moment in {
            *(mask.created_at for mask in masks),
            *(image.created_at for image in images),
            *(review.created_at for review in reviews),
        }:
            found.add(IdentifierKind.MOMENT, moment)
        return found

    def add(self, kind: IdentifierKind, text: str) -> None:
        """Add an identifier, unless it is an ordinary word."""
        text = text.strip()
        runs = tuple(_runs(text))
        if not runs or (text, kind) in self._known:
            return
        self._known.add((text, kind))
        if _plain(text) in self.vocabulary:
            self.words.add(text)
            return
        self.counts[kind] += 1
        joined = "".join(runs)
        if len(joined) < (_SHORTEST_NUMBER if joined.isdigit() else _SHORTEST):
            self._short[_plain(text)].add(kind)
        else:
            self._long[runs].add(kind)
            self._lengths[runs[0]].add(len(runs))

    def find(self, text: str, field_name: str = "") -> Iterator[tuple[IdentifierKind, str]]:
        """Yield the identifiers in a text, as (kind, text of the identifier).

        Args:
            field_name: the name of the field or column; short identifiers are compared with the
                whole value of a field of their kind only.
        """
        runs = _runs(text)
        for position, run in enumerate(runs):
            for length in self._lengths.get(run, ()):
                found = tuple(runs[position : position + length])
                for kind in self._long.get(found, ()):
                    yield kind, " ".join(found)
        if self._short and field_name:
            own_name = field_name.rpartition(".")[2].lower()  # of a field inside others
            for kind in self._short.get(_plain(text), ()):
                if any(part in own_name for part in FIELDS[kind]):
                    yield kind, text.strip()

    def occur_in(self, text: str) -> bool:
        """Return whether a text has any identifier in it."""
        return next(self.find(text), None) is not None


def _vocabulary(workspace: Workspace) -> set[str]:
    """Return texts that images share and releases are made of: an image may be called nevus.png."""
    protocol, catalogue = load_protocol(), workspace.catalogue
    words: Iterable[str | None] = (
        *protocol.class_names,
        *(tone.name for tone in protocol.tones),
        *(state.value for state in State),
        *_shared_diagnoses(catalogue.images.select()),
        *(model.name for model in catalogue.models.all()),
        *(
            "image",
            "images",
            "mask",
            "masks",
            "label",
            "labels",
            "metadata",
            "annotations",
            "classes",
        ),
        *("name", "dataset", "patient", "photograph", "unknown"),
    )
    return {_plain(word) for word in words if word}


def _shared_diagnoses(images: Sequence[Image]) -> set[str]:
    """Return the diagnoses of several patients; that of one may hold the patient's name."""
    patients: dict[str, set[str]] = defaultdict(set)
    for image in images:
        patients[image.diagnosis or ""].add(image.patient or image.content_hash)
    return {diagnosis for diagnosis, having in patients.items() if len(having) > 1}


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold().strip()


def _runs(text: str) -> list[str]:
    return _RUN.findall(unicodedata.normalize("NFC", text).casefold())
