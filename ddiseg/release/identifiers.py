"""What in a text identifies a person: names, ids, e-mails and moments of the catalogue.

Texts and identifiers are cut into runs of letters and digits, without accents and case: "Müller",
"Mueller" and "Muller" are one. An identifier is found where its runs follow each other, whatever
stands between them; so `Mueller_Hans_left_arm.png` is found in `Mueller-Hans, left arm`. The runs of a
patient's or a person's name count in any order, and a long one of them alone, unless it is an ordinary
word. One pass over a text looks up each run in a table.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from itertools import chain

from annotation_protocol import load_protocol
from ddiseg.catalogue import State
from ddiseg.catalogue.tables import Dataset
from ddiseg.ingest.diagnoses import VOCABULARIES
from ddiseg.release.own_words import MEDICAL, WORDS
from ddiseg.workspace.pseudonyms import Pseudonyms, people
from ddiseg.workspace.workspace import Workspace

_RUN = re.compile(r"[^\W_]+")
_LETTERS = re.compile(r"[^\W\d_]+")

#: Shorter identifiers are found only as the whole value of a field of their kind: "17" is anywhere.
_SHORTEST, _SHORTEST_NUMBER = 3, 6

#: File names and lesions of one run of letters: "arm" is a word in a text, "kowalski" is not.
_SHORTEST_WORD = 5

#: Letters of a part of a person's or patient's name that is looked for by itself.
_SHORTEST_TOKEN = 5

#: Ids of one word and a number that share their word, such as "ward-1", "ward-2": it is no name.
_SHARED_PREFIX = 3

#: Replaces an identifier in a text that is released.
REMOVED = "[removed]"

#: Letters that Unicode does not take apart.
_PLAIN_LETTERS = str.maketrans(
    {"ø": "o", "æ": "a", "œ": "o", "ł": "l", "đ": "d", "ð": "d", "\u0131": "i"}
)
_UMLAUT = re.compile(r"([aou])e")


class IdentifierKind(StrEnum):
    """Kinds of identifiers."""

    NAME = "name"  #: file name or path of a photograph, with or without its ending
    PATIENT = "patient"
    LESION = "lesion"
    PERSON = "person"  #: who drew, reviewed or skipped; an account's e-mail
    MOMENT = "date"  #: when somebody did something, to the second
    SECRET = "secret"  #: the key of the pseudonyms


#: Parts of the names of fields whose whole value is compared with short identifiers.
FIELDS = {
    IdentifierKind.NAME: ("name", "image", "mask", "file", "path", "stem"),
    IdentifierKind.PATIENT: ("patient", "subject"),
    IdentifierKind.LESION: ("lesion",),
    IdentifierKind.PERSON: ("annotator", "reviewer", "person", "author"),
    IdentifierKind.MOMENT: (),
    IdentifierKind.SECRET: (),
}

#: Fields whose "name" is none of a photograph.
_OTHER_NAMES = ("categories", "licenses", "datasets", "classes", "with_class", "by_tone")


@dataclass(frozen=True)
class Occurrence:
    """An identifier in a text."""

    kind: IdentifierKind
    value: str
    start: int  #: in the text in NFC
    end: int


@dataclass(frozen=True)
class _Run:
    plain: str  #: without case
    folded: str  #: also without accents
    start: int
    end: int


@dataclass
class Identifiers:
    """The identifiers of a catalogue, ready to be looked for."""

    #: ordinary words: an identifier of a kind that is one is found as a whole value only
    vocabulary: set[str] = field(default_factory=set)
    diagnoses: set[str] = field(default_factory=set)  #: also no names of photographs and lesions
    counts: dict[IdentifierKind, int] = field(
        default_factory=lambda: dict.fromkeys(IdentifierKind, 0)
    )
    words: set[str] = field(default_factory=set)  #: names and lesions that are ordinary words
    facts: set[str] = field(default_factory=set)  #: licences and sources, which are public
    _long: dict[tuple[str, ...], set[IdentifierKind]] = field(
        default_factory=lambda: defaultdict(set)
    )
    #: by the runs in order of the alphabet, since a person's name may begin with either
    _names: dict[tuple[str, ...], set[IdentifierKind]] = field(
        default_factory=lambda: defaultdict(set)
    )
    _tokens: dict[str, set[IdentifierKind]] = field(default_factory=lambda: defaultdict(set))
    #: numbers of runs of the identifiers that begin with a run
    _lengths: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    _short: dict[str, set[IdentifierKind]] = field(default_factory=lambda: defaultdict(set))
    _known: set[tuple[str, IdentifierKind]] = field(default_factory=set)
    #: folded runs of the texts that are searched; others are in none of them. None: any text
    _within: set[str] | None = None

    @classmethod
    def of(cls, workspace: Workspace) -> Identifiers:
        """Return those of a workspace's whole catalogue."""
        return cls._read(workspace, None)

    @classmethod
    def within(cls, workspace: Workspace, texts: Iterable[str]) -> Identifiers:
        """Return those that may be found in some texts, without a field name: few, however many there are."""
        runs = {run for text in texts for run in _runs(_nfc(text))}
        letters = {part for run in runs for part in _LETTERS.findall(run.plain)}
        return cls._read(workspace, {run.folded for run in runs} | set(map(_folded, letters)))

    @classmethod
    def _read(cls, workspace: Workspace, runs: set[str] | None) -> Identifiers:
        catalogue = workspace.catalogue
        identities = catalogue.identities
        found = cls(
            vocabulary=_vocabulary(workspace),
            diagnoses=_diagnoses(identities.diagnoses()),
            facts=_public_facts(catalogue.images.datasets()),
            _within=runs,
        )
        for path in identities.paths():
            for text in {path, path.rsplit("/", 1)[-1]}:
                found.add(IdentifierKind.NAME, text)
                found.add(IdentifierKind.NAME, text.rpartition(".")[0])
        patients: set[str] = set()
        for image in identities.images():
            found.add(IdentifierKind.NAME, image.name)
            found.add(IdentifierKind.NAME, image.name.rpartition(".")[0])
            found.add(IdentifierKind.PATIENT, image.patient or "")
            found.add(IdentifierKind.LESION, image.lesion or "")
            found.add(IdentifierKind.MOMENT, image.created_at)
            patients.add(image.patient or "")
        people_there = people(workspace)
        for person in people_there:
            found.add(IdentifierKind.PERSON, person)
        found.add_tokens(IdentifierKind.PATIENT, patients)
        found.add_tokens(IdentifierKind.PERSON, people_there)
        for moment in identities.moments():
            found.add(IdentifierKind.MOMENT, moment)
        if pseudonyms := Pseudonyms.existing(workspace):
            found.add(IdentifierKind.SECRET, pseudonyms.key.hex())
        return found

    def add(self, kind: IdentifierKind, text: str) -> None:
        """Add an identifier; an ordinary word is found only as the whole value of a field of its kind."""
        text = text.strip()
        if self._within is not None and _first_run(text) not in self._within:
            return
        runs = tuple(run.folded for run in _runs(text))
        if not runs or (text, kind) in self._known:
            return
        if self._within is not None and not self._within.issuperset(runs):
            return
        self._known.add((text, kind))
        of_photograph = kind in (IdentifierKind.NAME, IdentifierKind.LESION)
        ordinary = of_photograph and self._is_ordinary(runs)
        if ordinary and not any(map(str.isdigit, runs)):
            self.words.add(text)
            return
        self.counts[kind] += 1
        is_word = ordinary or " ".join(runs) in self.vocabulary
        if is_word or self._is_short(runs, of_photograph):
            self._short[_plain(text)].add(kind)
            return
        if kind in (IdentifierKind.PATIENT, IdentifierKind.PERSON) and len(runs) > 1:
            self._names[tuple(sorted(runs))].add(kind)
            for run in runs:
                self._lengths[run].add(len(runs))
        else:
            self._long[runs].add(kind)
            self._lengths[runs[0]].add(len(runs))

    def add_tokens(self, kind: IdentifierKind, names: Iterable[str]) -> None:
        """Add the long parts of names, each to be found by itself; of an e-mail without its domain."""
        parts = [_LETTERS.findall(_nfc(name).partition("@")[0].casefold()) for name in names]
        alone = Counter(_folded(only[0]) for each in parts if len(only := each) == 1)
        for each in parts:
            for token in each:
                folded = _folded(token)
                is_prefix = len(each) == 1 and alone[folded] >= _SHARED_PREFIX
                is_word = folded in self.vocabulary
                is_far = self._within is not None and folded not in self._within
                if len(token) >= _SHORTEST_TOKEN and not (is_prefix or is_word or is_far):
                    self._tokens[folded].add(kind)

    def find(self, text: str, field_name: str = "") -> Iterator[Occurrence]:
        """Yield the identifiers in a text.

        Args:
            field_name: the name of the field or column, with those it lies in before it; short
                identifiers are compared with the whole value of a field of their kind only.
        """
        runs = _runs(_nfc(text))
        covered = 0
        for position, run in enumerate(runs):
            for length in sorted(self._lengths.get(run.folded, ()), reverse=True):
                found = runs[position : position + length]
                if len(found) < length:
                    continue
                folded = tuple(each.folded for each in found)
                kinds = (self._long.get(folded), self._names.get(tuple(sorted(folded))))
                for kind in set(chain(*filter(None, kinds))):
                    covered = max(covered, found[-1].end)
                    value = " ".join(each.plain for each in found)
                    yield Occurrence(kind, value, run.start, found[-1].end)
            if run.start >= covered:
                yield from self._find_tokens(run)
        if self._short and field_name:
            *outside, own_name = field_name.lower().split(".")
            for kind in self._short.get(_plain(text), ()):
                other = kind is IdentifierKind.NAME and set(outside) & set(_OTHER_NAMES)
                if not other and any(part in own_name for part in FIELDS[kind]):
                    yield Occurrence(kind, text.strip(), 0, len(text))

    def without(self, text: str) -> tuple[str | None, list[Occurrence]]:
        """Return a text with its identifiers replaced, None where nothing else is in it, and these."""
        found = list(self.find(text))
        if not found:
            return text, []
        pieces, at, whole = [], 0, _nfc(text)
        for each in sorted(found, key=lambda each: (each.start, -each.end)):
            if each.end > at:
                pieces += [whole[at : each.start], *([REMOVED] if each.start >= at else [])]
                at = each.end
        pieces.append(whole[at:])
        rest = "".join(piece for piece in pieces if piece != REMOVED)
        return ("".join(pieces) if _runs(rest) else None), found

    def _find_tokens(self, run: _Run) -> Iterator[Occurrence]:
        for part in (
            [run.folded] if run.folded.isalpha() else map(_folded, _LETTERS.findall(run.plain))
        ):
            for kind in self._tokens.get(part, ()):
                yield Occurrence(kind, run.plain, run.start, run.end)

    def _is_ordinary(self, runs: Sequence[str]) -> bool:
        """Return whether runs are words of the trade, with a small number perhaps, or a diagnosis."""
        joined = " ".join(runs)
        if any(run.isdigit() and len(run) > 4 for run in runs) or joined.isdigit():
            return False
        if joined in self.diagnoses or joined in self.vocabulary:
            return True
        return all(run in _TRADE or run.isdigit() for run in runs)

    @staticmethod
    def _is_short(runs: Sequence[str], of_photograph: bool) -> bool:
        joined = "".join(runs)
        if joined.isdigit():
            return len(joined) < _SHORTEST_NUMBER
        word = of_photograph and len(runs) == 1 and joined.isalpha()
        return len(joined) < (_SHORTEST_WORD if word else _SHORTEST)


#: Codes and words of diagnoses.
_TRADE = MEDICAL.union(*(vocabulary.codes for vocabulary in VOCABULARIES))


def _vocabulary(workspace: Workspace) -> set[str]:
    """Return texts that releases are made of, and codes of diagnoses: an image may be called nevus.png."""
    protocol, catalogue = load_protocol(), workspace.catalogue
    words: Iterable[str] = (
        *WORDS,
        *protocol.class_names,
        *(tone.name for tone in protocol.tones),
        *(state.value for state in State),
        *catalogue.models.names().values(),
        *(code for vocabulary in VOCABULARIES for code in vocabulary.codes),
    )
    return {" ".join(run.folded for run in _runs(word)) for word in words}


def _diagnoses(spelled: Iterable[str]) -> set[str]:
    """Return diagnoses as they are looked up."""
    return {" ".join(run.folded for run in _runs(diagnosis)) for diagnosis in spelled}


def _public_facts(datasets: Iterable[Dataset]) -> set[str]:
    """Return the licences and sources of datasets, and their lines, as a text file has them."""
    facts = [fact for each in datasets for fact in (each.licence, each.source) if fact]
    return {part.strip() for fact in facts for part in (fact, *fact.splitlines()) if part.strip()}


def _plain(text: str) -> str:
    return _nfc(text).casefold().strip()


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


@lru_cache(maxsize=1 << 16)
def _folded(run: str) -> str:
    """Return a run without case and accents; ae, oe and ue count as the umlauts that they may stand for."""
    parts = unicodedata.normalize("NFKD", run.casefold().translate(_PLAIN_LETTERS))
    return _UMLAUT.sub(r"\1", "".join(c for c in parts if not unicodedata.combining(c)))


def _runs(text: str) -> list[_Run]:
    return [
        _Run(plain := match.group().casefold(), _folded(plain), match.start(), match.end())
        for match in _RUN.finditer(_nfc(text))
    ]


def _first_run(text: str) -> str | None:
    """Return the first run of a text, folded; None without one."""
    found = _RUN.search(text if text.isascii() else _nfc(text))
    if found is None:
        return None
    run = found.group().casefold()
    return _UMLAUT.sub(r"\1", run) if run.isascii() else _folded(run)
