"""Clinical answers of a workspace's images: a table beside the catalogue, which does not hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ddiseg.catalogue.records import ClassifierRecord
from ddiseg.catalogue.tables import Image
from ddiseg.errors import InputError
from fedd.malignancy.covariates import Answers, ClinicalTable, imputed_in_words, read_clinical
from fedd.malignancy.linear import LinearClassifier
from fedd.malignancy.stored import Classifier


@dataclass(frozen=True)
class Clinical:
    """The columns of a table that a classifier reads."""

    table: ClinicalTable
    covariates: tuple[str, ...]

    @classmethod
    def read(cls, path: Path, covariates: Sequence[str]) -> Clinical:
        """Read a table for these covariates.

        Raises:
            InputError: there is no covariate; the message lists the columns.
            DatasetError: it can't be read, or has no such column; the message lists those that it has.
        """
        table = read_clinical(path)
        if not covariates:
            raise InputError(
                f"--clinical needs --covariates COLUMN,...: {table.name} has the columns "
                f"{', '.join(table.columns) or 'none'}"
            )
        table.check(covariates)
        return cls(table, tuple(dict.fromkeys(covariates)))

    def of(self, images: Sequence[Image]) -> list[Answers]:
        """Return the answers of images, in their order.

        Raises:
            InputError: none of the images is in the table, or two that are have the same name.
        """
        stems = [PurePosixPath(image.name).stem for image in images]
        known = Counter(stem for stem in stems if stem in self.table.rows)
        if images and not known:
            raise InputError(
                f"{self.table.name} has no row for any of the {len(images)} images, such as "
                f"{images[0].name}: give the table that names these photographs"
            )
        if twice := [stem for stem, n in known.items() if n > 1]:
            raise InputError(
                f"{self.table.name} has one row for {twice[0]}, and the workspace several images of that "
                "name: choose the images of one data set, or rename the files"
            )
        return self.table.of(stems)


def read_answers(path: Path | None) -> ClinicalTable | None:
    """Read a table of clinical answers, if one is given; raises DatasetError if it can't be read."""
    return None if path is None else read_clinical(path)


def missing_answers(training: ClassifierRecord) -> str:
    """Return the line that says how many training images have no answer; empty if all have."""
    return imputed_in_words(training.imputed, training.images)


def clinical_for(
    model: str, classifier: Classifier, table: ClinicalTable | None
) -> Clinical | None:
    """Return what a classifier reads of a table; None where it reads no answers.

    Raises:
        InputError: it reads answers and there is no table, or the other way round.
        DatasetError: the table lacks a column.
    """
    names = classifier.settings.covariates if isinstance(classifier, LinearClassifier) else ()
    if names and table is None:
        raise InputError(
            f"{model} reads clinical answers ({', '.join(names)}): give their table with --clinical FILE"
        )
    if table is None:
        return None
    if not names:
        raise InputError(f"{model} reads no clinical answers: leave out --clinical")
    table.check(names)
    return Clinical(table, names)


def answers_for(clinical: Clinical | None, images: Sequence[Image]) -> dict[int, Answers]:
    """Return the answers of images by their ids, in their order; {} of each where there is no table."""
    if clinical is None:
        return {image.id: {} for image in images}
    return dict(zip((image.id for image in images), clinical.of(images), strict=True))
