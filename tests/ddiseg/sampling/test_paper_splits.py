"""The paper's own splits: the ids that the project holds, and how a catalogue resolves them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest

from ddiseg.catalogue import Catalogue, NewImage
from ddiseg.errors import InputError
from ddiseg.sampling.paper_splits import draw_presets, preset_names
from tests.wording import Refusal

SDDI = Path(__file__).parents[4] / "shared" / "data" / "sddi" / "ddi_labels"
TRAINING = [f"fedd-2023-{n}" for n in (5, 10, 15, 20)]
SIZES = dict(zip(TRAINING, (30, 60, 90, 120), strict=True)) | {
    "fedd-2023-val": 15,
    "fedd-2023-test": 198,
}
TEST_TONES = {"I-II": 59, "III-IV": 80, "V-VI": 59}


@pytest.fixture(scope="module")
def splits() -> dict[str, Any]:
    data = json.loads(resources.files("fedd.paper").joinpath("splits.json").read_text("utf-8"))
    assert isinstance(data, dict)
    return data


@pytest.fixture
def ddi(catalogue: Catalogue, new_image: Callable[..., NewImage], splits: Any) -> Catalogue:
    """Stand-in rows for the 333 ids; the test images with the tones of the paper."""
    tones = {stem: tone for tone, stems in splits["test_tones"].items() for stem in stems}
    stems = sorted({stem for members in splits["subsets"].values() for stem in members})
    rows = [new_image(int(stem), tone=tones.get(stem, "I-II")) for stem in stems]
    assert len(rows) == 333
    catalogue.images.add(catalogue.images.dataset("DDI").id, rows, "tester")
    return catalogue


def test_splits__sizes_and_source(splits: dict[str, Any]) -> None:
    assert {name: len(set(stems)) for name, stems in splits["subsets"].items()} == SIZES
    assert {name: len(stems) for name, stems in splits["subsets"].items()} == SIZES
    assert {tone: len(stems) for tone, stems in splits["test_tones"].items()} == TEST_TONES
    assert "sDDI" in splits["source"]
    assert preset_names() == list(SIZES)


def test_splits__training_is_nested_and_apart_from_the_rest(splits: dict[str, Any]) -> None:
    subsets = {name: set(stems) for name, stems in splits["subsets"].items()}
    for smaller, larger in pairwise(TRAINING):
        assert subsets[smaller] < subsets[larger]
    for one, other in combinations(["fedd-2023-20", "fedd-2023-val", "fedd-2023-test"], 2):
        assert not subsets[one] & subsets[other]
    by_tone = [set(stems) for stems in splits["test_tones"].values()]
    assert set().union(*by_tone) == subsets["fedd-2023-test"]


def test_splits__are_those_of_the_release(splits: dict[str, Any]) -> None:
    if not SDDI.is_dir():
        pytest.skip("the sDDI release is not beside the project (../shared/data/sddi)")

    def stems(folder: str) -> set[str]:
        return {path.stem for path in (SDDI / folder).glob("*.npy")}

    subsets = {name: set(members) for name, members in splits["subsets"].items()}
    for percent in (5, 10, 15, 20):
        assert subsets[f"fedd-2023-{percent}"] == stems(f"training/{percent}%/train")
        assert subsets["fedd-2023-val"] == stems(f"training/{percent}%/val")
        assert subsets["fedd-2023-test"] > stems(f"training/{percent}%/test")
    for tone, folder in (("I-II", "light"), ("III-IV", "med"), ("V-VI", "dark")):
        assert set(splits["test_tones"][tone]) == stems(f"testing/test_{folder}")


def test_draw_presets__on_all_of_ddi(ddi: Catalogue) -> None:
    drawn = draw_presets(ddi, preset_names(), "tester")
    assert {name: sum(sizes.values()) for name, sizes in drawn.sizes.items()} == SIZES
    assert drawn.sizes["fedd-2023-test"] == TEST_TONES
    assert drawn.notes == drawn.lacking == []
    again = draw_presets(ddi, preset_names(), "tester")
    assert {outcome.value for outcome in again.outcomes.values()} == {"unchanged"}


def test_draw_presets__one_alone(ddi: Catalogue, splits: dict[str, Any]) -> None:
    draw_presets(ddi, ["fedd-2023-val"], "tester")
    assert ddi.subsets.names() == ["fedd-2023-val"]
    names = [image.name for image in ddi.images.select(subset="fedd-2023-val")]
    assert names == [f"{stem}.png" for stem in splits["subsets"]["fedd-2023-val"]]


def test_draw_presets__missing_images(
    catalogue: Catalogue, new_image: Callable[..., NewImage], splits: dict[str, Any]
) -> None:
    stems = splits["subsets"]["fedd-2023-5"]
    rows = [new_image(int(stem)) for stem in stems[2:]]
    catalogue.images.add(catalogue.images.dataset("DDI").id, rows, "tester")
    said = rf"fedd-2023-5: 2 of 30 missing \({stems[0]}, {stems[1]}\): import all of DDI first"
    with pytest.raises(InputError, match=said):
        draw_presets(catalogue, ["fedd-2023-5"], "tester")
    assert catalogue.subsets.names() == []
    drawn = draw_presets(catalogue, ["fedd-2023-5"], "tester", partial=True)
    assert drawn.sizes == {"fedd-2023-5": {"unknown": 28}}
    assert drawn.lacking == [f"fedd-2023-5: 2 of 30 missing ({stems[0]}, {stems[1]})"]


def test_draw_presets__none_there(catalogue: Catalogue, refusal: Refusal) -> None:
    with refusal(InputError):
        draw_presets(catalogue, ["fedd-2023-5"], "tester", partial=True)


@pytest.mark.training
def test_draw_presets__name_of_several_images(
    ddi: Catalogue, new_image: Callable[..., NewImage], splits: dict[str, Any]
) -> None:
    stem = splits["subsets"]["fedd-2023-val"][0]
    other = replace(new_image(999), path=f"{stem}.jpg")
    ddi.images.add(ddi.images.dataset("other").id, [other], "tester")
    with pytest.raises(InputError, match=f"several images are called {stem}"):
        draw_presets(ddi, ["fedd-2023-val"], "tester")


def test_draw_presets__tone_unlike_the_papers_is_said(
    catalogue: Catalogue, new_image: Callable[..., NewImage], splits: dict[str, Any]
) -> None:
    rows = [new_image(int(stem), tone="V-VI") for stem in splits["subsets"]["fedd-2023-test"]]
    catalogue.images.add(catalogue.images.dataset("DDI").id, rows, "tester")
    [note] = draw_presets(catalogue, ["fedd-2023-test"], "tester").notes
    assert note.startswith("139 test images have another tone here than in the paper (")
