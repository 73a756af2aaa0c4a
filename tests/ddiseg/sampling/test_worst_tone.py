"""Which tone is worst: by which figures, and what is said where there are none."""

from __future__ import annotations

from typing import Any

import pytest

from ddiseg.catalogue import Catalogue, NewModelVersion
from ddiseg.catalogue.tables import ModelVersion
from ddiseg.errors import InputError
from ddiseg.sampling.worst_tone import worst_tone
from tests.wording import Refusal

TONES = ("I-II", "V-VI")


def _version(catalogue: Catalogue, gate: dict[str, Any] | None = None) -> ModelVersion:
    new = NewModelVersion("f", "small", "b", {}, [], {}, "1.0", gate=gate)
    return catalogue.models.add(new, "tester")


def _gate(**lower: float) -> dict[str, Any]:
    figures = {
        tone.replace("_", "-"): {"value": 0.8, "interval": [low, 0.9], "n": 20}
        for tone, low in lower.items()
    }
    return {"by_tone": {t: {"candidate": {"lesion_iou": f}} for t, f in figures.items()}}


def _evaluate(catalogue: Catalogue, models: dict[str, int], **lower: float | None) -> None:
    by_tone = {
        tone.replace("_", "-"): {
            "lesion": {
                "iou_mean": 0.7,
                "iou_mean_ci95": None if low is None else [low, 0.9],
                "n": 9,
            }
        }
        for tone, low in lower.items()
    }
    catalogue.evaluations.add({"models": models, "by_tone": by_tone}, [], "tester")


def test_worst__an_evaluation_of_the_model_is_newer_than_its_gate(catalogue: Catalogue) -> None:
    version = _version(catalogue, _gate(I_II=0.3, V_VI=0.6))
    assert worst_tone(catalogue, version, TONES).tone == "I-II"
    _evaluate(catalogue, {version.name: 18}, I_II=0.6, V_VI=0.5)
    worst = worst_tone(catalogue, version, TONES)
    assert (worst.tone, worst.interval, worst.n) == ("V-VI", (0.5, 0.9), 9)
    assert worst.source.startswith(f"evaluation of {version.name}, 20")


def test_worst__an_evaluation_of_others_does_not_count(catalogue: Catalogue) -> None:
    version = _version(catalogue, _gate(I_II=0.3, V_VI=0.6))
    _evaluate(catalogue, {version.name: 9, "fedd-0": 9}, I_II=0.6, V_VI=0.5)
    assert worst_tone(catalogue, version, TONES).source == f"gate of {version.name}"


def test_worst__out_of_the_tones_drawn(catalogue: Catalogue) -> None:
    version = _version(catalogue)
    _evaluate(catalogue, {version.name: 27}, I_II=0.6, III_IV=0.2, V_VI=0.7)
    assert worst_tone(catalogue, version, TONES).tone == "I-II"


@pytest.mark.parametrize("figures", [{"I_II": 0.1, "V_VI": None}, {"I_II": 0.1}])
def test_worst__a_tone_of_which_too_little_is_known(
    catalogue: Catalogue, figures: dict[str, float | None]
) -> None:
    """Else a rare tone would lose its slots exactly where nothing is known of it."""
    version = _version(catalogue)
    _evaluate(catalogue, {version.name: 27}, **figures)
    worst = worst_tone(catalogue, version, TONES)
    assert (worst.tone, worst.interval, worst.n) == ("V-VI", None, 9 if "V_VI" in figures else 0)
    assert "V-VI has too few images to say how well it is served (n = " in str(worst)


@pytest.mark.parametrize(("n", "tone"), [(4, "V-VI"), (5, "I-II")])
def test_worst__fewer_than_five_images_are_too_few_even_with_an_interval(
    catalogue: Catalogue, n: int, tone: str
) -> None:
    version = _version(catalogue)
    by_tone = {
        "I-II": {"lesion": {"iou_mean": 0.6, "iou_mean_ci95": [0.5, 0.7], "n": 20}},
        "V-VI": {"lesion": {"iou_mean": 0.9, "iou_mean_ci95": [0.88, 0.92], "n": n}},
    }
    found = {"models": {version.name: 20 + n}, "by_tone": by_tone}
    catalogue.evaluations.add(found, [], "tester")
    worst = worst_tone(catalogue, version, TONES)
    assert worst.tone == tone
    assert ("too few images to say how well it is served (n = 4" in str(worst)) == (n == 4)


def test_worst__no_figures(catalogue: Catalogue, refusal: Refusal) -> None:
    with refusal(InputError):
        worst_tone(catalogue, None, TONES)
    version = _version(catalogue)
    with pytest.raises(
        InputError, match=f"no lesion IoU of {version.name} .*'ddiseg refresh --gate'"
    ):
        worst_tone(catalogue, version, TONES)
