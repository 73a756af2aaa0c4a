"""Typed records of what the database stores as JSON: trainings, gate decisions, evaluations.

The JSON keeps the keys that it had when a row was written: a field with another name says which key
it is stored under, or "was" stored under. A key that an older program did not write gets the field's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import cache
from types import NoneType
from typing import Any, Self, get_args, get_origin, get_type_hints

from annotation_protocol.estimates import ClassEstimates, Estimate, too_few
from annotation_protocol.intervals import Interval


class Record:
    """A frozen dataclass that is stored as a JSON object."""

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Return the record of a JSON object; keys without a field are left out."""
        found = _fields(cls)  # type: ignore[arg-type] # mypy takes no class for hashable
        old = {f.name: f.metadata.get("was", "") for f in fields(cls)}  # type: ignore[arg-type]
        keys = {name: old[name] if old[name] in stored else key for name, key, _ in found}
        return cls(**{n: _read(kind, stored[keys[n]]) for n, _, kind in found if keys[n] in stored})

    def to_json(self) -> dict[str, Any]:
        """Return the record as the JSON object that is stored."""
        found = _fields(type(self))  # type: ignore[arg-type] # as above
        return {key: _plain(getattr(self, name)) for name, key, _ in found}


@cache
def _fields(record: type[Any]) -> list[tuple[str, str, Any]]:
    """Return the name, the key in JSON and the type of each field."""
    types = get_type_hints(record)
    return [(f.name, f.metadata.get("key", f.name), types[f.name]) for f in fields(record)]


def _read(kind: Any, value: Any) -> Any:
    """Return a value of JSON as a field of a type holds it."""
    if value is None:
        return None
    parts = [part for part in get_args(kind) if part is not NoneType]
    if NoneType in get_args(kind):
        return _read(parts[0], value)
    if get_origin(kind) is tuple:
        return tuple(value)
    if get_origin(kind) is dict:
        return {key: _read(parts[1], each) for key, each in value.items()}
    return kind.from_json(value) if hasattr(kind, "from_json") else value


def _plain(value: Any) -> Any:
    if isinstance(value, Record | Estimate | ClassEstimates):
        return value.to_json()
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class ValidationRecord(Record):
    """What was measured on the validation split of a training of probes."""

    images: int
    by_tone: dict[str, int]
    #: Content hashes of its images; empty where an older program trained.
    members: tuple[str, ...] = ()
    loss: float | None = None
    calibration: dict[str, Any] | None = None  #: temperature and errors; None: not calibrated
    scores: dict[str, ClassEstimates] = field(default_factory=dict)  #: by class


@dataclass(frozen=True)
class StoredTraining(Record):
    """A training of probes: `metrics` of a segmentation model."""

    seconds: float | None = None
    images: int = 0
    by_tone: dict[str, int] = field(default_factory=dict)
    absent_classes: tuple[str, ...] = ()  #: never predicted
    went_on_from: str | None = None  #: name of the version that it was started from
    steps: int | None = None
    precision: str = "float32"  #: of the activations
    notes: tuple[str, ...] = ()
    validation: ValidationRecord | None = None
    calibration: dict[str, Any] | None = None  #: of the probabilities; None: not calibrated
    #: What decides, with the candidates, and the reliability of the expected IoU; None in old records.
    own_masks: dict[str, Any] | None = None
    #: IoU by tone and class of training images, each by the members that did not learn from it.
    out_of_fold: dict[str, Any] | None = None
    styles: tuple[
        dict[str, Any], ...
    ] = ()  #: annotators who draw clearly larger or smaller lesions


@dataclass(frozen=True)
class DiscriminationRecord(Record):
    """How well a classifier tells malignant from benign in a set of images."""

    threshold: float | None = None
    roc_auc: float | None = None
    roc_auc_ci95: Interval | None = None
    f1: float | None = None
    f1_ci95: Interval | None = None
    accuracy: float | None = None
    accuracy_ci95: Interval | None = None
    n: int = 0  #: images
    malignant: int = 0  #: of them
    patients: int = 0
    lacking: str = ""  #: what is too few for an interval: patients of each class
    accuracy_threshold: float | None = None  #: where it is another than that of F1

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The estimates by their names."""
        found = {
            "ROC-AUC": (self.roc_auc, self.roc_auc_ci95),
            "F1": (self.f1, self.f1_ci95),
            "accuracy": (self.accuracy, self.accuracy_ci95),
        }
        # An older version stored intervals from two patients of a class on.
        few = too_few((self.malignant, self.n - self.malignant))
        images = f"{self.malignant} malignant, {self.n - self.malignant} benign"
        lacking = self.lacking or (images if few and self.n else "")
        return {
            name: replace(
                Estimate.of(value, None if few else interval, self.n, self.patients),
                lacking=lacking,
            )
            for name, (value, interval) in found.items()
        }


@dataclass(frozen=True)
class ClassifierRecord(Record):
    """A training of a malignancy classifier: `metrics` of its version."""

    note: str = ""
    seconds: float | None = None
    images: int = 0
    malignant: int = 0  #: images
    validation: int = 0  #: images in the validation split
    by_tone: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)  #: images by reason
    epochs: int | None = None
    best_epoch: int | None = None
    threshold: float = 0.5
    precision: str = "float32"  #: of the activations
    #: On its validation images: "all" first, then by tone.
    scores: dict[str, DiscriminationRecord] = field(
        default_factory=dict, metadata={"key": "on_its_validation_images"}
    )
    recipe: str = "paper"
    folds: int = (
        0  #: of the cross-validation that gave the scores; 0: they are of a validation split
    )
    covariates: tuple[str, ...] = ()  #: clinical questions that it reads
    imputed: dict[str, int] = field(default_factory=dict)  #: training images without an answer
    #: ROC-AUC on the same images of what stands beside it, by "colour" and "covariates", then by tone.
    beside: dict[str, dict[str, DiscriminationRecord]] = field(default_factory=dict)


class CurrentPrediction(StrEnum):
    """What became of the current model's prediction when an accepted mask was drawn."""

    NONE = "none"  #: none was shown
    UNCHANGED = "unchanged"  #: it was accepted as it was
    CORRECTED = "corrected"


@dataclass(frozen=True)
class HoldoutCounts(Record):
    """The hold-out set of a gate decision."""

    images: int = 0
    patients: int = 0
    by_tone: dict[str, int] = field(default_factory=dict)  #: images
    #: Content hashes of the images; empty where an older program decided.
    members: tuple[str, ...] = ()
    #: Images left out, as their groups have images that a compared version learned from.
    leaked: int = 0
    #: Masks that were drawn over a prediction of the current model, by `CurrentPrediction`.
    over_predictions: dict[str, int] = field(
        default_factory=dict, metadata={"key": "drawn_over_its_painting"}
    )


@dataclass(frozen=True)
class GateComparison(Record):
    """The estimates of a group of hold-out images, by "mean_iou" and "lesion_iou"."""

    n: int = 0  #: images
    #: Of them, those with a mask that was drawn over a prediction of the current model.
    over_predictions: int = field(default=0, metadata={"key": "painted"})
    patients: int = 0
    candidate: dict[str, Estimate] = field(default_factory=dict)
    current: dict[str, Estimate] | None = None
    difference: dict[str, Estimate] | None = None  #: candidate minus current, image by image

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Return the comparison; estimates that were stored without their patients get the group's."""
        patients = stored.get("patients")
        sided = {
            side: {name: {"patients": patients, **each} for name, each in stored[side].items()}
            for side in ("candidate", "current", "difference")
            if stored.get(side)
        }
        return super().from_json({**stored, **sided})


@dataclass(frozen=True)
class GateDecision(Record):
    """What the gate decided of a model version, and why: `gate` of its row."""

    passed: bool = False
    #: False where there was nothing, or too little, to compare.
    evaluated: bool = field(default=True, metadata={"key": "judged"})
    reasons: tuple[str, ...] = ()  #: a line each, what decided first
    compared_with: str | None = None  #: name of the current model
    #: By how much the lower bound of a tone may fall, in IoU.
    max_drop: float | None = field(default=None, metadata={"key": "tolerance"})
    holdout: HoldoutCounts = field(
        default_factory=HoldoutCounts, metadata={"key": "held_out"}
    )  #: compared or not
    overall: GateComparison = field(default_factory=GateComparison)
    by_tone: dict[str, GateComparison] = field(default_factory=dict)  #: in the protocol's order
    #: How the intervals were made.
    intervals: dict[str, Any] = field(default_factory=dict, metadata={"was": "bootstrap"})


@dataclass(frozen=True)
class EvaluationRecord(Record):
    """What `ddiseg evaluate` measured."""

    truth: str = ""  #: folder of the true masks, or "accepted masks"
    format: str | None = None
    subset: str | None = None
    models: dict[str, int] = field(default_factory=dict)  #: images by the model that predicted them
    n_images: int = 0
    patients: int = 0
    learned_from: int = 0  #: images left out, as the model learned from them
    same_group: int = 0  #: left out, as it learned from others of their group
    without_prediction: int = 0
    notes: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()  #: true masks, with the reason
    intervals: dict[str, Any] = field(default_factory=dict, metadata={"was": "bootstrap"})
    classes: dict[str, ClassEstimates] = field(default_factory=dict)
    by_tone: dict[str, dict[str, ClassEstimates]] = field(default_factory=dict)


@dataclass(frozen=True)
class RobustnessRecord(Record):
    """What `ddiseg sensitivity` measured: how far masks move when the light changes a little."""

    model: str = ""
    subset: str | None = None
    states: tuple[str, ...] = ()
    per_tone: int | None = None
    seed: int | None = None
    n_images: int = 0
    patients: int = 0
    learned_from: int = 0  #: images left out, as the model learned from them
    same_group: int = 0  #: left out, as it learned from others of their group
    refused: tuple[str, ...] = ()  #: photographs, with the reason
    intervals: dict[str, Any] = field(default_factory=dict, metadata={"was": "bootstrap"})
    control: str = ""  #: the change that no eye sees
    without_lesion: int = 0  #: images without a lesion in any mask
    by_change: dict[str, dict[str, ClassEstimates]] = field(
        default_factory=dict
    )  #: then "all" or tone
    together: dict[str, Any] = field(default_factory=dict)  #: by tone, mean over the changes
    difference: dict[str, Any] | None = None  #: between the lightest and the darkest tone
    beyond_noise: dict[str, Any] | None = None  #: changes of light minus the control
    sentences: tuple[str, ...] = ()


@dataclass(frozen=True)
class PullRecord(Record):
    """How far a person's pull came: `detail` of its event."""

    newest: int  #: id of the newest version of an annotation that was stored then
