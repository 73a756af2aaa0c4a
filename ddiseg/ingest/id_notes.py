"""Notes on the ids of a dataset that may group its images wrongly."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ddiseg.catalogue import Catalogue, Image
from ddiseg.catalogue.grouping import GroupingRow
from ddiseg.catalogue.identifiers import fold_id, normalise_id
from ddiseg.outcomes import counted

#: Ids named in a note; the number is always given.
LISTED = 3

#: Ids that may be real, but stand for "unknown" in some tables.
_DOUBTFUL = re.compile(r"0+|9{3,}|x{3,}", re.IGNORECASE)

#: What a table program makes of a long number: other ids may have become the same.
_SHORTENED = re.compile(r"[0-9][.,]?[0-9]*E\+?[0-9]+", re.IGNORECASE)


def id_notes(catalogue: Catalogue, dataset: str, imported: Iterable[Image]) -> list[str]:
    """Return notes on ids of imported images that may be one, mean unknown, or belong to other people.

    Args:
        imported: images of an import into this dataset; ids of no such image are left out, so that an
            import of a few images reads the ids of few.
    """
    row = catalogue.images.find_dataset(dataset)
    named = _Ids.of(imported)
    if row is None or not (named.patients or named.lesions):
        return []
    scopes = catalogue.grouping.scopes()
    own = scopes[row.id]
    rows: list[GroupingRow] = []
    others: list[GroupingRow] = []
    for each in catalogue.grouping.rows_spelled_like(named.patients, named.lesions):
        same = scopes[each.dataset_id].patients == own.patients
        (rows if same else others).append(each)
    return [
        *_suspicious("patient", (each.patient for each in rows), named.patients),
        *_suspicious("lesion", (each.lesion for each in rows), named.lesions),
        *([] if own.lesions_per_patient else _lesions_of_several(rows, named.lesions, dataset)),
        *_also_elsewhere(catalogue, row.id, named.patients, others),
    ]


@dataclass(frozen=True)
class _Ids:
    """The ids of some images, normalised."""

    patients: frozenset[str]
    lesions: frozenset[str]

    @classmethod
    def of(cls, images: Iterable[Image]) -> _Ids:
        """Return the ids of images."""
        rows = [(normalise_id(image.patient), normalise_id(image.lesion)) for image in images]
        return cls(
            frozenset(patient for patient, _ in rows if patient is not None),
            frozenset(lesion for _, lesion in rows if lesion is not None),
        )


def _suspicious(what: str, ids: Iterable[str | None], named: Collection[str]) -> Iterator[str]:
    folded = set(map(fold_id, named))
    counts = Counter(i for i in map(normalise_id, ids) if i is not None and fold_id(i) in folded)
    alike: dict[str, list[str]] = defaultdict(list)
    for each in sorted(counts):
        alike[fold_id(each)].append(each)
    clashes = [" and ".join(f"'{i}'" for i in group) for group in alike.values() if len(group) > 1]
    if clashes:
        yield (
            f"{what} ids that differ only in case, width or leading zeros: {_some(clashes)}; they count "
            "as different: if they are the same, correct the metadata and import again"
        )
    counts = Counter({each: n for each, n in counts.items() if each in named})
    for each, n in counts.items():
        if n > 1 and _DOUBTFUL.fullmatch(each):
            yield (
                f"{counted(n, 'image')} of {what} '{each}' count as one group: if that means unknown, "
                "write 'unknown' in the metadata and import again"
            )
    shortened = [
        f"'{each}' ({counted(n, 'image')})"
        for each, n in counts.items()
        if _SHORTENED.fullmatch(each)
    ]
    if shortened:
        yield (
            f"{what} ids that a table program may have shortened, so that several became one: "
            f"{_some(shortened)}; if so, export the metadata again with this column as text"
        )


def _lesions_of_several(
    rows: Sequence[GroupingRow], named: Collection[str], dataset: str
) -> Iterator[str]:
    """Yield a note on lesions that belong to several patients, and join their groups."""
    patients: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        patient, lesion = normalise_id(row.patient), normalise_id(row.lesion)
        if patient is not None and lesion is not None and lesion in named:
            patients[lesion].add(patient)
    several = [
        f"'{lesion}' ({_some(sorted(of))})"
        for lesion, of in sorted(patients.items())
        if len(of) > 1
    ]
    if several:
        yield (
            f"lesion ids that several patients have: {_some(several)}; each joins these patients into one "
            "group: correct the metadata, or, where lesions are numbered for each patient, run 'ddiseg "
            f"datasets set {dataset} --lesion-ids patient'"
        )


def _also_elsewhere(
    catalogue: Catalogue,
    dataset_id: int,
    named: Collection[str],
    others: Sequence[GroupingRow],
) -> Iterator[str]:
    """Yield a note on each other dataset with some of the same patient ids."""
    names = {row.id: row.name for row in catalogue.images.datasets()}
    elsewhere: dict[int, set[str | None]] = defaultdict(set)
    for row in others:
        elsewhere[row.dataset_id].add(normalise_id(row.patient))
    for other, ids in elsewhere.items():
        if shared := ids.intersection(named):
            yield (
                f"{counted(len(shared), 'patient id')} of {names[dataset_id]} also in {names[other]}: they "
                "count as other people; if they are the same, run 'ddiseg datasets set "
                f"{names[dataset_id]} --same-patients-as {names[other]}'"
            )


def _some(shown: Sequence[str]) -> str:
    more = f" and {len(shown) - LISTED} more" if len(shown) > LISTED else ""
    return ", ".join(shown[:LISTED]) + more
