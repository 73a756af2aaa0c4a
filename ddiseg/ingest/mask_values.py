"""Check whether the values in the masks of a folder are class ids.

That takes all files: a mask of 0 and 255 without a lesion holds only 0, as one of class ids does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from annotation_protocol import UNLABELLED, load_protocol
from ddiseg.errors import FileError, InputError
from ddiseg.ingest.class_values import class_mask
from ddiseg.masks import (
    FEW_VALUES,
    NoClassError,
    UnnamedValueError,
    ValuesError,
    classes_in,
)
from ddiseg.masks.colours import COLOUR, value_text
from ddiseg.outcomes import FileOutcome, Note, Outcome, Progress, one_file, worker_threads

if TYPE_CHECKING:
    from ddiseg.ingest.mask_files import MaskFile

#: What to do about masks of more wrong values than are listed.
_SMOOTH = "export it without smoothing, one value a class, or take it out of the folder"

_SAME_SIZE = "export it at that size, or give --stretched if the photograph was stretched to it"


@dataclass(frozen=True)
class FolderValues:
    """The values in the masks of a folder, read as class ids."""

    files: Sequence[MaskFile]
    faults: Sequence[InputError | None]  #: of each file; None: its values may be class ids
    classes: frozenset[int]  #: class ids in the files without a fault

    @classmethod
    def read(
        cls, files: Sequence[MaskFile], progress: Progress, ignored: Mapping[int, int] | None = None
    ) -> FolderValues:
        """Read the values of files that came without a class mapping, or with what to ignore only."""
        found: list[frozenset[int] | InputError] = []
        progress(0, len(files))
        with worker_threads(2) as pool:
            for each in pool.map(partial(_classes_in, ignored=ignored), files):
                found.append(each)
                progress(len(found), len(files))
        held = (each for each in found if not isinstance(each, InputError))
        return cls(
            files,
            [each if isinstance(each, InputError) else None for each in found],
            frozenset[int]().union(*held),
        )

    @property
    def are_class_ids(self) -> bool:
        """Whether no file holds a value that is no class."""
        return not any(isinstance(fault, NoClassError) for fault in self.faults)

    @property
    def notes(self) -> list[str]:
        """Return a warning where only 0 and 1 occur: they are read as two of the classes."""
        if not self.classes or not self.are_class_ids or self.classes - {0, 1}:
            return []
        total, names = self.faults.count(None), load_protocol().class_names
        held = sorted(self.classes)
        masks = "the mask holds" if total == 1 else f"all {total} masks hold"
        return [
            f"{masks} only {' and '.join(map(str, held))}, read as "
            f"{' and '.join(names[index] for index in held)}; if 0 means skin, give "
            "--classes 0=skin,1=lesion"
        ]

    def refuse(
        self, files: Sequence[MaskFile], find_image: Callable[[MaskFile], object]
    ) -> list[FileOutcome]:
        """Return the refusal of each of `files`, some or all of the folder's.

        A file whose own values are classes is refused because of the others, unless it has no image.
        """
        faults = {id(file): fault for file, fault in zip(self.files, self.faults, strict=True)}
        listed = [f for f in self.faults if isinstance(f, NoClassError) and f.few]
        wrong, seen = _united(listed)
        seen = sorted({*seen, *self.classes})
        wrongs: list[tuple[str, InputError]] = []
        for file in files:
            fault = faults[id(file)]
            if fault is None:
                fault = _fault_of(file, find_image) or _others_hold(wrong, seen)
            elif isinstance(fault, NoClassError) and fault.few:
                fault = InputError(f"{NoClassError.listing(wrong, seen)}; {_mapping_advice(seen)}")
            wrongs.append((file.name, fault))
        return refusals_of(wrongs)


class OtherSizeError(InputError):
    """A mask of another size than its photograph; both are (height, width)."""

    def __init__(self, size: tuple[int, int], photograph: tuple[int, int]) -> None:
        self.sizes = (size, photograph)
        (height, width), (rows, columns) = self.sizes
        super().__init__(
            f"is {width} x {height}, but its photograph is {columns} x {rows}: {_SAME_SIZE}"
        )


def refusals_of(faults: Sequence[tuple[str, InputError]]) -> list[FileOutcome]:
    """Return the refusals of files, by name and fault, equal faults with equal reasons.

    The values of masks with the same fault are listed together, so that one line covers all.
    """
    unnamed = [f for _, f in faults if isinstance(f, UnnamedValueError) and f.few]
    together = UnnamedValueError.listing(*_united(unnamed))
    other_sizes = [fault for _, fault in faults if isinstance(fault, OtherSizeError)]
    found = []
    for name, fault in faults:
        reason: str | None = None
        if isinstance(fault, UnnamedValueError) and fault.few:
            reason = together
        elif isinstance(fault, ValuesError) and not fault.few:
            reason = f"{fault}: {_SMOOTH}"
        elif isinstance(fault, OtherSizeError) and len({f.sizes for f in other_sizes}) > 1:
            (height, width), (rows, columns) = other_sizes[0].sizes
            reason = (
                f"is of another size than its photograph, as one of {width} x {height} on "
                f"{columns} x {rows}: {_SAME_SIZE}"
            )
        same = reason is None
        found.append(refused(name, fault) if same else FileOutcome(name, Outcome.REFUSED, reason))
    return found


def refused(name: str, fault: InputError) -> FileOutcome:
    """Return the refusal of a file."""
    note = Note(str(fault), fault.kind if isinstance(fault, FileError) else "")
    return FileOutcome.noted(name, Outcome.REFUSED, [note])


def _classes_in(file: MaskFile, ignored: Mapping[int, int] | None) -> frozenset[int] | InputError:
    """Return the class ids of a file, or what is wrong with it. Runs in a thread.

    A labelmap says what the colours of a file are: there is nothing to find out.
    """
    if file.labels is not None:
        return frozenset()
    try:
        with one_file():
            return frozenset(classes_in(class_mask(file, ignored)))
    except InputError as error:
        return error


def _fault_of(file: MaskFile, find_image: Callable[[MaskFile], object]) -> InputError | None:
    try:
        with one_file():
            find_image(file)
    except InputError as error:
        return error
    return None


def _others_hold(wrong: Sequence[int], seen: Sequence[int]) -> InputError:
    start = "other masks of this folder hold values that are no class"
    if not wrong:
        return InputError(
            f"{start} (soft edges or a photograph?): export those without smoothing, or take them "
            "out of the folder"
        )
    more = ", ..." if len(wrong) > FEW_VALUES else ""
    listed = ", ".join(map(value_text, wrong[:FEW_VALUES]))
    return InputError(f"{start} ({listed}{more}): {_mapping_advice(seen)}")


def _united(faults: Sequence[ValuesError]) -> tuple[list[int], list[int]]:
    """Return the wrong values and all values of several masks, ascending."""
    wrong = {value for fault in faults for value in fault.wrong}
    seen = {value for fault in faults for value in fault.seen}
    return sorted(wrong), sorted(seen)


def _mapping_advice(seen: Sequence[int]) -> str:
    """Return what to type for values that are no classes; an example where two values allow one."""
    names = load_protocol().class_names
    if any(value >= COLOUR for value in seen):
        example = ",".join(f"{value_text(value)}=CLASS" for value in seen)
        return (
            f"give each a class with --classes '{example}'; the classes are {', '.join(names)}, or "
            "ignore"
        )
    if len(seen) == 2 and seen[0] == 0:
        return f"give --classes, for example 0=skin,{seen[1]}=lesion; 0 may be background instead"
    if seen[-1:] == [UNLABELLED] and len(seen) > 1 and seen[-2] < len(names):
        return f"if {UNLABELLED} is a pixel without a class, give --classes {UNLABELLED}=ignore"
    return "give every value a class with --classes VALUE=CLASS,..."
