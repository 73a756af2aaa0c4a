"""Import files of masks drawn elsewhere, whatever their format.

A format is a function like `ddiseg.ingest.png_masks.read_masks`, found by its name through the
entry points `ddiseg.mask_formats`: Path -> MaskFiles, none of which is read before it is asked for.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from annotation_protocol import load_protocol
from ddiseg import formats, masks
from ddiseg.catalogue import NewMask
from ddiseg.catalogue.masks import refuse_self_review
from ddiseg.catalogue.tables import Image
from ddiseg.errors import InputError
from ddiseg.ingest.class_values import ClassMapping, class_mask, classes_of, keeps_class_ids
from ddiseg.ingest.folder import FoundFile, list_folder, other_kinds, read_file
from ddiseg.ingest.label_map import LABEL_MAP
from ddiseg.ingest.mask_targets import find_targets
from ddiseg.ingest.mask_values import FolderValues, refusals_of, refused
from ddiseg.ingest.placement import AS_THEY_ARE, Geometry, Placement
from ddiseg.outcomes import (
    FileOutcome,
    Note,
    Outcome,
    Progress,
    escaped,
    halves,
    is_storable,
    map_batches,
    one_file,
    silent,
    worker_threads,
)
from ddiseg.pixel_budget import BUDGET
from ddiseg.workspace.pseudonyms import person_names
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace

#: Files that say what is in the masks next to them: of a VOC data set, and of a release.
SIDE_FILES = (LABEL_MAP, "classes.json", "ddiseg-release.json", "metadata.csv", "LICENCE.txt")

#: Files of one transaction.
BATCH = 64


@dataclass(frozen=True)
class MaskFile:
    """One mask, not read yet."""

    name: str  #: path relative to what was imported
    photograph: str  #: its path or name without the ending, as far as the file tells
    load: Callable[[], NDArray[Any]]  #: (h, w) values as stored; raises InputError
    classes: tuple[int, ...]  #: ids that its author could use, where the values are class ids
    stretched: bool = False  #: drawn on the photograph stretched to the mask's size
    size: tuple[int, int] | None = None  #: (height, width), where it says so before it is read
    annotator: str | None = None  #: who drew it, where the file says so
    notes: list[Note] = field(default_factory=list)  #: what `load` had to tolerate
    own: bool = False  #: drawn in ddiseg, where photographs are upright
    unlabelled: bool = False  #: 255 means no class, where the values are class ids
    #: (h, w) colours as `ddiseg.masks.colours` has them, where `load` returns indices of a palette.
    load_colours: Callable[[], NDArray[Any]] | None = None
    labels: Mapping[int, str] | None = None  #: by value or colour, where a labelmap names them
    inexact: bool = False  #: values may be off by a few: JPEG
    original_name: str | None = None  #: of its photograph before a tool changed it, with the ending
    left_out: str = ""  #: why it is not read though it lies among masks: it is a photograph


@dataclass(frozen=True)
class MaskImport:
    """The outcomes of the masks of a folder or file."""

    outcomes: list[FileOutcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def import_masks(
    workspace: Workspace,
    path: Path,
    *,
    format_name: str,
    annotator: str,
    reviewer: str | None = None,
    mapping: Mapping[int, int] | None = None,
    geometry: Geometry = AS_THEY_ARE,
    dataset: str | None = None,
    subset: str | None = None,
    suffixes: Sequence[str] = (),
    progress: Progress = silent,
) -> MaskImport:
    """Import a file or folder of masks, matched to images by path and name without ending.

    Without a mapping, or with one that only ignores values, they must be class ids, in all files: where one holds another value,
    none is taken, since a 0 of the others may mean anything too.

    Args:
        annotator: who drew them.
        reviewer: a second person; the masks then arrive accepted.
        mapping: class id by the value in the files, where these are not class ids.
        geometry: how they were drawn on their photographs.
        dataset: match names in this dataset only.
        subset: leave the files of images outside this subset alone.
        suffixes: what file names may end in besides the photograph's name.

    Raises:
        InputError: annotator and reviewer are one; no such format, folder or file; no file is of an
            image of the subset.
        NotFoundError: no such dataset or subset.
        WorkspaceError: the store or catalogue can't be written; what was finished is kept.
    """
    who, reviewer = check_people(annotator, reviewer)
    read = formats.load_format(formats.MASKS, format_name)
    workspace.catalogue.sources.check_dataset(dataset)
    files, notes = read_files(read, path)
    _refuse_unknown_labels(files, mapping)
    targets = find_targets(workspace, files, suffixes, dataset)
    values = None
    if keeps_class_ids(mapping):
        reading, progress = halves(progress)
        values = FolderValues.read(files, reading, mapping)
    if subset is not None:
        files = targets.inside(workspace, subset)
    if values is not None and not values.are_class_ids:
        return MaskImport(values.refuse(files, targets.of), notes)
    outcomes = submit_files(
        workspace,
        files,
        targets.of,
        annotator=who,
        reviewer=reviewer,
        mapping=mapping,
        geometry=geometry,
        progress=progress,
    )
    return MaskImport(outcomes, [*notes, *(values.notes if values is not None else [])])


def read_files(
    read: Callable[[Path], Iterable[MaskFile]], path: Path
) -> tuple[list[MaskFile], list[str]]:
    """Return the masks of a folder, and a note for each reason for which pictures were left out."""
    files = list(read(path))
    left_out = Counter(file.left_out for file in files if file.left_out)
    notes = [f"{why}: {count}" for why, count in left_out.items()]
    return [file for file in files if not file.left_out], notes + _other_files(path, files)


def _other_files(path: Path, files: Sequence[MaskFile]) -> list[str]:
    """Return the note on the files of a folder with another ending than its masks."""
    if not path.is_dir():
        return []
    endings = tuple({Path(file.name).suffix.lower() for file in files})
    others = list_folder(path, endings).others
    return other_kinds(each for each in others if Path(each).name not in SIDE_FILES)


def _refuse_unknown_labels(files: Sequence[MaskFile], mapping: Mapping[int, int] | None) -> None:
    """Raise InputError where --classes names labels and no labelmap does."""
    labels = mapping.labels if isinstance(mapping, ClassMapping) else {}
    if labels and not any(file.labels for file in files):
        raise InputError(
            f"--classes: '{next(iter(labels))}' is neither a value nor a colour, and there is no "
            "labelmap.txt that names it as a label: write for example 0=skin,255=lesion"
        )


def submit_files(
    workspace: Workspace,
    files: Sequence[MaskFile],
    find_image: Callable[[MaskFile], Image],
    *,
    annotator: str | None,
    reviewer: str | None,
    mapping: Mapping[int, int] | None = None,
    geometry: Geometry = AS_THEY_ARE,
    progress: Progress = silent,
) -> list[FileOutcome]:
    """Store masks and submit them, 64 at a time; see `import_masks`.

    Args:
        find_image: the image that a file belongs to; raises InputError where there is none.
        annotator: who drew them all; None: each file names its own.

    Raises:
        WorkspaceError: the store or catalogue can't be written; what was finished is kept.
    """
    importer = _MaskImporter(workspace, find_image, annotator, reviewer, mapping, geometry)
    return importer.run(files, progress)


def check_people(annotator: str | None, reviewer: str | None) -> tuple[str | None, str | None]:
    """Return their names without space around them; None stays None.

    Raises:
        InputError: one has no name, or the two are one person.
    """
    annotator = annotator.strip() if annotator is not None else None
    reviewer = reviewer.strip() if reviewer is not None else None
    if annotator == "" or reviewer == "":
        raise InputError("an annotator or reviewer needs a name: give --annotator NAME")
    if annotator is not None:
        refuse_self_review(annotator, reviewer)
    return annotator, reviewer


def find_mask_files(path: Path, *endings: str) -> list[FoundFile]:
    """Return the files with one of these endings under a folder, or the one file that `path` is.

    Raises:
        InputError: there is none.
    """
    if path.is_file():
        return [FoundFile(path.name, path)]
    files = list(list_folder(path, endings).files)
    if not files:
        raise InputError(f"{path} has no {endings[0]} files: {formats.describe_files(path)}")
    return files


def has_mask_files(path: Path, *endings: str) -> bool:
    """Return whether a file has one of these endings, or a folder holds such a file."""
    if path.is_file():
        return path.name.lower().endswith(endings)
    return bool(list_folder(path, endings).files)


def read_mask_file(file: FoundFile) -> bytes:
    """Return the bytes of a mask; raises InputError where they are more than any mask has."""
    return read_file(file, max_bytes=5 * masks.MAX_PIXELS)[0]


@dataclass(frozen=True)
class _StoredMask:
    """A mask that was read and stored, or why not."""

    file: MaskFile
    mask: NewMask | None = None
    restored: bool = False  #: it was not in the store, or damaged there
    notes: Sequence[Note] = ()  #: how it came to lie over its photograph
    fault: InputError | None = None

    @property
    def key(self) -> tuple[int, str | None]:
        """Image id and person of a good mask."""
        assert self.mask is not None
        return self.mask.image_id, self.mask.annotator


@dataclass
class _MaskImporter:
    workspace: Workspace
    find_image: Callable[[MaskFile], Image]
    annotator: str | None
    reviewer: str | None
    mapping: Mapping[int, int] | None
    geometry: Geometry
    first: dict[int, _StoredMask] = field(default_factory=dict)  #: first good mask by image id
    #: Outcomes of the first good mask of each person, by image id and person.
    outcomes: dict[tuple[int, str | None], FileOutcome] = field(default_factory=dict)
    by_person: dict[tuple[int, str | None], _StoredMask] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.original_person = person_names(self.workspace)

    def run(self, files: Sequence[MaskFile], progress: Progress) -> list[FileOutcome]:
        outcomes: list[FileOutcome] = []
        faults: dict[int, tuple[str, InputError]] = {}
        progress(0, len(files))
        orientations = self.workspace.catalogue.sources.orientations(self.image_ids(files))
        self.placement = partial(Placement.of, orientations=orientations, geometry=self.geometry)
        # Two threads: while one waits for the disk, no more than one mask is computed. An object store
        # keeps one waiting longer.
        with worker_threads(2 if self.workspace.store.local else 8) as pool:
            for batch in map_batches(pool, self.take, files, BATCH):
                for place, taken in enumerate(batch, len(outcomes)):
                    if taken.fault is not None:
                        faults[place] = taken.file.name, taken.fault
                outcomes += self.catalogue(batch)
                progress(len(outcomes), len(files))
        for place, refusal in zip(faults, refusals_of(list(faults.values())), strict=True):
            outcomes[place] = refusal
        return outcomes

    def image_ids(self, files: Sequence[MaskFile]) -> set[int]:
        """Return the ids of the images that files belong to."""
        found = set()
        for file in files:
            with contextlib.suppress(InputError):
                found.add(self.find_image(file).id)
        return found

    def take(self, file: MaskFile) -> _StoredMask:
        """Read, check and store one mask. Runs in a thread."""
        try:
            with one_file():
                annotator = self.author(file)
                image = self.find_image(file)
            with BUDGET.hold(image.width * image.height):
                return self.read(file, image, annotator)
        except InputError as error:
            return _StoredMask(file, fault=error)

    def read(self, file: MaskFile, image: Image, annotator: str) -> _StoredMask:
        """Read, check and store the mask of an image; raises InputError where it can't be read."""
        with one_file():
            placement = self.placement(file, image)
            if file.size is not None:  # a size alone takes memory once the file is read
                placement.check(file.size)
            mask, notes = placement.place(class_mask(file, self.mapping))
            height, width = mask.shape
        digest = masks.mask_hash(mask)
        restored = self.workspace.put_mask(mask, digest)
        new = NewMask(
            image_id=image.id,
            content_hash=digest,
            width=width,
            height=height,
            mapping="same" if (height, width) == (image.height, image.width) else "stretched",
            classes=classes_of(file, self.mapping),
            protocol_version=load_protocol().version,
            annotator=annotator,
            origin=escaped(file.name),
            unlabelled=masks.count_unlabelled(mask),
        )
        return _StoredMask(file, new, restored=restored, notes=notes)

    def author(self, file: MaskFile) -> str:
        """Return who drew a mask; raises InputError where nobody is named."""
        annotator = self.annotator
        if annotator is None and file.annotator is not None:
            annotator = self.original_person(file.annotator)
        if annotator is None:
            raise InputError("it does not say who drew it: give --annotator NAME")
        if not is_storable(annotator) or len(annotator) > 200:
            raise InputError(
                "its annotator has a name that can't be stored (over 200 characters, or control "
                "characters): give --annotator NAME"
            )
        refuse_self_review(annotator, None)
        return annotator

    def catalogue(self, batch: list[_StoredMask]) -> list[FileOutcome]:
        """Catalogue a batch and return its outcomes.

        The first good mask of an image is submitted, for review or accepted. The first of each other
        person is kept as an independent reading.
        """
        submitted, readings = [], []
        for taken in batch:
            if taken.mask is None or taken.key in self.by_person:
                continue
            if taken.mask.image_id in self.first:
                readings.append(taken)
            elif self.self_review(taken) is None:
                self.first[taken.mask.image_id] = taken
                submitted.append(taken)
            else:
                continue
            self.by_person[taken.key] = taken
        named = [t.mask.content_hash for t in (*submitted, *readings) if t.mask]
        self.workspace.store.flush_names(Kind.MASK, named)
        catalogue = self.workspace.catalogue.masks
        outcomes = catalogue.submit([t.mask for t in submitted if t.mask], self.reviewer)
        outcomes += catalogue.add_readings([self.reading(taken) for taken in readings])
        for taken, outcome in zip([*submitted, *readings], outcomes, strict=True):
            self.outcomes[taken.key] = _with_repair(outcome, taken)
        return [self.outcome(taken) for taken in batch]

    def self_review(self, taken: _StoredMask) -> str | None:
        """Return why the reviewer can't accept a mask: they drew it."""
        assert taken.mask is not None
        try:
            refuse_self_review(taken.mask.author, self.reviewer)
        except InputError as error:
            return str(error)
        return None

    def reading(self, taken: _StoredMask) -> tuple[str, NewMask]:
        """Return the content hash of the first person's mask, and the mask."""
        assert taken.mask is not None
        first = self.first[taken.mask.image_id].mask
        assert first is not None
        return first.content_hash, taken.mask

    def outcome(self, taken: _StoredMask) -> FileOutcome:
        name = taken.file.name
        if taken.mask is None:
            return refused(name, taken.fault or InputError("no mask"))
        first = self.by_person.get(taken.key)
        if first is None:
            return FileOutcome(name, Outcome.REFUSED, self.self_review(taken))
        stored = self.outcomes[taken.key]
        if first is taken:
            return stored
        if first.mask is not None and first.mask.content_hash != taken.mask.content_hash:
            why = f"another mask for the same image than {first.file.name}"
            if first.file.annotator != taken.file.annotator:
                why += ", by another person: leave --annotator out to keep both"
            return FileOutcome(name, Outcome.REFUSED, why)
        if stored.outcome is Outcome.REFUSED:
            return replace(stored, name=name)
        return FileOutcome(name, Outcome.UNCHANGED, f"same mask as {first.file.name}")


def _with_repair(outcome: FileOutcome, taken: _StoredMask) -> FileOutcome:
    # A file may have been read twice, once for its values alone.
    notes = [*taken.file.notes, *taken.notes]
    if outcome.note:
        notes.insert(0, Note(outcome.note))
    if outcome.outcome is Outcome.UNCHANGED and taken.restored:
        outcome = replace(outcome, outcome=Outcome.REPAIRED)
        notes.append(Note("its stored copy was missing or damaged"))
    return FileOutcome.noted(outcome.name, outcome.outcome, notes)
