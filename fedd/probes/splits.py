"""What each member learns from: a validation split, or folds of the training images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from fedd.errors import TrainingDataError
from fedd.probes.folds import PATIENTS_PER_FOLD, assign_folds
from fedd.probes.pixels import PreparedExample
from fedd.segment import Probes, ProbeSettings
from fedd.validation import Candidate, ValidationSplit, validation_split


@dataclass(frozen=True)
class Splits:
    """The training and validation images, and what else a training starts from."""

    training: list[PreparedExample]
    validation: list[PreparedExample]
    warm_start: Probes | None  #: to continue from
    folds: Mapping[str, int] = field(default_factory=dict)  #: of patients; empty without folds
    notes: tuple[str, ...] = ()

    def folds_of(self, examples: list[PreparedExample]) -> tuple[int, ...]:
        """Return the fold of each example; empty without folds."""
        return tuple(self.folds[e.patient] for e in examples) if self.folds else ()


def split_examples(
    examples: list[PreparedExample],
    given: list[PreparedExample] | None,
    settings: ProbeSettings,
    warm_start: Probes | None,
) -> Splits:
    """Return the splits of `examples`; `given` is the validation split that a data set comes with.

    Raises TrainingDataError if a patient or an image would be in training and in the given split.
    """
    if given is not None:
        _check_apart(examples, given, warm_start)
    if settings.folds:
        return _with_folds(examples, given or [], settings, warm_start)
    if given is not None:
        return Splits(examples, given, warm_start)
    candidates = [Candidate(e.digest, e.patient, e.tone, e.classes) for e in examples]
    share, seed = settings.validation_share, settings.seed
    fresh = validation_split(candidates, share, seed)
    if warm_start is None:
        return _divided(examples, fresh, None, fresh.note)
    learned = set(warm_start.record.learned)
    kept = validation_split(candidates, share, seed, set(warm_start.record.validation), learned)
    if not learned or kept.leaked or (fresh.images and not kept.images):
        why = kept.note if kept.leaked else "the earlier probes left no image for validation"
        return _divided(examples, fresh, None, _from_scratch(why), fresh.note)
    return _divided(examples, kept, warm_start, kept.note)


def _check_apart(
    examples: list[PreparedExample], given: list[PreparedExample], warm_start: Probes | None
) -> None:
    if both := {e.patient for e in examples} & {e.patient for e in given}:
        raise TrainingDataError(
            f"{len(both)} patients are in the training and in the validation split, such as "
            f"{min(both)}: keep them apart"
        )
    learned = set(warm_start.record.learned) if warm_start else set()
    if any(example.digest in learned for example in given):
        raise TrainingDataError(
            "the probes to start from learned from images of the validation split: give "
            "another one, or train from scratch"
        )


def _divided(
    examples: list[PreparedExample],
    split: ValidationSplit,
    warm_start: Probes | None,
    *notes: str,
) -> Splits:
    chosen = set(split.images)
    training = [example for i, example in enumerate(examples) if i not in chosen]
    validation = [examples[i] for i in split.images]
    told = ("; ".join(filter(None, notes)),) if any(notes) else ()
    return Splits(training, validation, warm_start, notes=told)


def _with_folds(
    examples: list[PreparedExample],
    given: list[PreparedExample],
    settings: ProbeSettings,
    warm_start: Probes | None,
) -> Splits:
    """Return splits whose patients have folds, those of the earlier probes where these go on."""
    patients = [example.patient for example in examples]
    count, seed = settings.folds, settings.seed
    earlier, why = _earlier_folds(examples, warm_start) if warm_start else ({}, "")
    folds = assign_folds(patients, count, seed, {} if why else earlier)
    if warm_start is not None and not why and bool(folds) != bool(warm_start.record.folds):
        why = (
            "the members of the earlier probes each learned from all images"
            if folds
            else "the members of the earlier probes have folds"
        )
    notes = [_from_scratch(why)] if why else []
    if not folds:
        notes.append(
            f"{len(set(patients))} patients are too few for {count} folds (they need "
            f"{PATIENTS_PER_FOLD * count}): all members learned from all images"
            + ("" if given else ", and nothing was calibrated")
        )
    told = ("; ".join(notes),) if notes else ()
    by_patient = dict(zip(patients, folds, strict=True)) if folds else {}
    return Splits(examples, given, None if why else warm_start, by_patient, told)


def _earlier_folds(
    examples: list[PreparedExample], warm_start: Probes
) -> tuple[dict[str, int], str]:
    """Return the folds of patients in an earlier training, and why it can't be continued, if so."""
    record = warm_start.record
    if not record.learned:
        return {}, "the earlier probes don't say what they learned from"
    if not record.folds:
        return {}, ""
    by_digest = dict(zip(record.learned, record.folds, strict=True))
    found: dict[str, set[int]] = defaultdict(set)
    for example in examples:
        if example.digest in by_digest:
            found[example.patient].add(by_digest[example.digest])
    if any(len(folds) > 1 for folds in found.values()):
        return {}, "images of one patient are in different folds of the earlier probes"
    return {patient: folds.pop() for patient, folds in found.items()}, ""


def _from_scratch(why: str) -> str:
    return f"trained from scratch: {why}"
