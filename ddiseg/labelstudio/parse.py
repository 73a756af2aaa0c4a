"""What a person did with a task, read from Label Studio's annotation: a mask, a skip or a verdict.

What can't be read is no error here: it comes back as the problem of that one annotation, with the
task's link, and everything else goes on.
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
from ddiseg.catalogue import REASON_MISSING, AnnotationVersion, NewMask, Purpose
from ddiseg.catalogue.tables import Image, Mask, Task
from ddiseg.errors import InputError
from ddiseg.labelstudio.task_payload import preannotated_mask
from ddiseg.masks.composition import Composition, Origin, compose
from ddiseg.masks.label_studio_region import BRUSH, read_region


@dataclass(frozen=True)
class TaskContext:
    """A task with all that is needed to understand its answers."""

    task: Task
    image: Image
    link: str  #: where a person opens the task
    purpose: Purpose
    #: The row of a mask of this image by the first digits of its hash; None where there is none.
    find_mask: Callable[[str], Mask | None]
    #: Pixels of a mask at the size of the picture that was sent, (h, w).
    pixels: Callable[[Mask], masks.Mask]
    store: Callable[[masks.Mask], str]  #: keeps a mask, returns its hash


def parse_annotation(
    asked: TaskContext, annotation: Mapping[str, Any], people: Mapping[int, str], protocol: Protocol
) -> AnnotationVersion:
    """One version of an annotation; what is wrong with it stands in `problem`."""
    empty = AnnotationVersion(
        task_id=asked.task.id,
        remote_id=int(annotation["id"]),
        updated_at=str(annotation["updated_at"]),
        people=tuple(
            people.get(who, f"user {who}")
            for who in (annotation.get("completed_by"), annotation.get("updated_by"))
            if who is not None
        )
        or ("unknown",),
        lead_time=annotation.get("lead_time"),
        link=asked.link,
    )
    try:
        return _read(asked, empty, annotation, protocol)
    except (InputError, ProtocolError) as error:
        return replace(empty, problem=f"{error}; see {asked.link}")


def _read(
    asked: TaskContext, empty: AnnotationVersion, annotation: Mapping[str, Any], protocol: Protocol
) -> AnnotationVersion:
    regions, said = _sorted(annotation.get("result") or [])
    if asked.purpose is Purpose.REVIEW:
        if annotation.get("was_cancelled"):
            raise InputError("the review was skipped: a review needs a verdict")
        if VERDICT not in said:
            raise InputError("the review has no verdict: open it and choose one")
        verdict = verdict_of(said[VERDICT], protocol)
        done = _mask(asked, empty, regions, protocol)
        return replace(done, verdict=(verdict, said.get(COMMENT)))
    if annotation.get("was_cancelled"):
        reason = REASON_MISSING
        if SKIP_REASON in said:
            reason = skip_reason_of(said[SKIP_REASON], protocol)
        return replace(empty, skip=(reason, said.get(NOTE)))
    if SKIP_REASON in said:
        raise InputError(
            f"it was submitted with the skip reason '{said[SKIP_REASON]}': skip it, or take the "
            "reason away"
        )
    if not regions:
        raise InputError(
            "it was submitted with nothing painted: paint it, or skip it with a reason"
        )
    return _mask(asked, empty, regions, protocol)


def _sorted(result: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Brush regions in their order, and what was chosen or written by the control's name."""
    regions, said = [], {}
    for entry in result:
        kind, control, value = entry.get("type"), entry.get("from_name"), entry.get("value") or {}
        if kind == BRUSH and control == MASK:
            regions.append(entry)
        elif kind == "choices" and control in (SKIP_REASON, VERDICT):
            said[control] = str((value.get("choices") or [""])[0])
        elif kind == "textarea" and control in (NOTE, COMMENT):
            text = value.get("text") or ""
            said[control] = "\n".join(text) if isinstance(text, list) else str(text)
        elif control == CLICK:
            pass  # asked for a region that was not taken: it says nothing about the picture
        else:
            raise InputError(
                f"it holds a {kind} of '{control}', which the labelling configuration of the "
                "protocol does not have: delete it, or put the configuration back"
            )
    return regions, {control: text.strip() for control, text in said.items() if text.strip()}


def _mask(
    asked: TaskContext, empty: AnnotationVersion, regions: list[dict[str, Any]], protocol: Protocol
) -> AnnotationVersion:
    base = _base(asked, regions)
    size = (asked.task.height, asked.task.width)
    pixels = None if base is None else asked.pixels(base)
    layers = [
        read_region(region, size, lambda label: protocol.class_named(label).index)
        for region in regions
    ]
    found: Composition = compose(layers, size, pixels, protocol)
    same = size == (asked.image.height, asked.image.width)
    new = NewMask(
        image_id=asked.image.id,
        content_hash=asked.store(found.mask),
        width=size[1],
        height=size[0],
        mapping="same" if same else "stretched",
        classes=[entry.index for entry in protocol.classes],
        protocol_version=protocol.version,
        annotator=empty.author,
        parent_id=None if base is None else base.id,
        origin=f"{asked.link} annotation {empty.remote_id}",
    )
    return replace(
        empty, mask=new, conflicts=found.conflicts, holes=found.holes, changed=found.changed
    )


def _base(asked: TaskContext, regions: list[dict[str, Any]]) -> Mask | None:
    """The mask that the person found painted; it may be an older one than the task's newest."""
    untouched = [str(r.get("id")) for r in regions if r.get("origin") in _PAINTED]
    digest = preannotated_mask(untouched)
    if digest is not None:
        mask = asked.find_mask(digest)
        if mask is None:
            raise InputError(
                f"it was painted from a mask ({digest}...) that this catalogue does not know: is "
                "the workspace older than the server's tasks? Restore the newer catalogue"
            )
        return mask
    if asked.task.mask_id is not None and asked.task.arm == "painted":
        return asked.find_mask("")  # every painted region was deleted
    return None


_PAINTED = (Origin.PREDICTION, Origin.CHANGED)
