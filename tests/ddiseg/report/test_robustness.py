"""The report's section on changed light."""

from __future__ import annotations

from typing import Any

import pytest

from ddiseg.report.page import write_report
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.report.conftest import Page, score


def measured(workspace: Workspace) -> None:
    """As `ddiseg sensitivity` records it."""
    by_tone = {"all": score(0.912, 33), "I-II": score(0.931, 30), "V-VI": score(0.871, 2)}
    control: dict[str, Any] = {tone: score(0.951, s["n"]) for tone, s in by_tone.items()}
    detail = {
        "model": "fedd-1", "subset": None, "states": [], "per_tone": 30, "seed": 0, "n_images": 33,
        "patients": 32, "learned_from": 4, "refused": [], "without_lesion": 1,
        "control": "one grey level", "by_change": {"-0.3 EV": by_tone, "one grey level": control},
        "sentences": ["Too few images of V-VI (n = 2) to say.", "It is the model's own noise."],
    }  # fmt: skip
    workspace.catalogue.robustness.add(detail, "tester")


@pytest.mark.training
def test_report__sensitivity_with_n_and_interval(worked: Workspace) -> None:
    measured(worked)
    page = Page(write_report(worked).path.read_text("utf-8"))
    assert "Too few images of V-VI (n = 2) to say. It is the model's own noise." in page.text
    assert "33 images of 32 patients, predicted by fedd-1" in page.text
    assert (
        "Left out: 4 that the model was trained on, 1 without a lesion in any prediction"
        in page.text
    )
    figures = " ".join(["0.931 [0.881, 0.971]"] * 2)
    assert f"tone I-II {figures} 30 30" in page.text
    few = " ".join(["0.871 (too few: 2 patients)"] * 2)
    assert f"tone V-VI {few} 2 2 too few patients" in page.text, "a value with its n, no interval"
    assert "one grey level (control)" in page.text
    ids = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(ids) == len(set(ids)), "the figure has its own space of ids"
    assert any("change of light" in str(s["aria-label"]) for s in page.all("svg"))


@pytest.mark.training
def test_report__nothing_measured_yet_says_what_to_run(worked: Workspace) -> None:
    text = Page(write_report(worked).path.read_text("utf-8")).text
    assert "Not measured yet. Run ddiseg sensitivity" in text


@pytest.mark.training
def test_report__measured_with_an_earlier_model(worked: Workspace) -> None:
    from ddiseg.catalogue import NewModelVersion

    measured(worked)
    new = NewModelVersion("e" * 64, "small", "b" * 64, {}, ["m"], {}, "1.0")
    worked.catalogue.models.add(new, "tester")
    text = Page(write_report(worked).path.read_text("utf-8")).text
    assert "run ddiseg sensitivity again" in text
