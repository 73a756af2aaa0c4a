"""One JSON export of Label Studio with the masks of many images.

The format `labelstudio`: brush strokes and polygons of any project, with labels of any name.
https://labelstud.io/guide/export#Label-Studio-JSON-format-of-annotated-tasks
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from annotation_protocol.label_studio_config import IMAGE, SKIP_REASON, VERDICT
from ddiseg.errors import InputError
from ddiseg.images import ENDINGS
from ddiseg.ingest.folder import read_json, without_ending
from ddiseg.ingest.labelled_masks import LabelledMasks, Labels, compose_labelled, stack_labelled
from ddiseg.ingest.mask_files import MaskFile
from ddiseg.ingest.mask_targets import without_upload_prefix
from ddiseg.json_values import size_of, whole_number
from ddiseg.masks import Layer, Mask, Origin, compose
from ddiseg.masks.label_studio_region import BRUSH, POLYGON, read_region
from ddiseg.masks.stacking import StackedRegion
from ddiseg.outcomes import FileOutcome, Note, Outcome, counted, one_file

MASK_ENDINGS = (".json",)

#: Entries of a result that are answers, not regions.
_ANSWERS = {"choices", "textarea", "rating", "number", "datetime", "taxonomy", "relation"}

#: Key in the data of the tasks that ddiseg makes; `name` is then the image's own.
_OWN = "ddiseg"

Region = Mapping[str, Any]


def fits(path: Path) -> bool:
    """Return whether a path is a file with tasks of Label Studio."""
    if not path.is_file() or path.suffix.lower() != ".json":
        return False
    try:
        return bool(_tasks(path))
    except InputError:
        return False


def read_masks(path: Path, labels: Labels) -> LabelledMasks:
    """Read the newest annotation of each person in each task that was not cancelled.

    Who has the oldest annotation of a task comes first: it decides about the image, as everywhere
    (docs/decisions/0009). The others' are independent readings.

    Raises:
        InputError: no such file, another format, or labels whose class is unknown.
    """
    tasks = _tasks(path)
    annotated: list[_TaskAnnotation] = []
    refused: list[FileOutcome] = []
    left: Counter[str] = Counter()
    for number, task in enumerate(tasks, 1):
        title = f"task {task.get('id', f'number {number} of the file')}"
        try:
            with one_file():
                chosen = _newest_by_person(task, left)
        except InputError as error:
            refused.append(FileOutcome(title, Outcome.REFUSED, str(error)))
            continue
        for annotation in chosen:
            name = title if len(chosen) == 1 else f"{title}, {_annotator(annotation)}"
            try:
                with one_file():
                    name = f"{_name(_picture(task))} ({name})"
                    annotated.append(_read(name, task, annotation))
            except InputError as error:
                refused.append(FileOutcome(name, Outcome.REFUSED, str(error)))
    used = {label for d in annotated for region in d.regions for label in _labels(region)}
    labels.check(used)
    possible = labels.known(used) | set(labels.given.values()) | {labels.rest_id}
    files = [_mask_file(d, labels, possible) for d in annotated]
    return LabelledMasks(files, refused, [f"{what}: {n}" for what, n in left.items()])


@dataclass(frozen=True)
class _TaskAnnotation:
    """The annotation of a task."""

    name: str
    picture: str  #: path or name of the photograph
    annotator: str | None
    regions: Sequence[Region]  #: brush strokes and polygons
    predicted: Sequence[Region]  #: those of the prediction that it began with
    own: bool  #: in a project of ddiseg

    @property
    def outlines(self) -> bool:
        """Whether it is all polygons that a person drew: these have neither holes nor an order."""
        return not self.own and all(
            region.get("type") == POLYGON
            and region.get("origin") not in (Origin.PREDICTION, Origin.CHANGED)
            for region in self.regions
        )


def _tasks(path: Path) -> list[Mapping[str, Any]]:
    document = read_json(path)
    if isinstance(document, dict) and "images" in document:
        raise InputError(f"{path} is a COCO file: give --as coco")
    tasks = [document] if isinstance(document, dict) else document
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise InputError(f"{path} is no list of tasks: export it from Label Studio as JSON")
    if any("annotation_id" in task and "annotations" not in task for task in tasks):
        raise InputError(
            f"{path} is a JSON-MIN export, which does not say what a person changed in a region "
            "of the prediction: export it from Label Studio as JSON"
        )
    if not all("annotations" in task and "data" in task for task in tasks):
        raise InputError(
            f"{path} has tasks without 'data' or 'annotations': export it from Label Studio as JSON"
        )
    return tasks


def _newest_by_person(task: Mapping[str, Any], left: Counter[str]) -> list[Mapping[str, Any]]:
    """Return the annotations that count; count the others in `left`.

    That is each person's newest; first that of who has the oldest of all.
    """
    annotations = _dicts(task["annotations"])
    submitted = [a for a in annotations if not a.get("was_cancelled")]
    if cancelled := len(annotations) - len(submitted):
        left["cancelled annotations left out; 'ddiseg skip' takes them, with a reason"] += cancelled
    if not submitted:
        left["tasks without anything submitted"] += 1
        return []
    by_person: dict[str | None, list[Mapping[str, Any]]] = {}
    for annotation in sorted(submitted, key=_age):
        by_person.setdefault(_annotator(annotation), []).append(annotation)
    if older := len(submitted) - len(by_person):
        left["older annotations left out, the newest of a person counts"] += older
    return [max(each, key=_changed) for each in by_person.values()]


def _age(annotation: Mapping[str, Any]) -> tuple[int, str]:
    """Return by what annotations are sorted, the oldest first: Label Studio numbers them in order."""
    number = annotation.get("id")
    return (number if isinstance(number, int) else 0), str(annotation.get("created_at") or "")


def _changed(annotation: Mapping[str, Any]) -> str:
    return str(annotation.get("updated_at") or annotation.get("created_at") or "")


def _picture(task: Mapping[str, Any]) -> str:
    """Return the path or name of a task's photograph, as the task has it."""
    data = task["data"] if isinstance(task["data"], dict) else {}
    if _is_own(task):
        return str(data.get("name"))
    if isinstance(data.get(IMAGE), str):
        return _path(data[IMAGE])
    paths = [_path(value) for value in data.values() if isinstance(value, str)]
    pictures = [path for path in paths if path.lower().endswith(ENDINGS)]
    if len(pictures) != 1:
        raise InputError(f"its data names {counted(len(pictures), 'picture')} instead of one")
    return pictures[0]


def _name(picture: str) -> str:
    """Return the name of a photograph for people: without its folders and an upload's prefix."""
    return without_upload_prefix(picture.rsplit("/", 1)[-1])


def _is_own(task: Mapping[str, Any]) -> bool:
    return isinstance(task["data"], dict) and _OWN in task["data"]


def _path(address: str) -> str:
    """Return the path in a path, a URL, or an address in Label Studio's own storage."""
    if address.startswith("data:"):
        raise InputError("its picture is written into the task and has no name")
    parts = urlsplit(address)
    path = unquote(parts.path)
    if path.endswith("/data/local-files/"):
        path = parse_qs(parts.query).get("d", [""])[0]
    return path.replace("\\", "/")


def _read(name: str, task: Mapping[str, Any], annotation: Mapping[str, Any]) -> _TaskAnnotation:
    result = _dicts(annotation.get("result"))
    own = _is_own(task)
    answers = {e.get("from_name") for e in result if e.get("type") in _ANSWERS}
    if own and VERDICT in answers:
        raise InputError(
            "it is a review: give the export of the annotation project, or 'ddiseg label pull'"
        )
    if own and SKIP_REASON in answers:
        raise InputError("it was submitted with a reason to skip it: skip it, or take that away")
    regions = [e for e in result if e.get("type") not in _ANSWERS]
    others = sorted({str(e.get("type")) for e in regions} - {BRUSH, POLYGON})
    if others:
        raise InputError(
            f"it has regions of type {', '.join(others)}: only {BRUSH} and {POLYGON} can be read; "
            "draw it with these"
        )
    if not regions:
        raise InputError("it was submitted with nothing drawn")
    return _TaskAnnotation(
        name=name,
        picture=_picture(task),
        annotator=_annotator(annotation),
        regions=regions,
        predicted=_predicted(task, annotation),
        own=own,
    )


def _annotator(annotation: Mapping[str, Any]) -> str | None:
    """Return the annotator's address or number, as the export has it."""
    who = annotation.get("completed_by")
    if isinstance(who, dict):
        names = (who.get(key) for key in ("email", "username"))
        named = next((str(name) for name in names if str(name or "").strip()), None)
        number = who.get("id")
        return named or (f"user {number}" if number is not None else None)
    return None if who is None else f"user {who}"


def _predicted(task: Mapping[str, Any], annotation: Mapping[str, Any]) -> list[Region]:
    """Return the regions of the prediction that an annotation began with, if the export has them."""
    prediction = annotation.get("prediction")
    if not (isinstance(prediction, dict) and prediction.get("result")):
        number, listed = annotation.get("parent_prediction"), task.get("predictions")
        begun = (p for p in _dicts(listed) if number is not None and _same_id(p.get("id"), number))
        prediction = next(begun, {})
    regions = _dicts(prediction.get("result"))
    return [region for region in regions if region.get("type") in (BRUSH, POLYGON)]


def _same_id(a: object, b: object) -> bool:
    whole = whole_number(a), whole_number(b)
    return a == b if None in whole else whole[0] == whole[1]


def _dicts(entries: Any) -> list[Mapping[str, Any]]:
    return [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []


def _labels(region: Region) -> list[str]:
    value = region.get("value")
    labels = value.get(str(region.get("type"))) if isinstance(value, dict) else None
    return [str(label) for label in labels] if isinstance(labels, list) else []


def _mask_file(task: _TaskAnnotation, labels: Labels, possible: set[int]) -> MaskFile:
    notes: list[Note] = []
    every = range(len(labels.protocol.classes))
    return MaskFile(
        name=task.name,
        photograph=without_ending(task.picture),
        load=partial(_compose, task, labels, notes),
        classes=tuple(every if task.own else sorted(possible)),
        stretched=task.own,  # people see large photographs smaller there
        size=_size(task.regions[0]),
        annotator=task.annotator,
        unlabelled=True,
        notes=notes,
        own=task.own,
    )


def _compose(task: _TaskAnnotation, labels: Labels, notes: list[Note]) -> Mask:
    size = _size(task.regions[0])
    if size is None:
        raise InputError("its regions do not say how large the picture is: export it again")
    changed = any(region.get("origin") == Origin.CHANGED for region in task.regions)
    base = None
    if changed and task.predicted:
        predicted = [
            replace(layer, origin=Origin.PREDICTION)
            for layer in _layers(task.predicted, size, labels)
        ]
        base = compose(predicted, size, None, labels.protocol).mask
    layers = _layers(task.regions, size, labels)
    if task.outlines:
        named = (StackedRegion(each.class_id, each.region, each.name) for each in layers)
        stacked, decided = stack_labelled(named, size, labels)
        if stacked is None:
            raise InputError("no region of it covers a pixel: draw it again")
        mask = stacked
    else:
        mask, decided = compose_labelled(layers, size, base, labels)
    notes += decided
    return mask


def _layers(regions: Sequence[Region], size: tuple[int, int], labels: Labels) -> Iterator[Layer]:
    for region in regions:
        if region.get("image_rotation"):
            raise InputError("it was drawn on a turned picture: turn it upright and draw it again")
        yield read_region(region, size, labels.class_id)


def _size(region: Region) -> tuple[int, int] | None:
    return size_of(region.get("original_height"), region.get("original_width"))
