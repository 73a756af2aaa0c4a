"""Clinical answers as covariates: a table of them, and how its columns become numbers.

A column of numbers is standardised; a column of words becomes a number for each word that training knew.
A missing answer is replaced with the mean of the training images, so that it adds nothing to the logit:
that nobody asked says how an image was recorded, and not what it shows.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from annotation_protocol.csv_files import unescape_cell
from fedd.dataset import COLUMNS
from fedd.errors import DatasetError, TrainingDataError

#: Cells that are no answer, in lower case.
NO_ANSWER = frozenset({"", "unk", "unknown", "na", "n/a", "nan", "none", "?", "not known"})

#: Different words of a column above which it is no question but a name or free text.
MOST_WORDS = 30

#: An image's answers by column; {} where the table has no row for it.
Answers: TypeAlias = Mapping[str, str]


@dataclass(frozen=True)
class ClinicalTable:
    """Answers by the stem of the photograph's file."""

    name: str  #: of the file, for messages
    columns: tuple[str, ...]  #: those that can be covariates, in the table's order
    rows: Mapping[str, Answers]

    def check(self, names: Sequence[str]) -> None:
        """Raise DatasetError, with the columns that there are, if one of `names` is not among them."""
        unknown = [name for name in names if name not in self.columns]
        if unknown:
            raise DatasetError(
                f"{self.name} has no column {', '.join(map(repr, unknown))} for a covariate; it has "
                f"{', '.join(self.columns) or 'none'} (what names the photograph, the patient or the lesion, "
                "or tells the diagnosis is none)"
            )

    def of(self, stems: Sequence[str]) -> list[Answers]:
        """Return the answers of images, in their order."""
        return [self.rows.get(stem, {}) for stem in stems]


def read_clinical(path: Path) -> ClinicalTable:
    """Read a CSV with a column of the photographs' names (`img_id`, `file`, ...) and one a question.

    Raises DatasetError if it can't be read, names no photographs, or gives one two different rows.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = [name for name in reader.fieldnames or () if name]
            lines = [{k: unescape_cell(v or "").strip() for k, v in r.items() if k} for r in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        raise DatasetError(f"{path} can't be read as a CSV table: {why}") from error
    file_column = next((name for name in COLUMNS["file"] if name in header), None)
    if file_column is None:
        raise DatasetError(
            f"{path} has no column with the photographs' names: expected one of "
            f"{', '.join(COLUMNS['file'])}, found {', '.join(header) or 'nothing'}"
        )
    columns = tuple(name for name in header if name not in _NO_COVARIATE)
    rows: dict[str, Answers] = {}
    for number, row in enumerate(lines, 2):
        stem = Path(row[file_column]).stem
        if not stem:
            raise DatasetError(f"{path}, row {number}: no photograph is named in '{file_column}'")
        answers = {name: row.get(name, "") for name in columns}
        if rows.setdefault(stem, answers) != answers:
            raise DatasetError(f"{path}, row {number}: {stem} has another row with other answers")
    return ClinicalTable(path.name, columns, rows)


@dataclass(frozen=True)
class Column:
    """How the answers of one column become numbers.

    Of numbers, `words` is empty; of words, `means` are their shares among the training images, and of two
    words only the second has a number.
    """

    name: str
    words: tuple[str, ...]
    means: tuple[float, ...]
    deviation: float = 1.0

    @classmethod
    def learn(cls, name: str, cells: Sequence[str]) -> Column:
        """Return the column as training images answer it; without any answer it is of numbers."""
        known = [cell for cell in cells if is_answer(cell)]
        numbers = [value for value in map(_number, known) if value is not None]
        if len(numbers) == len(known):
            mean = float(np.mean(numbers)) if numbers else 0.0
            return cls(name, (), (mean,), (float(np.std(numbers)) if numbers else 0) or 1.0)
        lower = [cell.lower() for cell in known]
        words = tuple(sorted(set(lower)))
        coded = words[1:] if len(words) == 2 else words
        return cls(name, words, tuple(lower.count(word) / len(lower) for word in coded))

    def check(self, cells: Sequence[str]) -> None:
        """Raise TrainingDataError if the training images' cells are no answers to one question."""
        different = {cell.lower() for cell in cells if is_answer(cell)}
        start = f"the covariate '{self.name}' has"
        if len(different) < 2:
            what = f"only '{different.pop()}'" if different else "no answer"
            raise TrainingDataError(f"{start} {what} in {len(cells)} training images: leave it out")
        if len(self.words) > MOST_WORDS:
            raise TrainingDataError(
                f"{start} {len(self.words)} different words in {len(cells)} training images, more than "
                f"{MOST_WORDS}: that is a name or free text; leave it out"
            )

    @property
    def width(self) -> int:
        """Numbers of an image."""
        return len(self.means)

    def encode(self, cell: str) -> list[float] | None:
        """Return the numbers of an answer; None for a missing one, and for one that training never saw."""
        if not is_answer(cell):
            return None
        if not self.words:
            value = _number(cell)
            return None if value is None else [(value - self.means[0]) / self.deviation]
        word = cell.strip().lower()
        if word not in self.words:
            return None
        coded = self.words[-self.width :]
        return [float(word == each) - mean for each, mean in zip(coded, self.means, strict=True)]


@dataclass(frozen=True)
class Encoder:
    """How answers become numbers, as the training images taught it."""

    columns: tuple[Column, ...]

    @classmethod
    def learn(cls, names: Sequence[str], answers: Sequence[Answers]) -> Encoder:
        """Return the encoder of these columns."""
        return cls(tuple(Column.learn(n, [of.get(n, "") for of in answers]) for n in names))

    def check(self, answers: Sequence[Answers]) -> None:
        """Raise TrainingDataError as `Column.check` does."""
        for column in self.columns:
            column.check([of.get(column.name, "") for of in answers])

    @property
    def width(self) -> int:
        """Numbers of an image."""
        return sum(column.width for column in self.columns)

    def encode(self, answers: Sequence[Answers]) -> NDArray[np.float64]:
        """Return the numbers of images, (N, width); zeros, the training mean, for a missing answer."""
        found = np.zeros((len(answers), self.width))
        for row, of in enumerate(answers):
            at = 0
            for column in self.columns:
                numbers = column.encode(of.get(column.name, ""))
                if numbers is not None:
                    found[row, at : at + column.width] = numbers
                at += column.width
        return found

    def imputed(self, answers: Sequence[Answers]) -> dict[str, int]:
        """Return by column how many of these images have no usable answer, where any has none."""
        counts = {
            column.name: sum(column.encode(of.get(column.name, "")) is None for of in answers)
            for column in self.columns
        }
        return {name: n for name, n in counts.items() if n}

    def to_list(self) -> list[dict[str, Any]]:
        """Return the columns as stored files have them."""
        return [asdict(column) for column in self.columns]

    @classmethod
    def from_list(cls, stored: Sequence[Mapping[str, Any]]) -> Encoder:
        """Return the encoder of a stored file."""
        return cls(
            tuple(
                Column(c["name"], tuple(c["words"]), tuple(c["means"]), float(c["deviation"]))
                for c in stored
            )
        )


def is_answer(cell: str) -> bool:
    """Return whether a cell holds an answer."""
    return cell.strip().lower() not in NO_ANSWER


def imputed_in_words(imputed: Mapping[str, int], images: int) -> str:
    """Return the line that says how many answers were missing; empty if none was."""
    if not imputed:
        return ""
    listed = ", ".join(f"{name} {n}" for name, n in imputed.items())
    return f"answers missing or new, replaced with the training images' mean, of {images}: {listed}"


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


#: Columns that name the photograph, the patient or the lesion, or tell what is to be predicted.
_NO_COVARIATE = frozenset(
    {
        *(name for key in ("file", "patient", "malignant", "diagnosis") for name in COLUMNS[key]),
        *("lesion", "lesion_id", "biopsed", "biopsied", "benign", "DDI_ID", "isic_id"),
    }
)
