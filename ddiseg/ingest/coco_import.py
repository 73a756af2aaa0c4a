"""Import photographs and masks from a COCO file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ddiseg.catalogue.tables import Image
from ddiseg.errors import InputError
from ddiseg.images import ENDINGS
from ddiseg.ingest.coco import CocoFile, CocoImage, read_coco
from ddiseg.ingest.coco_masks import masks_of
from ddiseg.ingest.diagnoses import NONE_NAMED, MalignantDiagnoses
from ddiseg.ingest.folder import FoundFile
from ddiseg.ingest.labelled_masks import Labels
from ddiseg.ingest.mask_files import MaskFile, check_people, submit_files
from ddiseg.ingest.mask_targets import names_before_upload
from ddiseg.ingest.matching import Matched, files_by_name, name_key
from ddiseg.ingest.metadata import (
    Columns,
    Key,
    read_as_unknown,
    read_details,
    unknown_in_words,
)
from ddiseg.ingest.photographs import PhotographImport, dataset_name, import_files, match_table
from ddiseg.ingest.placement import AS_THEY_ARE, Geometry
from ddiseg.ingest.source import Source
from ddiseg.outcomes import FileOutcome, Outcome, Progress, one_file, silent
from ddiseg.workspace.workspace import Workspace


@dataclass(frozen=True)
class CocoImport:
    """The outcomes of one file."""

    photographs: PhotographImport
    masks: list[FileOutcome] = field(default_factory=list)
    masks_left: int = 0  #: in the file, and not asked for


def import_coco(
    workspace: Workspace,
    path: Path,
    *,
    labels: Labels,
    photographs: Path | Source | None = None,
    annotator: str | None = None,
    reviewer: str | None = None,
    geometry: Geometry = AS_THEY_ARE,
    metadata: Path | None = None,
    columns: Columns | None = None,
    dataset: str | None = None,
    licence: str | None = None,
    source: str | None = None,
    diagnoses: MalignantDiagnoses = NONE_NAMED,
    synthetic: bool = False,
    in_place: bool = False,
    actor: str | None = None,
    progress: Progress = silent,
) -> CocoImport:
    """Import the photographs that a COCO file lists and, with an annotator, its masks.

    Args:
        path: the file, or a folder that has one.
        labels: the classes of its categories.
        photographs: folder of the photographs, or where a server has them; else the file's folder.
        annotator: who drew the masks; None leaves them.
        reviewer: a second person; the masks then arrive accepted.
        metadata, columns: a table that says more; it wins over what the file says of an image.
        dataset, licence: else what all images of the file agree on, and the folder's name.
        synthetic: the images show no person; else whether the file says so of all of them.
        geometry, source, diagnoses, in_place: as for masks and photographs that come in a folder.

    Raises:
        InputError: a file that can't be used, categories whose class is unknown, no photographs.
        WorkspaceError: the store or catalogue can't be written; what was finished is kept.
    """
    annotator, reviewer = check_people(annotator, reviewer)
    if reviewer is not None and annotator is None:
        raise InputError("a reviewer reviews masks: say who drew them with --annotator NAME")
    coco = read_coco(path)
    labelled = masks_of(coco, labels) if annotator is not None else None
    folder = path if path.is_dir() else _folder(coco.path)
    source_of_files = Source.of(photographs or folder)
    if source_of_files.url is not None:
        folder = source_of_files.path
    found = _find_photographs(coco, source_of_files)
    found = found.with_table(match_table(metadata, columns, list(found.files.values())))
    masks = len(labelled.files) if labelled is not None else 0
    imported = import_files(
        workspace,
        list(found.files.values()),
        found.matched,
        dataset=dataset or _agreed_fact(coco, "dataset") or dataset_name(folder),
        licence=licence,
        source=source,
        defaults={
            "licence": _agreed({image.licence for image in coco.images}),
            "source": _agreed_fact(coco, "source") or source_of_files.url,
        },
        diagnoses=diagnoses,
        synthetic=synthetic or {image.synthetic for image in coco.images} == {True},
        in_place=in_place,
        actor=actor,
        progress=lambda done, total: progress(done, total + masks),
    )
    imported = replace(imported, files_without_row=imported.files_without_row if metadata else [])
    if labelled is None:
        left = sum(image.has_mask for image in coco.images)
        return CocoImport(imported, masks_left=left)
    imported = replace(imported, notes=[*imported.notes, *labelled.notes])
    submitted = submit_files(
        workspace,
        labelled.files,
        _finder(workspace, imported, found.files),
        annotator=annotator,
        reviewer=reviewer,
        geometry=geometry,
        progress=lambda done, total: progress(len(found.files) + done, len(found.files) + total),
    )
    return CocoImport(imported, submitted)


def _folder(file: Path) -> Path:
    """Return the default folder of the photographs: that of the file or of its `annotations`."""
    folder = file.resolve().parent
    return folder.parent if folder.name == "annotations" else folder


@dataclass(frozen=True)
class _FoundPhotographs:
    files: Mapping[str, FoundFile]  #: by the name in the COCO file
    matched: Matched

    def with_table(self, table: Matched) -> _FoundPhotographs:
        """Return the same with the rows of a table; where both have a value, the table's counts."""
        known = self.matched
        faults = {path: why for path, why in known.faults.items() if path not in table.details}
        return _FoundPhotographs(
            self.files,
            Matched(
                {**known.details, **table.details},
                known.described + table.described,
                {**faults, **table.faults},
                known.refused_rows + table.refused_rows,
                table.rows_without_file,
                known.notes + table.notes,
            ),
        )


def _find_photographs(coco: CocoFile, folder: Source) -> _FoundPhotographs:
    """Find the file of each image by its path in the folder, else by its name alone."""
    listing = folder.list(ENDINGS)
    by_path = {file.path: file for file in listing.files}
    by_name = files_by_name(listing.files)
    matched = Matched(refused_rows=list(coco.refused), notes=list(coco.notes))
    wanted: dict[str, list[CocoImage]] = defaultdict(list)
    by_name_alone = 0
    for image in coco.images:
        paths, exact = _paths(image, by_name)
        if len(paths) == 1:
            wanted[paths[0]].append(image)
            by_name_alone += not exact
        else:
            could = f"could mean {' or '.join(paths[:3])}" if paths else f"is not under {folder}"
            matched.refused_rows.append(_refused(image, f"{could}: give its folder with --images"))
    if coco.images and not wanted:
        raise InputError(
            f"no image of {coco.path} is under {folder}, of {len(coco.images)}: give their "
            "folder with --images DIR"
        )
    files = {}
    unknown: dict[Key, Counter[str]] = defaultdict(Counter)
    for path, images in wanted.items():
        if len(images) > 1:
            names = " and ".join(image.file_name for image in images[:3])
            matched.refused_rows += [_refused(i, f"{names} are all {path}") for i in images]
            continue
        files[images[0].file_name] = by_path[path]
        for key, text in _add_details(coco, images[0], path, matched).items():
            unknown[key][text] += 1
    matched.notes += [
        f"{coco.path.name}, attributes: {unknown_in_words(key, texts)}"
        for key, texts in sorted(unknown.items())
    ]
    if by_name_alone:
        matched.notes.append(
            f"photographs found by their name, not at the path that {coco.path.name} gives: "
            f"{by_name_alone}"
        )
    if unlisted := len(by_path) - len(wanted):
        matched.notes.append(f"photographs left, which {coco.path.name} does not list: {unlisted}")
    return _FoundPhotographs(files, matched)


def _paths(image: CocoImage, by_name: Mapping[str, list[str]]) -> tuple[list[str], bool]:
    """Return the paths that its name may mean, and whether they match it exactly."""
    key = name_key(image.file_name)
    if key in by_name:
        return by_name[key], True
    while "/" in key:  # the list may have been made in a folder further up
        key = key.partition("/")[2]
        if key in by_name:
            return by_name[key], False
    before = [name_key(image.original_name)] if image.original_name else []
    found = (by_name[name] for name in (*before, *names_before_upload(key)) if name in by_name)
    return next(found, []), False


def _refused(image: CocoImage, why: str) -> FileOutcome:
    return FileOutcome(image.file_name, Outcome.REFUSED, why)


def _add_details(
    coco: CocoFile, image: CocoImage, path: str, matched: Matched
) -> Mapping[Key, str]:
    """Add the facts of an image to `matched`, or why they can't be used.

    Returns:
        Those that were read as unknown.
    """
    try:
        with one_file():
            return _read_details(coco, image, path, matched)
    except InputError as error:
        matched.faults[path] = f"{coco.path.name}, attributes: {error}"
        return {}


def _read_details(
    coco: CocoFile, image: CocoImage, path: str, matched: Matched
) -> Mapping[Key, str]:
    facts = image.facts
    values = {key: _text(facts[key]) for key in Key if key in facts}
    if facts.get("fitzpatrick") is not None:
        values[Key.TONE] = _text(facts["fitzpatrick"])
    if not any(values.values()):
        return {}
    attributes = f"{coco.path.name}: attributes"
    tone_source = str(facts.get("tone_source") or attributes)
    matched.details[path] = read_details(values, tone_source, attributes)
    matched.described.append(matched.details[path])
    return read_as_unknown(values)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _agreed_fact(coco: CocoFile, name: str) -> str | None:
    return _agreed({_text(image.facts.get(name)) for image in coco.images})


def _agreed(values: set[str | None] | set[str]) -> str | None:
    """Return the only value, None where there are several."""
    return next(iter(values)) or None if len(values) == 1 else None


def _finder(
    workspace: Workspace, done: PhotographImport, files: Mapping[str, FoundFile]
) -> Callable[[MaskFile], Image]:
    """Return what finds the catalogued image of a mask by its name in the COCO file."""
    images = workspace.catalogue.images
    dataset = images.find_dataset(done.dataset)
    paths = [file.path for file in files.values()]
    known = images.known_sources(dataset.id, paths) if dataset else {}
    ids = [source.image_id for source in known.values()]
    by_id = {image.id: image for image in images.select(ids=ids)}
    # A file may be refused because its name belonged to another photograph: leave that one out.
    refused = {o.name for o in done.outcomes if o.outcome is Outcome.REFUSED}

    def find(file: MaskFile) -> Image:
        found = files.get(file.name)
        if found is None or found.path not in known or found.path in refused:
            raise InputError("its photograph was refused")
        return by_id[known[found.path].image_id]

    return find
