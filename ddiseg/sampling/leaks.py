"""Leaks: sets of images that must share no group, and do, since ids were corrected after they were made.

A hold-out set, subset or validation split never changes, but the patients and lesions of its images
may. What leaks is left out of every figure, and nothing is deleted: with the ids corrected again, it
counts again. A person settles a leak for good: `ddiseg verify --repair` excludes hold-out images,
`ddiseg subset retire` retires a subset, and another training has another validation split.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.sql.selectable import Subquery

from ddiseg.catalogue import Catalogue, ModelKind, Split
from ddiseg.catalogue.provenance import images_fitted, images_validated
from ddiseg.catalogue.splits import images_in
from ddiseg.catalogue.subsets import RETIRED, members_of
from ddiseg.catalogue.tables import ModelVersion
from ddiseg.outcomes import counted


@dataclass(frozen=True)
class Leak:
    """The images of a set that share a group with another set, which must be apart from it."""

    of: str  #: such as "the hold-out set"
    other: str  #: such as "the training split"
    images: frozenset[int]  #: ids of the images of the first set
    size: int  #: images in the first set
    remedy: str  #: what becomes of it, and what to do next
    of_holdout: bool = False  #: the first set is the hold-out set

    @property
    def brief(self) -> str:
        """Return what leaks: "the hold-out set (9 of 9 images, with the training split)"."""
        return f"{self.of} ({len(self.images)} of {counted(self.size, 'image')}, with {self.other})"

    @property
    def line(self) -> str:
        """Return what leaks, where, and what to do next."""
        share = "shares" if len(self.images) == 1 else "share"
        return (
            f"{self.of}: {len(self.images)} of {counted(self.size, 'image')} {share} a group (patient, "
            f"lesion, near-duplicates) with {self.other}; {self.remedy}"
        )


def find_leaks(catalogue: Catalogue, among: Collection[int] | None = None) -> list[Leak]:
    """Return the leaks of a catalogue: hold-out set, subsets, validation splits of current models.

    Args:
        among: ids of images; no others are looked at.
    """
    leaks = []
    for each in _sets_apart(catalogue):
        images = each.images
        if among is not None:
            images = select(images.c.image_id).where(images.c.image_id.in_(among)).subquery()
        leaked, size = catalogue.grouping.leaking(images, each.others)
        if leaked:
            leaks.append(
                Leak(each.of, each.other, frozenset(leaked), size, each.remedy, each.of_holdout)
            )
    return leaks


def new_leaks(before: Collection[Leak], after: Collection[Leak]) -> list[Leak]:
    """Return the leaks that were not there before, or have more images now."""
    known = {(leak.of, leak.other): leak.images for leak in before}
    return [leak for leak in after if leak.images - known.get((leak.of, leak.other), frozenset())]


@dataclass(frozen=True)
class LeakedSince:
    """Images behind the stored estimates of a version that turned out to leak after it was trained."""

    holdout: int  #: compared by its gate
    validation: int
    evaluation: int  #: of the last evaluation, with this version's predictions


def leaked_since(catalogue: Catalogue, version: ModelVersion) -> LeakedSince:
    """Return how many images of a version's stored estimates share a group with what it learned from."""
    holdout = _compared_by_gate(catalogue, version)
    evaluated = _evaluated(catalogue).get(version.id, set())
    fitted = catalogue.provenance.images_fitted(version)
    validated = catalogue.provenance.images_validated(version)
    if not (holdout or validated or evaluated):
        return LeakedSince(0, 0, 0)
    every = fitted | validated
    sharing = catalogue.grouping.sharing
    return LeakedSince(
        holdout=len(sharing(holdout, every - holdout)),
        validation=len(sharing(validated, fitted)),
        evaluation=len(sharing(evaluated, every - evaluated)),
    )


def _compared_by_gate(catalogue: Catalogue, version: ModelVersion) -> set[int]:
    """Return the ids of the hold-out images that a version's gate compared.

    Where an older program did not record them: the whole hold-out set at that time.
    """
    decision = version.decision
    if decision is None or not decision.holdout.images:
        return set()
    if not decision.holdout.members:
        return catalogue.splits.holdout_at(version.created_at)
    return catalogue.images.ids_of(decision.holdout.members)


def leaked_in_last_evaluation(catalogue: Catalogue) -> int:
    """Return how many images of the last evaluation share a group with what their model learned from."""
    learned, sharing = catalogue.provenance.images_learned, catalogue.grouping.sharing
    return sum(len(sharing(ids, learned([v]) - ids)) for v, ids in _evaluated(catalogue).items())


def _evaluated(catalogue: Catalogue) -> dict[int, set[int]]:
    """Return the ids of the images that the last evaluation compared, by the version that predicted them."""
    compared = catalogue.evaluations.last_compared()
    predictions = catalogue.masks.get([each.mask_id for each in compared.values()])
    found: dict[int, set[int]] = {}
    for image_id, each in compared.items():
        version = predictions[each.mask_id].model_version_id
        if version is not None:
            found.setdefault(version, set()).add(image_id)
    return found


@dataclass(frozen=True)
class _SetsApart:
    """Two sets of images that must share no group."""

    of: str
    images: Subquery  #: of image ids
    other: str
    others: Subquery  #: of image ids
    remedy: str
    of_holdout: bool = False


def _sets_apart(catalogue: Catalogue) -> Iterator[_SetsApart]:
    yield _SetsApart(
        "the hold-out set",
        images_in(Split.HOLDOUT),
        "the training split",
        images_in(Split.TRAINING),
        "the gate and evaluations leave them out; correct the ids if they are wrong, or exclude these "
        "images from training and comparison with 'ddiseg verify --repair'",
        of_holdout=True,
    )
    subsets = {subset.name: subset for subset in catalogue.subsets.all()}
    in_use = {name for name, subset in subsets.items() if not subset.drawn_by.get(RETIRED)}
    for name in sorted(in_use):
        for other in subsets[name].drawn_by.get("apart_from", ()):
            if other in in_use:
                yield _SetsApart(
                    f"subset {name}",
                    members_of(subsets[name]),
                    f"subset {other}",
                    members_of(subsets[other]),
                    f"test nothing on {name} that learned from {other}: draw another in its place ('ddiseg "
                    f"subset draw NEW --disjoint-from {other} ...'), then 'ddiseg subset retire {name}'",
                )
    for kind in ModelKind:
        if version := catalogue.models.current_or_none(kind):
            again = (
                "ddiseg refresh" if kind is ModelKind.SEGMENTATION else "ddiseg malignancy train"
            )
            yield _SetsApart(
                f"the validation split of {version.name}",
                images_validated(version.id),
                "the images that it was fitted to",
                images_fitted(version),
                f"its validation estimates are too optimistic: train again ('{again}')",
            )
