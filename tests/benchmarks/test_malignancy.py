from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks import malignancy
from benchmarks.malignancy import Set
from benchmarks.photographs import Photograph
from fedd.malignancy.colours import COLOURS
from fedd.malignancy.linear import Reader
from fedd.probes.training import Example


@pytest.fixture
def photographs() -> Set:
    """40 photographs of 20 patients: colour tells malignancy; all of unknown tone are benign."""
    pixels, mask = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), np.uint8)
    malignant = np.arange(40) // 2 % 4 == 0
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, COLOURS + 10)).astype(np.float32)
    features[:, 0] += 20 * malignant
    tones = ["I-II" if m or n % 3 else "unknown" for n, m in enumerate(malignant)]
    shown = [
        Photograph(
            Example(pixels, mask, f"p{n // 2}", tones[n]), f"{n}.png", "BCC" if m else "NEV", "pool"
        )
        for n, m in enumerate(malignant)
    ]
    answers = [{name: str(n % 5) for name in malignancy.ANSWERS} for n in range(40)]
    return Set(shown, {"ours small": features}, answers)


def test_cross_validation__of_a_reader_with_known_tone_apart(
    photographs: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    colour = partial(malignancy._linear, "small", (), Reader.COLOUR)
    monkeypatch.setattr(malignancy, "rows", lambda: {"colour alone": colour})
    monkeypatch.setattr(malignancy, "SEEDS", range(1))
    head, line = malignancy._lines({"40": photographs}, malignancy._cross_validate)
    found = dict(zip(head, line, strict=True))
    assert (found["row"], found["learned from"]) == ("colour alone", "40")
    assert float(found["mean of 5 seeds"]) > 0.95
    known = sum(tone != "unknown" for tone in photographs.tones)
    assert found["all"].endswith("n=40 of 20")
    assert f"n={known} of" in found["known tone"]
    assert "unknown" not in found["by tone"], "benign alone have no ROC-AUC"


def test_cross_validation__trains_on_other_patients_alone(photographs: Set) -> None:
    seen: list[int] = []

    def predict(learned: Set, tested: Set, _seed: int) -> np.ndarray:
        assert not set(learned.patients) & set(tested.patients)
        seen.extend(int(p.name.removesuffix(".png")) for p in tested.photographs)
        return tested.malignant.astype(float)

    tested, found = malignancy._cross_validate(predict, photographs, 0)
    assert sorted(seen) == list(range(40))
    np.testing.assert_array_equal(found, tested.malignant)


def test_main__without_the_photographs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PAD300", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["malignancy"])
    malignancy.main()
    assert capsys.readouterr().out.startswith("skipped: no pad300")
