"""What was measured of a model version: tables of figures, each with its n and interval.

Everything here is ready to be JSON. A figure is what the gate stores, see `ddiseg.evaluation.gate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol, metrics
from annotation_protocol.estimates import (
    FEW,
    Estimate,
    estimate_classes,
    estimate_classes_by_stratum,
)
from ddiseg.catalogue import ModelKind
from ddiseg.catalogue.provenance import Provenance
from ddiseg.catalogue.tables import Image, Mask, ModelVersion
from ddiseg.sampling.groups import patient_key
from ddiseg.workspace.workspace import Workspace

#: Names the rows of all images together, whatever their tone.
ALL = "all"

#: How the figures are to be read.
LEGEND = (
    "Square brackets hold 95 % intervals, from a bootstrap over patients; n counts images. Fewer than "
    f"{FEW} images, or one patient, are too few to say anything."
)

LESION = "lesion IoU"

_GATE_MEASURES = {"lesion_iou": LESION, "mean_iou": "mean IoU"}


class Figure(TypedDict):
    """A mean over images with its 95 % interval; both None where there are too few to say."""

    value: float | None
    interval: list[float] | None
    n: int  #: images that count


class Row(TypedDict):
    """One measure in one tone group, or in ALL."""

    tone: str
    measure: str
    figures: list[Figure | None]  #: one a column; None where it was not measured


class Table(TypedDict):
    """Figures that belong together."""

    title: str
    about: str  #: a sentence: which images, and how the figures came about
    columns: list[str]  #: names of versions
    paired: bool  #: a last column has the first minus the second, image by image
    rows: list[Row]


def measured(workspace: Workspace, version: ModelVersion) -> dict[str, Table]:
    """All that is known of how well a version does, the most trustworthy first.

    "random": on images drawn by lot; "held_out": as the gate saw it; "evaluation": the last one, if
    it was of this version alone; "validation": on the part that ended its training.
    """
    if version.kind == ModelKind.MALIGNANCY:
        tables = {"validation": _malignancy_validation(version)}
    else:
        tables = {
            "random": _random(workspace, version),
            "held_out": held_out(version),
            "evaluation": _evaluation(workspace, version),
            "validation": _validation(version),
        }
    return {key: table for key, table in tables.items() if table is not None}


def held_out(version: ModelVersion) -> Table | None:
    """What the gate measured: of the version, of the one then in use, and their difference.

    None where no image was held out.
    """
    decision = version.decision
    if decision is None or not decision.holdout.images:
        return None
    seen = decision.holdout
    names = [version.name]
    paired = decision.overall.difference is not None
    if paired:
        other = str(decision.compared_with)
        names += [other, f"{version.name} minus {other}"]
    groups = {ALL: decision.overall, **decision.by_tone}
    about = (
        f"{_counted(seen.images, seen.patients)}, not learned from, that were held out when it "
        "was trained."
    )
    if leaning := sum(seen.over_predictions.values()):
        about += (
            f" {leaning} of their masks were drawn over the painting of {decision.compared_with}, "
            "which flatters that version; they count only where the others are too few."
        )
    return Table(
        title="Held-out images, as the gate saw them",
        about=about,
        columns=names,
        paired=paired,
        rows=[
            Row(tone=tone, measure=name, figures=[_figure(each[measure]) for each in columns])
            for tone, group in groups.items()
            for columns in [[c for c in (group.candidate, group.current, group.difference) if c]]
            for measure, name in _GATE_MEASURES.items()
        ],
    )


def held_out_lesion(version: ModelVersion) -> Figure | None:
    """Lesion IoU over all held-out images; None where none was held out."""
    table = held_out(version)
    return lookup(table, ALL, LESION)[0] if table else None


def beside(tables: Mapping[str, Table]) -> Table | None:
    """What each version measured by itself in one table, by the version's name.

    The images are each version's own, so nothing is subtracted. None without any table.
    """
    if not tables:
        return None
    keys = dict.fromkeys((r["tone"], r["measure"]) for t in tables.values() for r in t["rows"])
    about = [f"{name}: {table['about']}" for name, table in tables.items()]
    if len(tables) > 1:
        about.append("They need not be the same images, so nothing is subtracted.")
    return Table(
        title=next(iter(tables.values()))["title"],
        about=" ".join(about),
        columns=list(tables),
        paired=False,
        rows=[
            Row(
                tone=tone,
                measure=measure,
                figures=[lookup(table, tone, measure)[0] for table in tables.values()],
            )
            for tone, measure in keys
        ],
    )


def figure_text(figure: Figure | None, *, signed: bool = False) -> str:
    """A figure as it is printed: never without its n, and not at all without its interval."""
    if figure is None:
        return "not measured"
    if figure["value"] is None or figure["interval"] is None:
        return f"too few to say (n = {figure['n']})"
    (low, high), form = figure["interval"], "+.3f" if signed else ".2f"
    return f"{figure['value']:{form}} [{low:{form}}, {high:{form}}] n={figure['n']}"


def row_texts(table: Table, row: Row) -> list[str]:
    """The figures of a row as they are printed, one a column."""
    signed = [table["paired"] and k == 2 for k in range(len(row["figures"]))]
    return [figure_text(f, signed=s) for f, s in zip(row["figures"], signed, strict=True)]


def lookup(table: Table, tone: str, measure: str) -> list[Figure | None]:
    """The figures of a row, one a column; None in each where the table has no such row."""
    for row in table["rows"]:
        if (row["tone"], row["measure"]) == (tone, measure):
            return row["figures"]
    return [None] * len(table["columns"])


def tones_text(by_tone: Mapping[str, int]) -> str:
    """Counts by tone in the protocol's order: "I-II 20, V-VI 3"."""
    order = [tone.name for tone in load_protocol().tones]
    return ", ".join(f"{tone} {by_tone[tone]}" for tone in sorted(by_tone, key=order.index))


def _random(workspace: Workspace, version: ModelVersion) -> Table | None:
    """Lesion IoU on images that were drawn by lot and whose masks the version never learned from."""
    masks = workspace.catalogue.masks.all()
    lineage = Provenance(masks)
    painted = {mask.image_id: mask for mask in masks if mask.model_version_id == version.id}
    accepted = workspace.catalogue.masks.accepted()
    wanted = workspace.catalogue.batches.random_images() & accepted.keys() & painted.keys()
    wanted -= lineage.images_learned(version.training_masks)
    if not wanted:
        return None
    images = workspace.catalogue.images.select(ids=sorted(wanted))
    pairs = [(image, accepted[image.id], painted[image.id]) for image in images]
    names = load_protocol().class_names
    patients = [patient_key(image) for image in images]
    confusions = np.stack([_confusion(workspace, *pair, len(names)) for pair in pairs])
    valid = np.array([[c in truth.classes for c in range(len(names))] for _, truth, _ in pairs])
    overall = estimate_classes(confusions, patients, valid, names)
    by_tone = estimate_classes_by_stratum(
        confusions, patients, valid, [i.tone for i in images], names
    )
    own = sum(lineage.prediction_under(truth, version.id) is not None for _, truth, _ in pairs)
    return Table(
        title="Accepted images that were drawn at random",
        about=f"{_counted(len(images), len(set(patients)))}, drawn by lot, not because a model was "
        "unsure of them, and not learned from; this is the test without bias of choice. "
        f"Masks drawn over this version's own painting, which flatters it: {own}.",
        columns=[version.name],
        paired=False,
        rows=[
            Row(
                tone=tone,
                measure=LESION,
                figures=[_enough(scores["lesion"].iou_mean)],
            )
            for tone, scores in {ALL: overall, **by_tone}.items()
        ],
    )


def _confusion(
    workspace: Workspace, image: Image, truth: Mask, prediction: Mask, classes: int
) -> NDArray[np.int64]:
    return metrics.confusion(
        workspace.mask_over(image, truth), workspace.mask_over(image, prediction), classes
    )


def _evaluation(workspace: Workspace, version: ModelVersion) -> Table | None:
    last = workspace.catalogue.evaluations.last()
    if last is None or last[1].models.keys() != {version.name}:
        return None
    at, found = last
    rows = [
        Row(tone=ALL, measure=f"{name} IoU", figures=[_enough(score.iou_mean)])
        for name, score in found.classes.items()
    ]
    rows += [
        Row(tone=tone, measure=LESION, figures=[_enough(scores["lesion"].iou_mean)])
        for tone, scores in found.by_tone.items()
        if "lesion" in scores
    ]
    part = f" of subset {found.subset}" if found.subset else ""
    return Table(
        title="The last evaluation",
        about=f"{at[:10]}: {_counted(found.n_images, found.patients)}{part}, not learned "
        f"from, against {PurePath(found.truth).name}; mean IoU over images.",
        columns=[version.name],
        paired=False,
        rows=rows,
    )


def _validation(version: ModelVersion) -> Table | None:
    found = version.training.validation
    if found is None:
        return None
    return Table(
        title="The part kept out of training to end it by",
        about=f"{found.images} images ({tones_text(found.by_tone)}). They ended the training "
        "and set the temperature, so these figures flatter a little.",
        columns=[version.name],
        paired=False,
        rows=[
            Row(tone=ALL, measure=f"{name} IoU", figures=[_enough(score.iou_mean)])
            for name, score in found.scores.items()
        ],
    )


def _malignancy_validation(version: ModelVersion) -> Table | None:
    found = version.classifier_training.scores
    return Table(
        title="Its validation images",
        about=f"{_counted(found[ALL].n, found[ALL].patients)}, {found[ALL].malignant} of "
        "them malignant. They chose the epoch and the threshold, so these figures flatter.",
        columns=[version.name],
        paired=False,
        rows=[
            Row(tone=tone, measure=name, figures=[_enough(estimate)])
            for tone, group in found.items()
            for name, estimate in group.estimates.items()
        ],
    )


def _enough(estimate: Estimate) -> Figure:
    """Return an estimate as a table has it: without a value where there are too few images."""
    if estimate.value is None or estimate.interval is None or estimate.n < FEW:
        return Figure(value=None, interval=None, n=estimate.n)
    return _figure(estimate)


def _figure(estimate: Estimate) -> Figure:
    interval = None if estimate.interval is None else list(estimate.interval)
    return Figure(value=estimate.value, interval=interval, n=estimate.n)


def _counted(images: int, patients: int) -> str:
    return f"{images} images of {patients} patients"
