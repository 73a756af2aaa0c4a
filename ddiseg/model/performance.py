"""Performance of a model version: tables of estimates with their intervals and n, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import PurePath
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol, metrics
from annotation_protocol.estimates import (
    ClassEstimates,
    Estimate,
    estimate_classes,
    estimate_classes_by_stratum,
    sample_size,
)
from annotation_protocol.intervals import MIN_GROUPS
from ddiseg.catalogue import ModelKind
from ddiseg.catalogue.tables import Image, Mask, ModelVersion
from ddiseg.sampling.groups import Groups
from ddiseg.sampling.leaks import leaked_since
from ddiseg.workspace.workspace import Workspace

#: Tone of the rows that count all images together.
ALL = "all"

#: Explains the notation of the estimates.
LEGEND = (
    "Square brackets hold 95 % intervals over patients; n=9/8 is 9 images of 8 patients, of all "
    "columns where it stands at the end of a row alone. There is no "
    f"interval from fewer than {MIN_GROUPS} patients (of malignancy: of each class)."
)

LESION = "lesion IoU"

_GATE_MEASURES = {"lesion_iou": LESION, "mean_iou": "mean IoU"}


class PerformanceRow(TypedDict):
    """One metric for one tone group, or for ALL."""

    tone: str
    measure: str
    figures: list[dict[str, Any] | None]  #: an `Estimate` a column; None where it was not measured


class PerformanceTable(TypedDict):
    """Estimates on one set of images."""

    title: str
    about: str  #: which images, and how the estimates were made
    columns: list[str]  #: names of versions
    paired: bool  #: the last column is the first minus the second, image by image
    rows: list[PerformanceRow]


def performance_tables(workspace: Workspace, version: ModelVersion) -> dict[str, PerformanceTable]:
    """Return all that was measured of a version, the most trustworthy first.

    "random": on images sampled at random; "held_out": the gate's hold-out set; "evaluation": the last
    one, if it was of this version alone; "validation": the split that ended its training;
    "out_of_fold": its training images, each by the members that did not learn from it.
    """
    if version.kind == ModelKind.MALIGNANCY:
        tables = {"validation": _malignancy_validation(version)}
    else:
        tables = {
            "random": _random(workspace, version),
            "held_out": holdout_table(version),
            "evaluation": _evaluation(workspace, version),
            "validation": _validation(version),
            "out_of_fold": _out_of_fold(version),
        }
    leaked = asdict(leaked_since(workspace.catalogue, version))
    leaked["held_out"] = leaked.pop("holdout")
    for key, n in leaked.items():
        if n and (table := tables.get(key)):
            table["about"] += f" {leaked_text(n)}"
    return {key: table for key, table in tables.items() if table is not None}


def holdout_table(version: ModelVersion) -> PerformanceTable | None:
    """Return the gate's estimates of a version, of the model it was compared with, and the difference.

    None without hold-out images.
    """
    decision = version.decision
    if decision is None or not decision.holdout.images:
        return None
    holdout = decision.holdout
    names = [version.name]
    paired = decision.overall.difference is not None
    if paired:
        other = str(decision.compared_with)
        names += [other, f"{version.name} minus {other}"]
    groups = {ALL: decision.overall, **decision.by_tone}
    about = (
        f"{sample_size(holdout.images, holdout.patients)}, not learned from, in the hold-out set when it "
        f"was trained.{_left_out(holdout.leaked)}"
    )
    if biased := sum(holdout.over_predictions.values()):
        about += (
            f" {biased} of their masks were corrected from predictions of {decision.compared_with}, "
            "which favours that version; they count only where there are too few others."
        )
    return PerformanceTable(
        title="Hold-out images, as compared by the gate",
        about=about,
        columns=names,
        paired=paired,
        rows=[
            _row(tone, name, *(each[measure] for each in columns))
            for tone, group in groups.items()
            for columns in [[c for c in (group.candidate, group.current, group.difference) if c]]
            for measure, name in _GATE_MEASURES.items()
        ],
    )


def holdout_lesion_iou(version: ModelVersion) -> dict[str, Any] | None:
    """Return lesion IoU over all hold-out images; None without any."""
    table = holdout_table(version)
    return lookup(table, ALL, LESION)[0] if table else None


def side_by_side(tables: Mapping[str, PerformanceTable]) -> PerformanceTable | None:
    """Return the tables of several versions, by name, as columns of one table; None without any.

    Each version has its own images, so there is no difference.
    """
    if not tables:
        return None
    keys = dict.fromkeys((r["tone"], r["measure"]) for t in tables.values() for r in t["rows"])
    about = [f"{name}: {table['about']}" for name, table in tables.items()]
    if len(tables) > 1:
        about.append("The images may differ, so no difference is given.")
    return PerformanceTable(
        title=next(iter(tables.values()))["title"],
        about=" ".join(about),
        columns=list(tables),
        paired=False,
        rows=[
            PerformanceRow(
                tone=tone,
                measure=measure,
                figures=[lookup(table, tone, measure)[0] for table in tables.values()],
            )
            for tone, measure in keys
        ],
    )


def leaked_text(n: int) -> str:
    """Return what is wrong with estimates of which `n` images turned out to leak."""
    are = "is" if n == 1 else "are"
    return (
        f"Of these images, {n} {are} of a group (patient, lesion, near-duplicates) that it learned from, by "
        "ids that were corrected since: these estimates are too optimistic."
    )


def estimate_text(stored: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    """Return a stored `Estimate` as it is printed, always with its images and patients."""
    return "not measured" if stored is None else f"{_value_text(stored, signed)} {_size(stored)}"


def row_texts(table: PerformanceTable, row: PerformanceRow) -> list[str]:
    """Return the estimates of a row as they are printed, one a column.

    Paired ones are of the same images, whose number follows the last.
    """
    found = [figure for figure in row["figures"] if figure is not None]
    if not table["paired"] or len(found) < len(row["figures"]):
        return [estimate_text(figure) for figure in row["figures"]]
    texts = [_value_text(figure, signed=k == 2) for k, figure in enumerate(found)]
    return [*texts[:-1], f"{texts[-1]} {_size(found[-1])}"]


def _value_text(stored: Mapping[str, Any], signed: bool) -> str:
    estimate, form = Estimate.from_json(stored), "+.3f" if signed else ".2f"
    if estimate.value is None:
        return "too few"
    return estimate.text(form) if estimate.interval else f"{estimate.value:{form}} (too few)"


def _size(stored: Mapping[str, Any]) -> str:
    return f"n={stored['n']}" + (f"/{stored['patients']}" if "patients" in stored else "")


def lookup(table: PerformanceTable, tone: str, measure: str) -> list[dict[str, Any] | None]:
    """Return the estimates of a row, one a column; None in each if the table has no such row."""
    for row in table["rows"]:
        if (row["tone"], row["measure"]) == (tone, measure):
            return row["figures"]
    return [None] * len(table["columns"])


def tones_text(by_tone: Mapping[str, int]) -> str:
    """Return counts by tone in the protocol's order: "I-II 20, V-VI 3"."""
    order = [tone.name for tone in load_protocol().tones]
    return ", ".join(f"{tone} {by_tone[tone]}" for tone in sorted(by_tone, key=order.index))


def _random(workspace: Workspace, version: ModelVersion) -> PerformanceTable | None:
    """Return lesion IoU on images that were sampled at random and not learned from."""
    provenance, masks = workspace.catalogue.provenance, workspace.catalogue.masks
    sampled = workspace.catalogue.batches.random_images()
    predicted = masks.predictions_by(version.id, sampled)
    accepted = masks.accepted()
    wanted = accepted.keys() & predicted.keys()
    groups = Groups.read(workspace.catalogue)
    wanted -= (learned := provenance.images_learned([version.id]))
    wanted -= (leaked := groups.sharing(wanted, learned))
    if not wanted:
        return None
    images = workspace.catalogue.images.select(ids=sorted(wanted))
    pairs = [(image, accepted[image.id], predicted[image.id]) for image in images]
    names = load_protocol().class_names
    keys = groups.keys(images)
    confusions = np.stack([_confusion(workspace, *pair, len(names)) for pair in pairs])
    valid = np.array([[c in truth.classes for c in range(len(names))] for _, truth, _ in pairs])
    tones = [image.tone for image in images]
    overall = estimate_classes(confusions, keys, valid, names)
    by_tone = estimate_classes_by_stratum(confusions, keys, valid, tones, names)
    own = len(provenance.predictions_under([truth.id for _, truth, _ in pairs], version.id))
    return PerformanceTable(
        title="Accepted images that were sampled at random",
        about=f"{sample_size(len(images), len(set(keys)))}, sampled at random, not because a model "
        "was uncertain, and not learned from: this test has no selection bias. Masks that were "
        f"corrected from this version's own predictions, which favours it: {own}.{_left_out(len(leaked))}",
        columns=[version.name],
        paired=False,
        rows=[
            _row(tone, LESION, scores["lesion"].iou_mean)
            for tone, scores in {ALL: overall, **by_tone}.items()
        ],
    )


def _left_out(leaked: int) -> str:
    if not leaked:
        return ""
    return f" Left out, since it learned from others of their groups (patient, lesion, near-duplicates): {leaked}."


def _confusion(
    workspace: Workspace, image: Image, truth: Mask, prediction: Mask, classes: int
) -> NDArray[np.int64]:
    true = workspace.mask_over(image, truth)
    if metrics.labels_one_class(true):
        return np.zeros((classes, classes), np.int64)  # no IoU of it is defined
    return metrics.confusion(true, workspace.mask_over(image, prediction), classes)


def _evaluation(workspace: Workspace, version: ModelVersion) -> PerformanceTable | None:
    last = workspace.catalogue.evaluations.last()
    if last is None or last[1].models.keys() != {version.name}:
        return None
    at, found = last
    rows = [_row(ALL, f"{name} IoU", score.iou_mean) for name, score in found.classes.items()]
    rows += [
        _row(tone, LESION, scores["lesion"].iou_mean)
        for tone, scores in found.by_tone.items()
        if "lesion" in scores
    ]
    part = f" of subset {found.subset}" if found.subset else ""
    return PerformanceTable(
        title="The last evaluation",
        about=f"{at[:10]}: {sample_size(found.n_images, found.patients)}{part}, not learned from, against "
        f"{PurePath(found.truth).name}; mean IoU over images.",
        columns=[version.name],
        paired=False,
        rows=rows,
    )


def _validation(version: ModelVersion) -> PerformanceTable | None:
    found = version.training.validation
    if found is None:
        return None
    return PerformanceTable(
        title="Validation split of the training",
        about=f"{sample_size(found.images, None)} ({tones_text(found.by_tone)}). They ended the training and set "
        "the temperature, so these estimates are slightly optimistic.",
        columns=[version.name],
        paired=False,
        rows=[_row(ALL, f"{name} IoU", score.iou_mean) for name, score in found.scores.items()],
    )


def _out_of_fold(version: ModelVersion) -> PerformanceTable | None:
    found = version.training.out_of_fold
    if found is None:
        return None
    return PerformanceTable(
        title="Training images, each by the members that did not learn from it",
        about=f"{sample_size(found['images'], None)} ({tones_text(found['by_tone'])}), drawn at random from them. "
        "A fifth of the members predicts less well than all; what decides was chosen on these images.",
        columns=[version.name],
        paired=False,
        rows=[
            _row(tone, f"{name} IoU", ClassEstimates.from_json(score).iou_mean)
            for tone, scores in found["scores"].items()
            for name, score in scores.items()
            if tone == ALL or f"{name} IoU" == LESION
        ],
    )


def _malignancy_validation(version: ModelVersion) -> PerformanceTable | None:
    training = version.classifier_training
    found = training.scores
    of = f"{sample_size(found[ALL].n, found[ALL].patients)}, {found[ALL].malignant} of them malignant"
    rows = [
        _row(tone, name, estimate)
        for tone, group in found.items()
        for name, estimate in group.estimates.items()
    ]
    if not training.folds:
        return PerformanceTable(
            title="Validation split of the training",
            about=f"{of}. They chose the epoch and the threshold, so these estimates are optimistic.",
            columns=[version.name],
            paired=False,
            rows=rows,
        )
    names = {"colour": "ROC-AUC of colour alone", "covariates": "ROC-AUC of the answers alone"}
    rows += [
        _row(tone, names[reader], group.estimates["ROC-AUC"])
        for reader, by_tone in training.beside.items()
        for tone, group in by_tone.items()
    ]
    return PerformanceTable(
        title="Cross-validation of the training",
        about=f"{of}, in {training.folds} folds of whole groups. They chose the threshold, so F1 and accuracy "
        "are slightly optimistic.",
        columns=[version.name],
        paired=False,
        rows=rows,
    )


def _row(tone: str, measure: str, *estimates: Estimate) -> PerformanceRow:
    return PerformanceRow(tone=tone, measure=measure, figures=[e.to_json() for e in estimates])
