"""`ddiseg subset draw`, `list` and `show`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.rows import new_image

Run = Callable[..., Any]


@pytest.fixture
def here(ddiseg: Run, workspace: Workspace) -> Run:
    """here("list"): `ddiseg subset list` in a workspace with 20 images of each tone."""
    rows = [
        new_image(n, tone=("I-II", "III-IV", "V-VI")[n % 3], malignant=n % 2 == 0)
        for n in range(60)
    ]
    dataset = workspace.catalogue.images.dataset("clinic")
    workspace.catalogue.images.add(dataset.id, rows, "tester")
    return lambda *args: ddiseg("--workspace", workspace.root, "subset", *args)


def test_draw__nested_sizes_then_unchanged(here: Run, wording: SnapshotAssertion) -> None:
    args = ("draw", "train", "--per-tone", "8, 4", "--balance", "malignant", "--seed", "3")
    assert here(*args).out.splitlines() == wording
    data = here(*args, "--output", "json").json
    assert data["subsets"]["train-4"] == {
        "outcome": "unchanged",
        "n": 12,
        "by_tone": {"I-II": 4, "III-IV": 4, "V-VI": 4},
    }
    assert data["notes"] == data["lacking"] == []


@pytest.mark.training
def test_draw__says_what_is_lacking(here: Run) -> None:
    result = here("draw", "many", "--per-tone", "25")
    assert result.status == 0
    assert "  lacking  V-VI: 20 of the 25 wanted" in result.out.splitlines()
    strict = here("draw", "more", "--per-tone", "25", "--strict", "--disjoint-from", "many")
    assert (strict.status, strict.out) == (1, "")
    assert "--strict: nothing was drawn; I-II: 0 of the 25 wanted" in strict.err


@pytest.mark.training
def test_draw__options_reach_the_draw(here: Run) -> None:
    here("draw", "pool", "--per-tone", "6")
    here("draw", "part", "--per-tone", "2", "--from", "pool", "--tone", "V-VI", "--tone", "I-II")
    shown = here("show", "part", "--output", "json").json
    request = shown["drawn_by"]["request"]
    assert (request["source"], request["tones"]) == ("pool", ["V-VI", "I-II"])
    assert sorted({image["tone"] for image in shown["images"]}) == ["I-II", "V-VI"]


@pytest.mark.training
@pytest.mark.parametrize(
    "args",
    [
        ("draw", "train"),
        ("draw", "train", "--per-tone", ""),
        ("draw", "train", "--per-tone", "ten"),
        ("draw", "train", "--per-tone", "0"),
        ("draw", "train", "--per-tone", "-1"),
        ("draw", "train", "--per-tone", "5,5"),
        ("draw", "train", "--per-tone", "5,"),
        ("draw", "train", "--per-tone", "5", "--balance", "age"),
        ("draw", "train", "--per-tone", "5", "--tone", "VII"),
        ("draw", "train", "--per-tone", "5", "--partial"),
        ("draw", "fedd-2023-5", "--per-tone", "5"),
        ("draw", "fedd-2023-5", "--seed", "5"),
        ("draw", "fedd-2023-5", "--strict"),
        ("draw",),
        (),
    ],
)
def test_wrong_usage(here: Run, workspace: Workspace, args: tuple[str, ...]) -> None:
    result = here(*args)
    assert (result.status, result.out) == (2, "")
    assert workspace.catalogue.subsets.names() == []


@pytest.mark.training
def test_draw__no_size_names_the_presets(here: Run) -> None:
    assert "fedd-2023, fedd-2023-5, fedd-2023-10" in here("draw", "train").err


def test_draw__presets(here: Run, workspace: Workspace) -> None:
    refused = here("draw", "fedd-2023")
    assert (refused.status, refused.out) == (1, "")
    assert (
        "import all of DDI first, or draw the images that are imported with --partial"
        in refused.err
    )
    result = here("draw", "fedd-2023-val", "--partial")
    assert result.status == 0
    assert "fedd-2023-val: added, " in result.out
    assert "  lacking  fedd-2023-val: " in result.out
    assert workspace.catalogue.subsets.names() == ["fedd-2023-val"]


@pytest.mark.training
def test_list(here: Run, wording: SnapshotAssertion) -> None:
    assert here("list").out == wording
    here("draw", "train", "--per-tone", "2")
    assert here("list").out == wording
    assert here("list", "--output", "json").json == {
        "subsets": {
            "train": {"n": 6, "by_tone": {"I-II": 2, "III-IV": 2, "V-VI": 2}, "retired": False}
        }
    }


@pytest.mark.training
def test_show(here: Run, wording: SnapshotAssertion) -> None:
    here("draw", "train", "--per-tone", "2", "--seed", "5")
    lines = here("show", "train").out.splitlines()
    assert lines[0].startswith("train: 6 images (I-II 2, III-IV 2, V-VI 2), drawn ")
    assert lines[1] == wording
    assert len(lines) == 2 + 6
    unknown = here("show", "x")
    assert unknown.status == 1
    assert "no subset called 'x' (there are: train)" in unknown.err


def test_retire__stays_listed(here: Run) -> None:
    here("draw", "old", "--per-tone", "2")
    assert here("retire", "old").out == "old: retired; it keeps its images\n"
    assert here("retire", "old").out == "old: unchanged, retired before\n"
    assert here("list").out == "old: 6 images (I-II 2, III-IV 2, V-VI 2), retired\n"
    assert here("list", "--output", "json").json["subsets"]["old"]["retired"]
    assert here("retire", "none").status == 1
