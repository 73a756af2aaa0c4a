"""Images: added, found, corrected, skipped, reopened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ddiseg.catalogue import Catalogue, Details, State, malignancy_kept
from ddiseg.errors import DdisegError, InputError, NotFoundError, TransitionError
from ddiseg.outcomes import FileOutcome, Outcome
from tests.ddiseg.rows import new_image, new_mask
from tests.wording import Refusal

pytestmark = pytest.mark.both_databases

Add = Callable[..., list[FileOutcome]]


@pytest.fixture
def add(catalogue: Catalogue) -> Add:
    """add(new_image(1), ...): their outcomes in the dataset "clinic", which is #1."""
    dataset = catalogue.images.dataset("clinic")
    return lambda *batch: catalogue.images.add(dataset.id, batch, "tester")


def test_dataset__licence_is_filled_in_and_never_removed(catalogue: Catalogue) -> None:
    catalogue.images.dataset("clinic", licence="CC0")
    catalogue.images.dataset("clinic", source="https://example.org")
    [row] = catalogue.images.datasets()
    assert (row.licence, row.source) == ("CC0", "https://example.org")


def test_add__new_then_unchanged(add: Add, catalogue: Catalogue) -> None:
    batch = [new_image(1, tone="I-II"), new_image(2)]
    assert [o.outcome for o in add(*batch)] == [Outcome.ADDED] * 2
    events = catalogue.events.count()
    assert [o.outcome for o in add(*batch)] == [Outcome.UNCHANGED] * 2
    assert catalogue.events.count() == events
    assert catalogue.images.counts() == {("I-II", "new"): 1, ("unknown", "new"): 1}


def test_add__exact_duplicate_is_one_image_with_two_sources(add: Add, catalogue: Catalogue) -> None:
    first = new_image(1)
    [_, second] = add(first, replace(first, path="copies/again.png"))
    assert second == FileOutcome(
        "copies/again.png",
        Outcome.ADDED,
        "the same photograph as 000001.png (#1): one image, two names",
    )
    [image] = catalogue.images.select()
    assert [s.path for s in catalogue.images.sources(image.id)] == [
        "000001.png",
        "copies/again.png",
    ]
    assert catalogue.images.by_stem() == {"000001": {1}, "again": {1}}
    assert [e.kind for e in catalogue.events.of_image(1)] == ["import", "duplicate"]


def test_add__other_content_under_the_same_name_is_refused(add: Add, catalogue: Catalogue) -> None:
    add(new_image(1))
    [refused] = add(replace(new_image(2), path="000001.png"))
    assert refused.outcome is Outcome.REFUSED
    assert refused.note is not None
    assert "nothing is overwritten" in refused.note
    [image] = catalogue.images.select()
    assert image.content_hash == new_image(1).content_hash


def test_add__file_rewritten_with_the_same_pixels_is_unchanged(
    add: Add, catalogue: Catalogue
) -> None:
    add(new_image(1))
    touched = replace(new_image(1), modified_ns=5, file_hash="e" * 64)
    assert [o.outcome for o in add(touched)] == [Outcome.UNCHANGED]
    known = catalogue.images.known_sources(1, ["000001.png"])["000001.png"]
    assert (known.modified_ns, known.file_hash) == (5, "e" * 64)


def test_add__bad_row_leaves_nothing_of_its_batch(add: Add, catalogue: Catalogue) -> None:
    with pytest.raises(Exception, match="ck_images_tone"):
        add(new_image(1), new_image(2, tone="VII"))
    assert catalogue.images.select() == []
    assert catalogue.events.count() == 0


@pytest.mark.parametrize(
    "reference", ["000002.png", "000002", "#2", "clinic:000002.png", "clinic:000002"]
)
def test_find(add: Add, catalogue: Catalogue, reference: str) -> None:
    add(*[new_image(n) for n in range(1, 13)])
    assert catalogue.images.find(reference).id == 2


@pytest.mark.parametrize(
    "reference", ["2", "#99", "#", "00000_", "%", "other:000002.png", "clinic:", "", "0000"]
)
def test_find__none(add: Add, catalogue: Catalogue, reference: str, refusal: Refusal) -> None:
    add(*[new_image(n) for n in range(1, 13)])
    with refusal(NotFoundError):
        catalogue.images.find(reference)


def test_find__ambiguous_until_the_dataset_is_named(
    add: Add, catalogue: Catalogue, refusal: Refusal
) -> None:
    other = catalogue.images.dataset("other").id
    add(new_image(1))
    catalogue.images.add(other, [replace(new_image(2), path="000001.png")], "tester")
    with refusal(InputError):
        catalogue.images.find("000001.png")
    assert catalogue.images.find("other:000001.png").id == 2


def test_find__an_exact_name_wins_over_a_stem(add: Add, catalogue: Catalogue) -> None:
    add(
        replace(new_image(1), path="a"),
        replace(new_image(2), path="a.png"),
        replace(new_image(3), path="b.jpg"),
        replace(new_image(4), path="b.png"),
    )
    assert catalogue.images.find("a").id == 1
    with pytest.raises(InputError, match="2 images"):
        catalogue.images.find("b")


def test_update_details__what_the_metadata_says(add: Add, catalogue: Catalogue) -> None:
    add(new_image(1, tone="I-II", malignant=True))
    same = Details(tone="I-II")
    other = Details(tone="V-VI", tone_source="new.csv", malignant=False)
    assert catalogue.images.differing([1], [same]) == [{}]
    assert catalogue.images.update_details([1], [same], "tester") == [{}]
    [differences] = catalogue.images.differing([1], [other])
    assert differences["malignant"] == [True, False]
    assert catalogue.images.update_details([1], [other], "tester") == [
        {"tone": ["I-II", "V-VI"], "tone_source": [None, "new.csv"], "malignant": [True, False]}
    ]
    assert catalogue.images.update_details([1], [other], "tester") == [{}]
    image = catalogue.images.find("#1")
    assert (image.tone, image.tone_source, image.malignant) == ("V-VI", "new.csv", False)
    assert catalogue.events.of_image(1)[-1].detail["tone"] == ["I-II", "V-VI"]


def test_update_details__silence_removes_nothing(add: Add, catalogue: Catalogue) -> None:
    add(new_image(1, tone="I-II", patient="p", malignant=False))
    assert catalogue.images.update_details([1], [Details()], "tester") == [{}]
    image = catalogue.images.find("#1")
    assert (image.tone, image.patient, image.malignant) == ("I-II", "p", False)


def test_select__conditions_hold_together(add: Add, catalogue: Catalogue, refusal: Refusal) -> None:
    add(*[new_image(n) for n in range(1, 6)])
    catalogue.images.skip(2, "blurry", None, "anna")
    catalogue.subsets.store({"part": [1, 2, 3]}, {}, "tester")
    select = catalogue.images.select
    assert [i.id for i in select(subset="part")] == [1, 2, 3]
    assert [i.id for i in select(subset="part", states=[State.NEW])] == [1, 3]
    assert [i.id for i in select(states=[State.NEW], ids=[5, 2])] == [5]
    with refusal(NotFoundError):
        select(subset="prat")


@pytest.mark.slow
def test_skip_and_reopen(add: Add, catalogue: Catalogue) -> None:
    add(new_image(1))
    assert catalogue.images.skip(1, "blurry", "out of focus", "anna") is Outcome.ADDED
    assert catalogue.images.skip(1, "blurry", "out of focus", "anna") is Outcome.UNCHANGED
    [skip] = catalogue.images.skips(1)
    assert (skip.reason, skip.note, skip.annotator) == ("blurry", "out of focus", "anna")
    catalogue.images.reopen(1, "ben")
    assert catalogue.images.skips() == []
    assert catalogue.images.find("#1").state == "queued"
    assert catalogue.images.skip(1, "blurry", "out of focus", "anna") is Outcome.ADDED
    assert len(catalogue.images.skips()) == 1
    assert catalogue.events.contradictions() == []


def test_skip__a_reason_that_is_given_later_replaces_the_first(
    add: Add, catalogue: Catalogue
) -> None:
    add(new_image(1))
    catalogue.images.skip(1, "missing", None, "anna")
    assert catalogue.images.skip(1, "scalp", "she said", "ben") is Outcome.ADDED
    [skip] = catalogue.images.skips(1)
    assert (skip.reason, skip.note, skip.annotator) == ("scalp", "she said", "ben")
    assert [e.detail.get("reason") for e in catalogue.events.of_image(1)] == [
        None,
        "missing",
        "scalp",
    ]
    assert catalogue.events.contradictions() == []


def test_skip__accepted_image_is_refused(add: Add, catalogue: Catalogue, refusal: Refusal) -> None:
    add(new_image(1))
    catalogue.masks.submit([new_mask(1, "anna")], reviewer="ben")
    with refusal(TransitionError):
        catalogue.images.skip(1, "scalp", None, "anna")
    assert catalogue.images.skips() == []


def test_reopen__accepted_image_loses_its_acceptance_and_keeps_its_mask(
    add: Add, catalogue: Catalogue
) -> None:
    add(new_image(1))
    catalogue.masks.submit([new_mask(1, "anna")], reviewer="ben")
    catalogue.images.reopen(1, "carl")
    assert catalogue.masks.accepted() == {}
    assert len(catalogue.masks.of_image(1)) == 1
    assert catalogue.images.find("#1").state == "rework"
    assert catalogue.events.contradictions() == []


def test_refused_step__changes_nothing(add: Add, catalogue: Catalogue) -> None:
    add(new_image(1))
    before = catalogue.events.count()
    with pytest.raises(DdisegError):
        catalogue.images.reopen(1, "ben")
    assert catalogue.events.count() == before
    assert catalogue.images.find("#1").state == "new"


def test_dataset__synthetic_or_not_is_said_of_all_its_images(
    catalogue: Catalogue, refusal: Refusal
) -> None:
    assert catalogue.images.dataset("clinic", "CC0, rendered").synthetic is False
    phantoms = catalogue.images.dataset("phantoms")
    assert catalogue.images.dataset("phantoms", synthetic=True).synthetic is True, "still empty"
    catalogue.images.add(phantoms.id, [new_image(1)], "tester")
    assert catalogue.images.dataset("phantoms", synthetic=True).synthetic is True
    with refusal(InputError):
        catalogue.images.dataset("phantoms", "another licence")
    clinic = catalogue.images.dataset("clinic")
    catalogue.images.add(clinic.id, [new_image(2)], "tester")
    with refusal(InputError):
        catalogue.images.dataset("clinic", "another licence", synthetic=True)
    stored = {d.name: (d.licence, d.synthetic) for d in catalogue.images.datasets()}
    assert stored == {"clinic": ("CC0, rendered", False), "phantoms": (None, True)}


def derived(malignant: bool | None, diagnosis: str) -> Details:
    return Details(
        malignant=malignant, malignant_source="diagnosis: --malignant", diagnosis=diagnosis
    )


@pytest.mark.parametrize(
    ("stored", "new", "malignant", "kept"),
    [
        (derived(True, "mel"), derived(False, "nv"), False, False),
        (derived(True, "mel"), derived(None, "mel"), None, False),
        (derived(True, "mel"), Details(patient="p"), True, False),
        (derived(True, "mel"), Details(diagnosis="mel"), True, False),
        (derived(True, "mel"), Details(diagnosis="eczema"), None, False),
        (derived(None, "mel"), Details(diagnosis="mel"), None, False),
        (derived(True, "mel"), Details(malignant=False, malignant_source="m.csv: b"), False, False),
        (Details(malignant=True, malignant_source="m.csv: b"), derived(False, "nv"), True, True),
        (Details(malignant=True, malignant_source="m.csv: b"), derived(None, "nv"), True, True),
        (Details(malignant=True), derived(False, "nv"), True, True),
        (Details(malignant=True), derived(True, "mel"), True, False),
        (Details(malignant=True), Details(malignant=False), False, False),
        (Details(), derived(True, "mel"), True, False),
    ],
)
def test_update_details__malignancy_goes_with_its_origin(
    add: Add,
    catalogue: Catalogue,
    stored: Details,
    new: Details,
    malignant: bool | None,
    kept: bool,
) -> None:
    add(replace(new_image(1), details=stored))
    assert malignancy_kept(catalogue.images.find("#1"), new) is kept
    expected = catalogue.images.differing([1], [new])[0].get("malignant")
    assert expected == (None if malignant == stored.malignant else [stored.malignant, malignant])
    catalogue.images.update_details([1], [new], "tester")
    image = catalogue.images.find("#1")
    changed = malignant != stored.malignant
    assert image.malignant is malignant
    by = (new if changed else stored).malignant_source
    assert image.malignant_source == (None if malignant is None else by)
