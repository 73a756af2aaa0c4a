"""From the values of a mask file to class ids: by value, by colour, or by a labelmap's labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import UNLABELLED, UNLABELLED_RGB, Protocol, load_protocol
from ddiseg import masks
from ddiseg.errors import InputError
from ddiseg.ingest.metadata import split_option
from ddiseg.masks import IGNORED
from ddiseg.masks.colours import COLOUR, colour_value, nearest_values, too_near, value_text
from ddiseg.masks.mask import values_in
from ddiseg.outcomes import Note, counted, one_file

if TYPE_CHECKING:
    from ddiseg.ingest.mask_files import MaskFile


class ClassMapping(dict[int, int]):
    """Class ids by value or colour, and by the labels of a labelmap (in lower case)."""

    def __init__(self, values: Mapping[int, int], labels: Mapping[str, int]) -> None:
        super().__init__(values)
        self.labels = dict(labels)

    @classmethod
    def parse(cls, text: str, protocol: Protocol) -> ClassMapping:
        """Parse "0=skin,255=ignore", "#800000=lesion", or "nevus=lesion" where a labelmap names labels.

        Raises:
            InputError: as `ddiseg.masks.parse_class_mapping` does.
        """
        labels: dict[str, int] = {}
        rest: list[str] = []
        ids = {name: index for index, name in enumerate(protocol.class_names)}
        ids |= dict.fromkeys(IGNORED, UNLABELLED)
        for part in split_option("--classes", text):
            label, equals, name = part.rpartition("=")
            if equals and name.strip() in ids and _is_label(label):
                if (key := _plain(label)) in labels:
                    raise InputError(f"--classes: '{label.strip()}' occurs twice: keep one of them")
                labels[key] = ids[name.strip()]
            else:
                rest.append(part)
        values = masks.parse_class_mapping(",".join(rest), protocol.class_names) if rest else {}
        return cls(values, labels)


def keeps_class_ids(mapping: Mapping[int, int] | None) -> bool:
    """Return whether values are class ids: without a mapping, or with one that only names what to ignore."""
    if mapping is None:
        return True
    if isinstance(mapping, ClassMapping) and mapping.labels:
        return False
    return bool(mapping) and all(
        value < COLOUR and index == UNLABELLED for value, index in mapping.items()
    )


def class_mask(file: MaskFile, mapping: Mapping[int, int] | None) -> masks.Mask:
    """Return the class ids of a file, (h, w) uint8; raises InputError for a value that has no class."""
    known = _known_values(file, mapping)
    colours = file.labels is not None or any(value >= COLOUR for value in mapping or ())
    with one_file():
        values = (file.load_colours if colours and file.load_colours else file.load)()
    if known is None:
        if file.inexact:
            raise InputError(
                "JPEG changes values, so that class ids can't be told apart: export it as PNG, or "
                "give --classes for values that are more than 20 apart, such as 0=skin,255=lesion"
            )
        mask = _class_ids(values, list(mapping or ()), unlabelled=file.unlabelled)
    else:
        mask = _remapped(file, values, known)
    if masks.count_unlabelled(mask) == mask.size:
        raise InputError("none of its pixels has a class: all are ignored")
    return mask


def classes_of(file: MaskFile, mapping: Mapping[int, int] | None) -> list[int]:
    """Return the class ids that the author of a file could use, ascending."""
    known = _known_values(file, mapping)
    found = file.classes if known is None else known.values()
    return sorted({index for index in found if index not in (UNLABELLED, _UNKNOWN)})


#: The colour of pixels without a class in VOC's own files, which no labelmap names.
_VOID = colour_value(*UNLABELLED_RGB)

#: Class of a label that has none.
_UNKNOWN = -1


def _known_values(file: MaskFile, mapping: Mapping[int, int] | None) -> dict[int, int] | None:
    """Return class ids by value; None where the values are class ids themselves."""
    if file.labels is None:
        return None if keeps_class_ids(mapping) else dict(mapping or {})
    named = {_plain(c.name): c.index for c in load_protocol().classes}
    if isinstance(mapping, ClassMapping):
        named |= mapping.labels
    by_label = {value: named.get(_plain(text), _UNKNOWN) for value, text in file.labels.items()}
    return {_VOID: UNLABELLED, **by_label, **(mapping or {})}


def _class_ids(values: NDArray[Any], ignored: list[int], *, unlabelled: bool) -> masks.Mask:
    """Return values that are class ids, except for those that are ignored."""
    count = len(load_protocol().classes)
    if not ignored:
        return masks.check_mask(values, count, unlabelled=unlabelled)
    left = np.isin(values, ignored)
    return np.where(
        left,
        np.uint8(UNLABELLED),
        masks.check_mask(np.where(left, 0, values), count, unlabelled=unlabelled),
    )


def _remapped(file: MaskFile, values: NDArray[Any], known: Mapping[int, int]) -> masks.Mask:
    if file.inexact and (pair := too_near(known)):
        one, other = map(value_text, pair)
        raise InputError(
            f"JPEG changes values, and {one} and {other} are too near to be told apart: export it as "
            "PNG"
        )
    seen = values_in(values)
    near: Mapping[int, int] = {value: value for value in known}
    if file.inexact or int(seen[-1]) >= COLOUR:
        near, _ = nearest_values(seen, known.keys())
    mapping = {value: known[own] for value, own in near.items()}
    unknown = {own for value, own in near.items() if known[own] == _UNKNOWN and value in seen}
    if unknown and file.labels is not None:
        raise _unknown_labels({file.labels[value] for value in unknown})
    moved = [value for value, own in near.items() if value != own]
    if moved:
        count = int(np.isin(values, moved).sum())
        kind = "pixels within 10 of a known value or colour: taken for it"
        file.notes.append(Note(f"{counted(count, 'pixel')}{kind.removeprefix('pixels')}", kind))
    return masks.remap(values, {v: index for v, index in mapping.items() if index != _UNKNOWN})


def _unknown_labels(labels: set[str]) -> InputError:
    listed = sorted(labels)
    example = ",".join(f"{label}=lesion" for label in listed)
    return InputError(
        f"labels whose class is not known: {', '.join(listed)}; give each a class with --classes "
        f"'{example}'; the classes are {', '.join(load_protocol().class_names)}, or ignore"
    )


def _is_label(text: str) -> bool:
    """Return whether the left side of --classes is a label: neither a number nor a colour."""
    key = text.strip()
    return bool(key) and not key.startswith("#") and not key.lstrip("+-").isdigit()


def _plain(label: str) -> str:
    return " ".join(label.casefold().split())
