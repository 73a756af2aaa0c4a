"""What versions learned from and what masks were drawn over: queries, compared with a walk over all masks."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert

from ddiseg.catalogue import Catalogue, ModelKind, NewModelVersion
from ddiseg.catalogue.provenance import PredictionUnder, UnleakedPrediction
from ddiseg.catalogue.tables import Mask
from ddiseg.sampling.groups import Groups
from tests.ddiseg.rows import digest, new_image, new_mask

IMAGES = 6


class Walk:
    """All masks in memory: what the queries replaced."""

    def __init__(self, masks: Iterable[Mask]) -> None:
        self.masks = {mask.id: mask for mask in masks}
        self._images: dict[str, set[int]] = defaultdict(set)
        for mask in self.masks.values():
            if mask.annotator is not None:
                self._images[mask.content_hash].add(mask.image_id)

    def images_learned(self, hashes: Iterable[str]) -> set[int]:
        return {image_id for each in hashes for image_id in self._images.get(each, ())}

    def prediction_under(self, mask: Mask, versions: Collection[int]) -> PredictionUnder | None:
        ancestor: Mask | None = mask
        while ancestor is not None and ancestor.model_version_id not in versions:
            ancestor = None if ancestor.parent_id is None else self.masks[ancestor.parent_id]
        return None if ancestor is None else PredictionUnder(ancestor.id, ancestor.content_hash)

    def unleaked(self, catalogue: Catalogue) -> dict[int, UnleakedPrediction | None]:
        groups = Groups.read(catalogue)
        learned = {
            v.id: groups.relatives(self.images_learned(v.training_masks))
            for v in catalogue.models.all()
        }
        found: dict[int, UnleakedPrediction | None] = {
            image_id: None for images in learned.values() for image_id in images
        }
        for mask in self.masks.values():
            version = mask.model_version_id
            if version is not None and mask.image_id not in learned[version]:
                found[mask.image_id] = UnleakedPrediction(mask.id, version)
        return found


@contextmanager
def _copy(empty: Path) -> Iterator[Catalogue]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "c.sqlite"
        shutil.copy(empty, path)
        catalogue = Catalogue.open(f"sqlite:///{path}")
        yield catalogue
        catalogue.close()


_PIXELS = st.sampled_from("abcd")
_MASK = st.tuples(
    st.integers(1, IMAGES), st.sampled_from([None, None, "anna", "ben"]), _PIXELS, st.integers(0, 9)
)


@pytest.mark.property
@given(
    patients=st.lists(st.sampled_from(["p", "q", None]), min_size=IMAGES, max_size=IMAGES),
    learned=st.lists(st.lists(_PIXELS, max_size=3), min_size=1, max_size=3),
    masks=st.lists(_MASK, max_size=15),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_provenance__as_a_walk_over_all_masks(
    empty_catalogue: Path,
    patients: list[str | None],
    learned: list[list[str]],
    masks: list[tuple[int, str | None, str, int]],
) -> None:
    with _copy(empty_catalogue) as catalogue:
        dataset = catalogue.images.dataset("clinic")
        rows = [new_image(n, patient=patient) for n, patient in enumerate(patients, 1)]
        catalogue.images.add(dataset.id, rows, "tester")
        for pixels in learned:
            _version(catalogue, *pixels)
        _add(catalogue, masks, len(learned))
        walk, provenance = Walk(catalogue.masks.all()), catalogue.provenance
        versions = catalogue.models.all()
        for version in versions:
            expected = walk.images_learned(version.training_masks)
            assert provenance.images_learned([version.id]) == expected
            assert provenance.images_learned([version.id], among=[1, 2]) == expected & {1, 2}
            assert provenance.predictions_under(walk.masks, version.id) == {
                i: each
                for i, m in walk.masks.items()
                if (each := walk.prediction_under(m, {version.id}))
            }
        assert provenance.predictions_under(walk.masks) == {
            i: each
            for i, m in walk.masks.items()
            if (each := walk.prediction_under(m, {v.id for v in versions}))
        }
        every = [each for version in versions for each in version.training_masks]
        assert provenance.images_learned() == walk.images_learned(every)
        unleaked = walk.unleaked(catalogue)
        assert provenance.unleaked_predictions() == unleaked
        some = {i: each for i, each in unleaked.items() if i <= 3}
        assert provenance.unleaked_predictions([1, 2, 3]) == some


def _version(catalogue: Catalogue, *pixels: str, **columns: Any) -> None:
    hashes = [digest(f"mask {each}") for each in pixels]
    new = NewModelVersion("f", "small", "b", {}, hashes, {}, "1.0", **columns)
    catalogue.models.add(new, "tester")


def _add(
    catalogue: Catalogue, masks: list[tuple[int, str | None, str, int]], versions: int
) -> None:
    """Store masks as they are, each drawn over an earlier one of its image, or over none."""
    known: set[tuple[Any, ...]] = set()
    of_image: dict[int, list[int]] = defaultdict(list)
    with catalogue._database.write() as session:
        for image_id, annotator, pixels, number in masks:
            version = None if annotator else number % versions + 1
            key = (image_id, annotator, pixels) if annotator else (image_id, version)
            if key in known:
                continue
            known.add(key)
            earlier = [None, *of_image[image_id]]
            new = new_mask(
                *(image_id, annotator, pixels),
                model_version_id=version,
                parent_id=earlier[number % len(earlier)],
            )
            (row,) = session.execute(insert(Mask).values(vars(new)).returning(Mask.id)).one()
            of_image[image_id].append(row)


def test_fitted__without_the_validation_split(catalogue: Catalogue) -> None:
    dataset = catalogue.images.dataset("clinic")
    catalogue.images.add(dataset.id, [new_image(n) for n in range(1, 5)], "tester")
    catalogue.masks.submit([new_mask(n, "anna", f"{n}") for n in (1, 2, 3)], reviewer="ben")
    images = {digest(f"image {n}"): {"malignant": True, "validation": n == 4} for n in (3, 4)}
    members = {"images": 1, "by_tone": {}, "members": [digest("image 2")]}
    hashes = [digest(f"mask {n}") for n in (1, 2, 3)]
    probes = NewModelVersion("f", "small", "b", {}, hashes, {"validation": members}, "1.0")
    classifier = NewModelVersion(
        *("g", "b", "h", {}, [], {}, "1.0"), kind=ModelKind.MALIGNANCY, training_images=images
    )
    provenance = catalogue.provenance
    for new, fitted, validated in ((probes, {1, 3}, {2}), (classifier, {3}, {4})):
        version = catalogue.models.add(new, "tester")
        assert provenance.images_fitted(version) == fitted
        assert provenance.images_validated(version) == validated
