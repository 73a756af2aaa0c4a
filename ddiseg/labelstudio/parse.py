"""Parse Label Studio's annotations: a mask, a skip or a verdict.

An annotation that can't be read raises no error: it is returned with a problem that names the
task's link, and the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from annotation_protocol import Protocol, ProtocolError
from annotation_protocol.label_studio_config import (
    CLICK,
    COMMENT,
    MASK,
    NOTE,
    SKIP_REASON,
    VERDICT,
    skip_reason_of,
    verdict_of,
)
from ddiseg import masks
from ddiseg.catalogue import REASON_MISSING, AnnotationVersion, Arm, NewMask, Purpose
from ddiseg.catalogue.tables import Image, Mask, Task
from ddiseg.errors import InputError
from ddiseg.labelstudio.task_payload import preannotated_mask
from ddiseg.masks.composition import Composition, Origin, compose
from ddiseg.masks.label_studio_region import BRUSH, read_region


@dataclass(frozen=True)
class TaskContext:
    """A task with everything needed to parse its annotations."""

    task: Task
    image: Image
    link: str  #: address at which a person opens the task
    purpose: Purpose
    #: Returns the mask of this image whose hash begins with the given digits; None if there is none.
    find_mask: Callable[[str], Mask | None]
    #: Returns a mask at the size of the picture that was sent, (H, W).
    pixels: Callable[[Mask], masks.Mask]
    store: Callable[[masks.Mask], str]  #: stores a mask, returns its hash


def parse_annotation(
    context: TaskContext,
    annotation: Mapping[str, Any],
    people: Mapping[int, str],
    protocol: Protocol,
) -> AnnotationVersion:
    """Parse one version of an annotation; a fault is reported in its `problem`."""
    empty = AnnotationVersion(
        task_id=context.task.id,
        remote_id=int(annotation["id"]),
        updated_at=str(annotation["updated_at"]),
        people=tuple(
            people.get(user, f"user {user}")
            for user in (annotation.get("completed_by"), annotation.get("updated_by"))
            if user is not None
        )
        or ("unknown",),
        lead_time=annotation.get("lead_time"),
        link=context.link,
    )
    try:
        return _read(context, empty, annotation, protocol)
    except (InputError, ProtocolError) as error:
        return replace(empty, problem=f"{error}; see {context.link}")


def _read(
    context: TaskContext,
    empty: AnnotationVersion,
    annotation: Mapping[str, Any],
    protocol: Protocol,
) -> AnnotationVersion:
    regions, choices = _split_result(annotation.get("result") or [])
    if context.purpose is Purpose.REVIEW:
        if annotation.get("was_cancelled"):
            raise InputError("the review was skipped: a review needs a verdict")
        if VERDICT not in choices:
            raise InputError("the review has no verdict: open it and choose one")
        verdict = verdict_of(choices[VERDICT], protocol)
        done = _mask(context, empty, regions, protocol)
        return replace(done, verdict=(verdict, choices.get(COMMENT)))
    if annotation.get("was_cancelled"):
        reason = REASON_MISSING
        if SKIP_REASON in choices:
            reason = skip_reason_of(choices[SKIP_REASON], protocol)
        return replace(empty, skip=(reason, choices.get(NOTE)))
    if SKIP_REASON in choices:
        raise InputError(
            f"it was submitted with the skip reason '{choices[SKIP_REASON]}': skip it, or take the "
            "reason away"
        )
    if not regions:
        raise InputError(
            "it was submitted without any region: draw one, or skip the task with a reason"
        )
    return _mask(context, empty, regions, protocol)


def _split_result(result: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Split a result into its brush regions, and its choices and texts by the control's name."""
    regions, choices = [], {}
    for entry in result:
        kind, control, value = entry.get("type"), entry.get("from_name"), entry.get("value") or {}
        if kind == BRUSH and control == MASK:
            regions.append(entry)
        elif kind == "choices" and control in (SKIP_REASON, VERDICT):
            choices[control] = str((value.get("choices") or [""])[0])
        elif kind == "textarea" and control in (NOTE, COMMENT):
            text = value.get("text") or ""
            choices[control] = "\n".join(text) if isinstance(text, list) else str(text)
        elif control == CLICK:
            pass  # a click whose region was not kept
        else:
            raise InputError(
                f"it holds a {kind} of '{control}', which the labelling configuration of the "
                "protocol does not have: delete it, or put the configuration back"
            )
    return regions, {control: text.strip() for control, text in choices.items() if text.strip()}


def _mask(
    context: TaskContext,
    empty: AnnotationVersion,
    regions: list[dict[str, Any]],
    protocol: Protocol,
) -> AnnotationVersion:
    base = _base_mask(context, regions)
    size = (context.task.height, context.task.width)
    pixels = None if base is None else context.pixels(base)
    layers = [
        read_region(region, size, lambda label: protocol.class_named(label).index)
        for region in regions
    ]
    found: Composition = compose(layers, size, pixels, protocol)
    same = size == (context.image.height, context.image.width)
    new = NewMask(
        image_id=context.image.id,
        content_hash=context.store(found.mask),
        width=size[1],
        height=size[0],
        mapping="same" if same else "stretched",
        classes=[entry.index for entry in protocol.classes],
        protocol_version=protocol.version,
        annotator=empty.author,
        parent_id=None if base is None else base.id,
        origin=f"{context.link} annotation {empty.remote_id}",
    )
    return replace(
        empty, mask=new, conflicts=found.conflicts, holes=found.holes, changed=found.changed
    )


def _base_mask(context: TaskContext, regions: list[dict[str, Any]]) -> Mask | None:
    """Return the mask that the person was shown; it may be older than the task's newest."""
    untouched = [str(r.get("id")) for r in regions if r.get("origin") in _PREANNOTATED]
    digest = preannotated_mask(untouched)
    if digest is not None:
        mask = context.find_mask(digest)
        if mask is None:
            raise InputError(
                f"it was drawn from a mask ({digest}...) that this catalogue does not know: is "
                "the workspace older than the server's tasks? Restore the newer catalogue"
            )
        return mask
    if context.task.mask_id is not None and context.task.arm == Arm.PREDICTED:
        return context.find_mask("")  # the person deleted every predicted region
    return None


_PREANNOTATED = (Origin.PREDICTION, Origin.CHANGED)
