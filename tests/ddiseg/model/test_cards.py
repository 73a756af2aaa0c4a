"""A model card says all that is known, shows nobody's name, and replaces nothing but a card."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import Details, Split
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.model.cards import FORMAT, digest, markdown, model_card, write_card
from ddiseg.model.registry import promote
from ddiseg.outcomes import Outcome
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.model.version_rows import (
    add_classifier,
    add_version,
    decided,
    holdout_images,
    metrics,
)
from tests.ddiseg.rows import new_image, new_mask
from tests.wording import Refusal

TONES = ("I-II", "III-IV", "V-VI")
SECTIONS = (
    *("Model details", "Intended use", "Factors", "Training data", "Metrics and evaluation data"),
    *("Calibration", "Gate", "Limits", "How to reproduce"),
)
CALIBRATION = {
    **{"temperature": 1.234, "ece": 0.0138, "ece_before": 0.0231},
    **{"images": 12, "pixels": 6144},
}
LEARNED = [f"{k:064d}" for k in range(60)]


@pytest.fixture
def full(workspace: Workspace, tiny_weights: Path) -> Workspace:
    """fedd-2 of the shipped backbone, with few images of V-VI, in use in place of fedd-1."""
    add_version(workspace, tiny_weights, learned=LEARNED[:20])
    score = {"iou_mean": 0.7, "iou_mean_ci95": [0.6, 0.8], "n": 12, "patients": 12}
    made = {
        **metrics(60),
        "by_tone": {"I-II": 33, "III-IV": 22, "V-VI": 3, "unknown": 2},
        "went_on_from": "fedd-1",
        "notes": ["the tones of the held-out part are uneven"],
        "validation": {
            **{"images": 12, "by_tone": {"I-II": 12}, "scores": {"lesion": score}},
            "calibration": CALIBRATION,
        },
    }
    shown = holdout_images(TONES[:2], 0.68, 0.6) + holdout_images(TONES[2:], 0.7, 0.69, each=2)
    add_version(
        workspace,
        tiny_weights,
        learned=LEARNED,
        verdict=decided(shown, "fedd-1"),
        metrics=made,
        backbone="small",
    )
    return workspace


@pytest.mark.training
def test_model_card__says_what_is_known(full: Workspace, wording: SnapshotAssertion) -> None:
    version = full.catalogue.models.get("fedd-2")
    card = model_card(full, version)
    assert json.loads(json.dumps(card)) == card
    assert card["card"] == FORMAT
    assert card["details"]["in_use"]
    assert [change["forced"] for change in card["details"]["came_into_use"]] == [False]
    assert card["data"]["n"] == 60
    assert card["data"]["digest"] == digest(reversed(LEARNED))
    assert list(card["metrics"]) == ["held_out", "validation"]
    assert card["calibration"] == CALIBRATION
    assert (card["gate"]["said"], card["gate"]["compared_with"]) == ("passed", "fedd-1")
    assert card["gate"]["intervals"]["over"] == "patients"
    assert card["reproduce"]["command"] == wording
    assert card["reproduce"]["settings"]["features.timestep"] == 10
    assert "not a medical device" in card["intended_use"]["not_for"].lower()
    assert model_card(full, version) == card


@pytest.mark.training
def test_model_card__its_limits(full: Workspace, wording: SnapshotAssertion) -> None:
    limits = model_card(full, full.catalogue.models.get("fedd-2"))["limits"]
    assert limits[:5] == wording
    assert "PAD-UFES-20" in limits[5]
    assert "CC BY 4.0" in limits[5]
    assert len(limits) == 6


@pytest.mark.training
def test_model_card__limits_of_one_that_nobody_judged(full: Workspace) -> None:
    version = full.catalogue.models.get("fedd-1")
    limits = model_card(full, version)["limits"]
    assert "It learned from nothing of tone III-IV." in limits
    assert (
        "There are too few test patients for an interval of lesion IoU on tone "
        "I-II (n = 0 images), III-IV (n = 0 images), V-VI (n = 0 images)." in limits
    )
    assert "No gate compared it with an earlier version: there was no hold-out set." in limits
    assert limits[-1].startswith("The backbone is not part of this program")
    assert model_card(full, version)["metrics"] == {}
    assert "Nothing was measured." in markdown(model_card(full, version))


@pytest.mark.training
@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (
            holdout_images(TONES[:2], 0.9, 0.6) + holdout_images(TONES[2:], 0.3, 0.6),
            "The gate refused it: V-VI: ",
        ),
        (
            [],
            "The gate had too little to compare: not evaluated: the hold-out set has no accepted mask yet.",
        ),
    ],
)
def test_model_card__limits_by_the_gate(
    workspace: Workspace,
    tiny_weights: Path,
    shown: list[tuple[str, str, float, float | None]],
    said: str,
) -> None:
    version = add_version(workspace, tiny_weights, verdict=decided(shown, "fedd-0"))
    limits = model_card(workspace, version)["limits"]
    assert any(limit.startswith(said) for limit in limits)


@pytest.mark.training
def test_model_card__no_name_and_no_folder_of_this_machine(full: Workspace) -> None:
    for name in ("fedd-1", "fedd-2"):
        card = model_card(full, full.catalogue.models.get(name))
        for text in (json.dumps(card), markdown(card)):
            assert "annotator-1" not in text
            assert str(full.root.parent) not in text
    assert model_card(full, full.catalogue.models.get("fedd-1"))["details"]["backbone"] == (
        "tiny.safetensors"
    )


def test_model_card__a_classifier(workspace: Workspace) -> None:
    card = model_card(workspace, add_classifier(workspace))
    assert "not a diagnosis" in card["intended_use"]["for"]
    assert card["data"]["n"] == 24
    assert card["calibration"] is None
    assert card["reproduce"]["command"].startswith("ddiseg refresh --malignancy --backbone small")
    assert not any("paint" in limit or "gate" in limit for limit in card["limits"])
    text = markdown(card)
    assert "ROC-AUC" in text
    assert "24 images of known malignancy: I-II 20, V-VI 4" in text


@pytest.mark.training
def test_model_card__how_it_came_into_use(workspace: Workspace, tiny_weights: Path) -> None:
    version = add_version(workspace, tiny_weights, promote=False)
    before = model_card(workspace, version)["details"]
    assert (before["in_use"], before["came_into_use"]) == (False, [])
    promote(workspace, "fedd-1", "annotator-1", why="a look at it", force=True)
    card = model_card(workspace, version)
    (came,) = card["details"]["came_into_use"]
    assert (card["details"]["in_use"], came["forced"]) == (True, True)
    assert f"promoted {came['at'][:10]} by force: a look at it" in markdown(card)


def test_digest__of_sorted_hashes_one_a_line() -> None:
    assert digest(["b", "a"]) == hashlib.sha256(b"a\nb\n").hexdigest()
    assert digest(["ab"]) != digest(["a", "b"])


@pytest.mark.training
def test_markdown__every_section_and_every_figure_with_its_n(full: Workspace) -> None:
    text = markdown(model_card(full, full.catalogue.models.get("fedd-2")))
    assert text.startswith(f"<!-- {FORMAT} -->\n# Model card: fedd-2\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == list(SECTIONS)
    assert (
        "| I-II | lesion IoU | 0.72 (too few) | 0.64 (too few) | +0.080 (too few) n=8/8 |" in text
    )
    assert "| V-VI | lesion IoU | 0.70 (too few) | " in text
    assert "Temperature 1.23; expected calibration error 0.014, without it 0.023\n(n = 12" in text
    assert "Training continued from fedd-1" in text
    rows = re.findall(r"^\| .* \| \w+ IoU \| (.*) \|$", text, re.MULTILINE)
    assert rows
    value = r"[+-]?\d\.\d+ (\[\S+, \S+\]|\(too few\))"
    assert all(re.fullmatch(rf"({value} \| )*{value} n=\d+/\d+", row) for row in rows), rows
    assert "\n\n\n" not in text
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


@pytest.mark.training
def test_markdown__what_a_person_typed_is_shown_not_obeyed(
    workspace: Workspace, tiny_weights: Path
) -> None:
    add_version(workspace, tiny_weights)
    version = add_version(workspace, tiny_weights, promote=False)
    workspace.catalogue.models.promote("fedd-2", "a", "<b>\n# no | heading", forced=True)
    text = markdown(model_card(workspace, version))
    assert "&lt;b&gt; # no &#124; heading" in text
    assert "\n# no" not in text


@pytest.mark.training
def test_write_card__both_files_once_and_again(full: Workspace, tmp_path: Path) -> None:
    card = model_card(full, full.catalogue.models.get("fedd-2"))
    folder = tmp_path / "deep" / "cards"
    assert [o.outcome for o in write_card(card, folder)] == [Outcome.ADDED] * 2
    assert json.loads((folder / "fedd-2.json").read_text("utf-8")) == card
    assert (folder / "fedd-2.md").read_text("utf-8") == markdown(card)
    assert [o.outcome for o in write_card(card, folder)] == [Outcome.UNCHANGED] * 2
    (only,) = write_card(card, tmp_path / "card.md")
    assert (only.name, only.outcome) == (str(tmp_path / "card.md"), Outcome.ADDED)
    rollback_card = {**card, "limits": []}
    (changed,) = write_card(rollback_card, folder / "fedd-2.json")
    assert changed.outcome is Outcome.REPAIRED
    assert json.loads((folder / "fedd-2.json").read_text("utf-8")) == rollback_card
    assert {p.name for p in folder.iterdir()} == {"fedd-2.md", "fedd-2.json"}


@pytest.mark.training
def test_write_card__refuses_and_changes_nothing(
    full: Workspace, tmp_path: Path, refusal: Refusal
) -> None:
    card = model_card(full, full.catalogue.models.get("fedd-2"))
    with refusal(InputError):
        write_card(card, tmp_path / "card.pdf")
    (tmp_path / "fedd-2.json").write_text("mine")
    for target in (tmp_path / "fedd-2.json", tmp_path):
        with refusal(InputError):
            write_card(card, target)
    assert (tmp_path / "fedd-2.json").read_text() == "mine"
    assert not (tmp_path / "fedd-2.md").exists()
    (tmp_path / "file").write_text("mine")
    with refusal(WorkspaceError):
        write_card(card, tmp_path / "file" / "card.md")


@pytest.mark.training
def test_model_card__says_which_estimates_leak_by_ids_that_came_later(
    workspace: Workspace, tiny_weights: Path, wording: SnapshotAssertion
) -> None:
    """#2 was in the hold-out set; it turns out to be of the patient of #1, which is learned from."""
    catalogue = workspace.catalogue
    dataset = catalogue.images.dataset("clinic")
    catalogue.images.add(dataset.id, [new_image(n) for n in (1, 2)], "tester")
    mask = new_mask(1, "anna")
    catalogue.masks.submit([mask], reviewer="ben")
    catalogue.splits.decide({1: Split.TRAINING, 2: Split.HOLDOUT})
    verdict = decided(holdout_images(TONES[:1], 0.7, 0.6), "fedd-0")
    version = add_version(workspace, tiny_weights, learned=[mask.content_hash], verdict=verdict)
    before = model_card(workspace, version)
    assert "too optimistic" not in json.dumps(before)
    details = [Details(patient="p")] * 2
    catalogue.images.update_details([1, 2], details, "tester")
    card = model_card(workspace, version)
    assert [limit for limit in card["limits"] if "too optimistic" in limit] == wording
    assert card["metrics"]["held_out"]["about"] == wording
    assert markdown(card).count("too optimistic") == 2


@pytest.mark.training
def test_model_card__credits_of_each_part(workspace: Workspace, tiny_weights: Path) -> None:
    paths = f"small+{tiny_weights}"
    for backbone, last in (("small+lite0", "EfficientNet-Lite0"), (paths, "part tiny.safetensors")):
        version = add_version(workspace, tiny_weights, learned=LEARNED, backbone=backbone)
        limits = model_card(workspace, version)["limits"]
        assert "PAD-UFES-20" in limits[-2]
        assert last in limits[-1]


def test_markdown__what_decides_and_how_well_the_expected_iou_holds(
    workspace: Workspace, tiny_weights: Path
) -> None:
    iou = {"value": 0.641, "interval": [0.6, 0.68], "n": 30, "patients": 30}
    gain = {"value": 0.021, "interval": [0.007, 0.035], "n": 30, "patients": 30}
    style = {
        **{"annotator": "Anna", "ratio": 1.5, "interval": [1.2, 1.9]},
        **{"n": [12, 14], "read_by_both": False},
    }
    made = {
        **metrics(30),
        "own_masks": {
            **{"decision": "first pass alone", "why": "chosen", "is_default": False},
            "candidates": [
                {"decision": "first pass alone", "iou": iou, "over": "mean", "gain": gain}
            ],
            "reliability": {
                "lesion": {
                    "bins": [{"low": 0.5, "high": 0.6, "n": 7, "expected": 0.55, "reached": 0.58}],
                    "spearman": {"value": 0.7, "interval": [0.5, 0.9], "n": 30, "patients": 30},
                }
            },
        },
        "styles": [style],
        "calibration": CALIBRATION,
    }
    version = add_version(workspace, tiny_weights, learned=LEARNED[:30], metrics=made)
    card = model_card(workspace, version)
    text = markdown(card)
    assert "first pass alone: chosen." in text
    size = "(n = 30 images of 30 patients)"
    assert (
        f"| first pass alone | 0.641 [0.600, 0.680] {size} | +0.021 [+0.007, +0.035] {size} | mean |"
        in text
    )
    assert f"Spearman's rank correlation 0.70 [0.50, 0.90] {size}" in text
    assert "| 0.5 to 0.6 | 7 | 0.55 | 0.58 |" in text
    assert any("Masks of two styles: one annotator draws" in each for each in card["limits"])
    assert "Anna" not in json.dumps(card)
    assert card["calibration"] == CALIBRATION, "without a validation split, too"
