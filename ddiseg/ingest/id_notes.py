"""Notes on the ids of a dataset that may group its images wrongly."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from ddiseg.catalogue import Catalogue
from ddiseg.catalogue.grouping import GroupingRow
from ddiseg.catalogue.identifiers import fold_id, normalise_id
from ddiseg.outcomes import counted

#: Ids named in a note; the number is always given.
LISTED = 3

#: Ids that may be real, but stand for "unknown" in some tables.
_DOUBTFUL = re.compile(r"0+|9{3,}|x{3,}", re.IGNORECASE)

#: What a table program makes of a long number: other ids may have become the same.
_SHORTENED = re.compile(r"[0-9][.,]?[0-9]*E\+?[0-9]+", re.IGNORECASE)


def id_notes(catalogue: Catalogue, dataset: str) -> list[str]:
    """Return notes on ids of a dataset that may be one, mean unknown, or belong to other people."""
    row = catalogue.images.find_dataset(dataset)
    if row is None:
        return []
    scopes = catalogue.grouping.scopes()
    own = scopes[row.id]
    rows: list[GroupingRow] = []
    others: list[GroupingRow] = []
    for each in catalogue.grouping.rows():
        same = scopes[each.dataset_id].patients == own.patients
        (rows if same else others).append(each)
    return [
        *_suspicious("patient", (each.patient for each in rows)),
        *_suspicious("lesion", (each.lesion for each in rows)),
        *([] if own.lesions_per_patient else _lesions_of_several(rows, dataset)),
        *_also_elsewhere(catalogue, row.id, rows, others),
    ]


def _suspicious(what: str, ids: Iterable[str | None]) -> Iterator[str]:
    counts = Counter(i for i in map(normalise_id, ids) if i is not None)
    alike: dict[str, list[str]] = defaultdict(list)
    for each in sorted(counts):
        alike[fold_id(each)].append(each)
    clashes = [" and ".join(f"'{i}'" for i in group) for group in alike.values() if len(group) > 1]
    if clashes:
        yield (
            f"{what} ids that differ only in case, width or leading zeros: {_some(clashes)}; they count "
            "as different: if they are the same, correct the metadata and import again"
        )
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


def _lesions_of_several(rows: Sequence[GroupingRow], dataset: str) -> Iterator[str]:
    """Yield a note on lesions that belong to several patients, and join their groups."""
    patients: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        patient, lesion = normalise_id(row.patient), normalise_id(row.lesion)
        if patient is not None and lesion is not None:
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
    rows: Sequence[GroupingRow],
    others: Sequence[GroupingRow],
) -> Iterator[str]:
    """Yield a note on each other dataset with some of the same patient ids."""
    names = {row.id: row.name for row in catalogue.images.datasets()}
    own = {normalise_id(row.patient) for row in rows if row.dataset_id == dataset_id} - {None}
    elsewhere: dict[int, set[str | None]] = defaultdict(set)
    for row in others:
        elsewhere[row.dataset_id].add(normalise_id(row.patient))
    for other, ids in elsewhere.items():
        if shared := own & ids:
            yield (
                f"{counted(len(shared), 'patient id')} of {names[dataset_id]} also in {names[other]}: they "
                "count as other people; if they are the same, run 'ddiseg datasets set "
                f"{names[dataset_id]} --same-patients-as {names[other]}'"
            )


def _some(shown: Sequence[str]) -> str:
    more = f" and {len(shown) - LISTED} more" if len(shown) > LISTED else ""
    return ", ".join(shown[:LISTED]) + more
