from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedd.errors import DatasetError, TrainingDataError
from fedd.malignancy.covariates import Encoder, imputed_in_words, read_clinical
from tests.wording import Refusal

ROWS = "img_id,patient_id,diagnostic,biopsed,age,region,itch\na.png,p1,BCC,True,60,FACE,True\n"


def _table(folder: Path, text: str) -> Path:
    path = folder / "clinical.csv"
    path.write_text(text)
    return path


def test_table__its_questions_without_names_and_diagnosis(tmp_path: Path) -> None:
    table = read_clinical(_table(tmp_path, ROWS))
    assert table.columns == ("age", "region", "itch")
    assert table.of(["a", "b"]) == [{"age": "60", "region": "FACE", "itch": "True"}, {}]


@pytest.mark.parametrize("name", ["itches", "diagnostic", "biopsed", "patient_id", "img_id"])
def test_table__a_column_that_is_no_covariate(tmp_path: Path, name: str, refusal: Refusal) -> None:
    """A diagnosis would be told, not predicted: it is refused as an unknown column is."""
    table = read_clinical(_table(tmp_path, ROWS))
    with refusal(DatasetError):
        table.check(["age", name])


@pytest.mark.parametrize(
    "text",
    [
        "name,age\na.png,3\n",
        "img_id,age\na.png,3\na.jpg,4\n",
        "img_id,age\n,3\n",
        "",
    ],
    ids=["no photographs", "two rows", "no name", "empty"],
)
def test_table__that_cannot_be_used(tmp_path: Path, text: str, refusal: Refusal) -> None:
    with refusal(DatasetError):
        read_clinical(_table(tmp_path, text))


def test_table__not_there(tmp_path: Path, refusal: Refusal) -> None:
    with refusal(DatasetError):
        read_clinical(tmp_path / "gone.csv")


AGES = [{"age": a, "itch": i, "region": r} for a, i, r in [
    ("40", "True", "FACE"), ("60", "False", "ARM"), ("", "UNK", "NECK"), ("80", "false", "ARM"),
]]  # fmt: skip


def test_encode__numbers_are_standardised_words_become_a_number_each() -> None:
    encoder = Encoder.learn(["age", "itch", "region"], AGES)
    found = encoder.encode(AGES)
    assert found.shape == (4, 1 + 1 + 3)
    deviation = np.std([40, 60, 80])
    np.testing.assert_allclose(found[:, 0], [-20 / deviation, 0, 0, 20 / deviation])
    np.testing.assert_allclose(found[:, 1], [1 - 1 / 3, -1 / 3, 0, -1 / 3])
    np.testing.assert_allclose(found[0, 2:], [-1 / 2, 1 - 1 / 4, -1 / 4])


def test_encode__missing_and_new_answers_are_the_training_mean_and_counted() -> None:
    encoder = Encoder.learn(["age", "itch", "region"], AGES)
    answers = [
        {"age": "old", "itch": "maybe", "region": "FOOT"},
        {"age": "nan", "itch": "", "region": "face"},
        {},
    ]
    found = encoder.encode(answers)
    assert (found[[0, 2]] == 0).all()
    assert (found[1, :2] == 0).all()
    np.testing.assert_allclose(found[1, 2:], [-1 / 2, 1 - 1 / 4, -1 / 4], err_msg="FACE is face")
    imputed = encoder.imputed(answers)
    assert imputed == {"age": 3, "itch": 3, "region": 2}
    assert "age 3, itch 3, region 2" in imputed_in_words(imputed, 3)
    assert imputed_in_words(encoder.imputed(AGES[:2]), 2) == ""


@pytest.mark.parametrize(
    "cells",
    [["", "UNK"], ["True", "True", ""], [f"word {n}" for n in range(31)]],
    ids=["no answer", "one answer", "names"],
)
def test_check__no_answers_to_one_question(cells: list[str], refusal: Refusal) -> None:
    answers = [{"itch": cell} for cell in cells]
    encoder = Encoder.learn(["itch"], answers)  # a fold of training images may be like that
    assert encoder.encode(answers).shape[0] == len(answers)
    with refusal(TrainingDataError):
        encoder.check(answers)


def test_encoder__as_stored() -> None:
    encoder = Encoder.learn(["age", "itch", "region"], AGES)
    again = Encoder.from_list(encoder.to_list())
    assert again == encoder
