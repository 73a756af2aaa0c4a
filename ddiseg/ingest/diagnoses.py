"""Malignancy from diagnoses: by the codes of public datasets, or as the importing person gives it.

The codes of a dataset count only where every diagnosis in the metadata is one of them, and only
where the metadata has no malignancy of its own. DDI needs no codes: its own table has a
column for it (`ddiseg.ingest.ddi`).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ddiseg.catalogue import FROM_DIAGNOSIS, Details, Image
from ddiseg.errors import InputError
from ddiseg.ingest.matching import Matched
from ddiseg.ingest.metadata import split_option
from ddiseg.outcomes import counted

#: Word in --benign for every diagnosis that --malignant does not name.
REST = "rest"

#: Diagnoses, or files, listed in a line.
LISTED = 8


@dataclass(frozen=True)
class Vocabulary:
    """The diagnosis codes of a dataset, in lower case."""

    name: str
    source: str  #: paper or page that defines them
    malignant: frozenset[str]
    benign: frozenset[str]
    undecided: frozenset[str] = frozenset()  #: codes that stand for both, or for neither

    @property
    def codes(self) -> frozenset[str]:
        return self.malignant | self.benign | self.undecided

    @property
    def verdicts(self) -> dict[str, bool]:
        """Whether malignant, by code; without the undecided."""
        return {code: code in self.malignant for code in self.malignant | self.benign}


VOCABULARIES = (
    # "three skin cancers" and "three skin diseases"; Bowen's disease is counted as SCC.
    Vocabulary(
        "PAD-UFES-20",
        "Pacheco et al., Data in Brief 32 (2020) 106221, https://doi.org/10.1016/j.dib.2020.106221",
        malignant=frozenset({"bcc", "mel", "scc"}),
        benign=frozenset({"ack", "nev", "sek"}),
    ),
    # Also those of ISIC 2018, task 3. akiec is actinic keratosis, which the other two datasets keep
    # apart from cancer, and Bowen's disease, a carcinoma in situ: the code does not say which.
    Vocabulary(
        "HAM10000",
        "Tschandl et al., Scientific Data 5 (2018) 180161, https://doi.org/10.1038/sdata.2018.161",
        malignant=frozenset({"bcc", "mel"}),
        benign=frozenset({"bkl", "df", "nv", "vasc"}),
        undecided=frozenset({"akiec"}),
    ),
    # ak, actinic keratosis, is benign as in PAD-UFES-20: a precursor, no cancer yet. unk is "none of
    # the others".
    Vocabulary(
        "ISIC 2019",
        "https://challenge.isic-archive.com/landing/2019/",
        malignant=frozenset({"bcc", "mel", "scc"}),
        benign=frozenset({"ak", "bkl", "df", "nv", "vasc"}),
        undecided=frozenset({"unk"}),
    ),
)


@dataclass(frozen=True)
class MalignantDiagnoses:
    """The diagnoses that a person gave as malignant and as benign."""

    malignant: tuple[str, ...] = ()
    benign: tuple[str, ...] = ()
    rest_benign: bool = False  #: every diagnosis that `malignant` does not name

    @classmethod
    def parse(cls, malignant: str | None, benign: str | None) -> MalignantDiagnoses:
        """Read --malignant and --benign: diagnoses with commas between; one with a comma in quotes.

        Raises:
            InputError: an option that names nothing, a diagnosis in both, or a rest of nothing.
        """
        bad, good = _names("--malignant", malignant), _names("--benign", benign)
        named = [name for name in good if _plain(name) != REST]
        both = {_plain(name) for name in bad} & {_plain(name) for name in named}
        if both:
            raise InputError(
                f"{', '.join(sorted(both))} is in both --malignant and --benign: keep one of them"
            )
        rest = len(named) < len(good)
        if rest and not bad:
            raise InputError(
                "--benign rest is what --malignant does not name: give --malignant too"
            )
        return cls(bad, tuple(named), rest)

    def __bool__(self) -> bool:
        return bool(self.malignant or self.benign)

    @property
    def named(self) -> dict[str, bool]:
        """Whether malignant, by the plain form of each diagnosis that is named."""
        return {_plain(n): True for n in self.malignant} | {_plain(n): False for n in self.benign}

    @property
    def options(self) -> list[str]:
        """The options that were given."""
        given = {"--malignant": self.malignant, "--benign": self.benign or self.rest_benign}
        return [option for option, value in given.items() if value]


#: Neither option was given.
NONE_NAMED = MalignantDiagnoses()


@dataclass(frozen=True)
class MalignancyLabels:
    """Matched rows with malignancy filled in from their diagnoses."""

    matched: Matched
    by: str | None = None  #: what decided, in words; None where diagnoses decided nothing
    notes: Sequence[str] = field(default_factory=list)

    def summary(self, stored: Iterable[Details | Image]) -> list[str]:
        """Return the line that says how many of the `stored` images are malignant, if any line."""
        if self.by is None:
            return []
        counts: Counter[bool | None] = Counter()
        diagnoses: dict[bool | None, set[str]] = {True: set(), False: set(), None: set()}
        for each in stored:
            counts[each.malignant] += 1
            if each.diagnosis:
                diagnoses[each.malignant].add(each.diagnosis)
        words = {True: "malignant", False: "benign", None: "unknown"}
        parts = [
            f"{counts[verdict]} {word}"
            + f" ({_listed(diagnoses[verdict])})" * bool(diagnoses[verdict])
            for verdict, word in words.items()
        ]
        return [f"malignancy from diagnosis, by {self.by}: {', '.join(parts)}"]


def label_malignancy(matched: Matched, given: MalignantDiagnoses) -> MalignancyLabels:
    """Fill in whether files are malignant from their diagnoses.

    A row's own malignancy counts first, then what `given` names, then the codes of a known dataset,
    if no row has a malignancy of its own and all diagnoses that `given` does not name are codes of that dataset.

    Raises:
        InputError: `given` names diagnoses where no row has one.
    """
    spelled = {_plain(d.diagnosis): d.diagnosis for d in matched.described if d.diagnosis}
    if not spelled:
        if given:
            raise InputError(
                f"{' and '.join(given.options)}: no diagnosis is known; name its column with "
                "--metadata CSV --columns image=COLUMN,diagnosis=COLUMN"
            )
        return MalignancyLabels(matched)
    has_own = any(d.malignant is not None for d in matched.described)
    known = [] if has_own or given.rest_benign else _fitting(spelled.keys() - given.named.keys())
    if not (given or known):
        return MalignancyLabels(matched, notes=[] if has_own else [_unrecognised(spelled.values())])
    verdicts = _verdicts(spelled, given, known)
    by_code = {p: (each, verdicts.get(_code(each))) for p, each in matched.details.items()}
    codes = f"{' and '.join(v.name for v in known)}'s codes"
    # A diagnosis without a verdict has a source too: it takes back what was derived before.
    details = {
        p: replace(
            each,
            malignant=verdict,
            malignant_source=FROM_DIAGNOSIS + (_option(_code(each), given) or codes),
        )
        if each.malignant is None and each.diagnosis is not None
        else each
        for p, (each, verdict) in by_code.items()
    }
    contradicted = [
        p for p, (each, verdict) in by_code.items() if {each.malignant, verdict} == {True, False}
    ]
    return MalignancyLabels(
        replace(matched, details=details),
        ", ".join([*given.options, *([codes] if known else [])]),
        [*_absent(given, spelled), *_contradictions(given, contradicted)],
    )


def _code(details: Details) -> str:
    return _plain(details.diagnosis or "")


def _verdicts(
    diagnoses: Iterable[str], given: MalignantDiagnoses, known: Iterable[Vocabulary]
) -> dict[str, bool]:
    """Return whether malignant, by diagnosis; what a person names overrides known codes."""
    verdicts = dict.fromkeys(diagnoses, False) if given.rest_benign else {}
    for vocabulary in known:
        verdicts |= vocabulary.verdicts
    return verdicts | given.named


def _option(code: str, given: MalignantDiagnoses) -> str | None:
    """The option that says whether a diagnosis is malignant, if one does."""
    verdict = given.named.get(code, False if given.rest_benign else None)
    return None if verdict is None else "--malignant" if verdict else "--benign"


def _fitting(diagnoses: Collection[str]) -> list[Vocabulary]:
    """The datasets that have all of some diagnoses among their codes."""
    return [v for v in VOCABULARIES if diagnoses and v.codes.issuperset(diagnoses)]


def _unrecognised(diagnoses: Collection[str]) -> str:
    return (
        f"malignancy is not known: the diagnoses ({_listed(diagnoses)}) are not all codes of one of "
        f"{', '.join(v.name for v in VOCABULARIES)}; say which are malignant with "
        "--malignant DIAGNOSIS,... and --benign DIAGNOSIS,... (or --benign rest)"
    )


def _absent(given: MalignantDiagnoses, spelled: Mapping[str, str]) -> list[str]:
    present = _listed(spelled.values())
    return [
        f"{option} names {_listed(absent)}, which is no row's diagnosis; the diagnoses are {present}"
        for option, names in (("--malignant", given.malignant), ("--benign", given.benign))
        if (absent := [name for name in names if _plain(name) not in spelled])
    ]


def _contradictions(given: MalignantDiagnoses, paths: Sequence[str]) -> list[str]:
    if not paths:
        return []
    return [
        f"the metadata's own column contradicts {' and '.join(given.options)} for {counted(len(paths), 'file')}; "
        f"the column counts: {_listed(paths)}"
    ]


def _names(option: str, text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    names = dict.fromkeys(n.strip() for n in split_option(option, text) if n.strip())
    if not names:
        raise InputError(f"{option} is empty: name diagnoses, such as {option} BCC,MEL,SCC")
    return tuple(names)


def _plain(diagnosis: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", diagnosis).casefold().split())


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names, key=lambda name: (name.casefold(), name))
    more = len(ordered) - LISTED
    return ", ".join(ordered[:LISTED]) + (f" and {more} more" if more > 0 else "")
