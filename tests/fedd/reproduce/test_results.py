from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedd.errors import ReproductionError
from fedd.reproduce import Cell
from fedd.reproduce.results import Cost, Result, ResultStore
from tests.wording import Refusal

CELL = Cell("classification", "FEDD", 5, 0)
RESULT = Result(CELL, 30, Cost(1.5, 10**9), {}, {"000001": 0.25})
MADE_WITH = {"photographs": "abc", "settings": {"block": 4, "features": {"blocks": (6, 8)}}}


def test_put__comes_back(tmp_path: Path) -> None:
    ResultStore(tmp_path).put(RESULT, MADE_WITH)
    assert ResultStore(tmp_path).get(CELL, MADE_WITH) == RESULT
    assert [path.name for path in tmp_path.iterdir()] == ["classification-FEDD-05-seed0.json"]


def test_get__not_done(tmp_path: Path) -> None:
    assert ResultStore(tmp_path).get(CELL, MADE_WITH) is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({**MADE_WITH, "photographs": "xyz"}, "was made with other photographs: "),
        ({**MADE_WITH, "settings": {**MADE_WITH["settings"], "block": 6}}, "block 4, not 6"),
        ({**MADE_WITH, "precision": "bfloat16"}, 'precision null, not "bfloat16"'),
    ],
)
def test_get__made_with_something_else(
    tmp_path: Path, changed: dict[str, object], said: str, refusal: Refusal
) -> None:
    ResultStore(tmp_path).put(RESULT, MADE_WITH)
    with refusal(ReproductionError) as refused:
        ResultStore(tmp_path).get(CELL, changed)
    assert said in str(refused.value)
    assert "classification-FEDD-05-seed0.json" in str(refused.value)


def test_get__other_photographs_are_counted(tmp_path: Path) -> None:
    ResultStore(tmp_path).put(RESULT, MADE_WITH)
    with pytest.raises(ReproductionError, match=r"with other photographs \(31 then, 33 now\): "):
        ResultStore(tmp_path).get(CELL, {**MADE_WITH, "photographs": "xyz"}, 33)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"made_with": {}, "result": {}}'])
def test_get__damaged_file(tmp_path: Path, text: str, refusal: Refusal) -> None:
    ResultStore(tmp_path).put(RESULT, MADE_WITH)
    next(tmp_path.iterdir()).write_text(text)
    with refusal(ReproductionError):
        ResultStore(tmp_path).get(CELL, MADE_WITH)


def test_get__of_another_version(tmp_path: Path, refusal: Refusal) -> None:
    ResultStore(tmp_path).put(RESULT, MADE_WITH)
    path = next(tmp_path.iterdir())
    stored = json.loads(path.read_text())
    stored["made_with"]["version"] = 1
    stored["result"]["threshold"] = 0.5  # as it had then
    path.write_text(json.dumps(stored))
    with refusal(ReproductionError) as refused:
        ResultStore(tmp_path).get(CELL, MADE_WITH)
    assert "layout 1, now 2" in str(refused.value)


def test_results__folder_is_a_file(tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "out").touch()
    with refusal(ReproductionError):
        ResultStore(tmp_path / "out" / "cells").prepare()
