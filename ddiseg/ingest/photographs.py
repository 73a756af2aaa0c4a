"""Import a folder of photographs and the CSV file that describes them.

A photograph is first stored, then catalogued, 64 at a time: a run that is killed leaves at most a
stored file that no row names, never a row without its file. The same command goes on from there.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ddiseg import images
from ddiseg.catalogue import Dataset, Details, Image, KnownSource, malignancy_kept
from ddiseg.catalogue.storable import check_text
from ddiseg.compute.job import Refused
from ddiseg.compute.ray_cluster import Cluster
from ddiseg.errors import InputError
from ddiseg.ingest import ddi
from ddiseg.ingest.diagnoses import (
    NONE_NAMED,
    MalignancyLabels,
    MalignantDiagnoses,
    label_malignancy,
)
from ddiseg.ingest.folder import FoundFile, Listing, other_kinds
from ddiseg.ingest.id_notes import id_notes
from ddiseg.ingest.matching import Matched, match_rows, refuse_other_photographs
from ddiseg.ingest.metadata import Columns, read_metadata
from ddiseg.ingest.near_duplicates import NearDuplicateSearch
from ddiseg.ingest.own_release import is_release
from ddiseg.ingest.photograph_reader import (
    FileRow,
    PhotographReader,
    ReadingJob,
    StoredPhotograph,
    keeps_name,
)
from ddiseg.ingest.source import AT_A_TIME, Source
from ddiseg.outcomes import (
    FileOutcome,
    Note,
    Outcome,
    Progress,
    map_batches,
    silent,
    worker_threads,
)
from ddiseg.sampling.leaks import find_leaks, new_leaks
from ddiseg.workspace.access import current_umask
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace, default_actor

#: Files of one transaction; two such batches are in memory at a time, without their pixels.
BATCH = 64

#: Images that are looked for in sets that must be apart, before all images of these sets are.
_FEW = 500

#: New files from which on the store is listed once, in place of a request for each.
MANY = 500


@dataclass(frozen=True)
class SimilarPair:
    """Two photographs that look alike; both are kept."""

    names: tuple[str, str]
    ids: tuple[int, int]
    correlation: float  #: of the gradients of their thumbnails, up to 1
    change: str  #: a `ddiseg.near_duplicates.Change`
    patients: tuple[str | None, str | None]
    new: bool  #: one of the two came in with this import


@dataclass(frozen=True)
class PhotographImport:
    """The outcomes of a folder."""

    dataset: str
    outcomes: list[FileOutcome]
    rows_without_file: int
    files_without_row: list[str]
    tones_unknown: int  #: of the files without a row
    near_duplicates: list[SimilarPair]
    notes: list[str]
    leaks: list[str]  #: sets of images that this import joined with what they must be apart from


def import_photographs(
    workspace: Workspace,
    folder: Path | Source,
    *,
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
    cluster: Cluster | None = None,
) -> PhotographImport:
    """Import every photograph under `folder`, or of a server; DDI's own layout needs no more than that.

    Args:
        metadata: CSV file; `columns` gives the meaning of its columns.
        dataset: name of the dataset; else that of the folder, or DDI.
        diagnoses: which of them are malignant and which benign, where no column has it.
        synthetic: the images were made by code and show no person.
        in_place: reference the files instead of copying them to the store.
        cluster: its workers read and store the photographs.

    Raises:
        InputError: a folder without photographs, metadata that can't be used.
        WorkspaceError: the store or catalogue can't be written; what was finished is kept.
    """
    given = Source.of(folder)
    folder = given.path
    listing, left = _photographs_of_release(given.list(images.ENDINGS), folder)
    if not listing.files:
        raise InputError(f"{given} has no photographs: no file ends in {', '.join(images.ENDINGS)}")
    defaults = {"source": given.url}
    if ddi.is_ddi(folder):
        defaults = {"licence": ddi.LICENCE, "source": ddi.SOURCE}
        if metadata is None:
            metadata, columns = folder / ddi.METADATA, columns or ddi.COLUMNS
    done = import_files(
        workspace,
        listing.files,
        match_table(metadata, columns, listing.files),
        dataset=dataset or dataset_name(folder),
        licence=licence,
        source=source,
        defaults=defaults,
        diagnoses=diagnoses,
        synthetic=synthetic,
        in_place=in_place,
        actor=actor,
        progress=progress,
        cluster=cluster,
    )
    return replace(
        done,
        files_without_row=done.files_without_row if metadata else [],
        notes=done.notes + left + _other_files(listing, folder, metadata),
    )


def import_files(
    workspace: Workspace,
    files: Sequence[FoundFile],
    matched: Matched,
    *,
    dataset: str,
    licence: str | None = None,
    source: str | None = None,
    defaults: Mapping[str, str | None] | None = None,
    diagnoses: MalignantDiagnoses = NONE_NAMED,
    synthetic: bool = False,
    in_place: bool = False,
    actor: str | None = None,
    progress: Progress = silent,
    cluster: Cluster | None = None,
) -> PhotographImport:
    """Import photographs that were found, with their matched metadata; see `import_photographs`.

    Args:
        licence, source: those of the dataset from now on.
        defaults: licence and source, each of a dataset that has none.

    Raises:
        InputError: the dataset can't have this name, or holds images of the other kind; or no
            row has one of the `diagnoses`.
        WorkspaceError: the store or catalogue can't be written; what was finished is kept.
    """
    if ":" in dataset or not dataset.strip():
        raise InputError(f"dataset '{dataset}': give a name without ':', with --dataset NAME")
    check_text("--dataset", Dataset.name, dataset)
    check_text("--licence", Dataset.licence, licence)
    check_text("--source", Dataset.source, source)
    if in_place and any(file.remote for file in files):
        raise InputError(
            "--in-place is for files of this machine: photographs of a server are copied to the store; to "
            "keep them in a bucket, make that the store: ddiseg init --store s3://BUCKET/PREFIX"
        )
    labels = label_malignancy(matched, diagnoses)
    catalogue = workspace.catalogue.images
    actor = actor or default_actor()
    known = catalogue.find_dataset(dataset)
    facts = _dataset_facts(known, {"licence": licence, "source": source}, defaults or {})
    open_dataset = partial(catalogue.dataset, dataset, **facts, synthetic=synthetic)
    # A new dataset comes with its first image: a folder that is refused as a whole leaves none.
    dataset_id = catalogue.dataset(dataset, synthetic=synthetic).id if known else None
    if known:
        catalogue.correct_dataset(dataset, facts, actor)
    leaks = find_leaks(workspace.catalogue)
    job = _PhotographImporter(workspace, open_dataset, dataset_id, labels, in_place, actor, cluster)
    outcomes = job.run(files, progress)
    job.search.link_all()
    changed = any(o.outcome in (Outcome.ADDED, Outcome.REPAIRED) for o in outcomes)
    taken = [o.name for o in outcomes if o.outcome is not Outcome.REFUSED]
    without_row = [name for name in taken if name not in matched.details]
    stored = job.stored(taken)
    return PhotographImport(
        dataset=dataset,
        outcomes=matched.refused_rows + outcomes,
        rows_without_file=matched.rows_without_file,
        files_without_row=without_row,
        tones_unknown=sum(stored[name].tone == "unknown" for name in without_row),
        near_duplicates=_near_duplicates(workspace, job.added, stored.values()),
        notes=[
            *_dataset_changes(known, facts),
            *matched.notes,
            *labels.summary(list({image.id: image for image in stored.values()}.values())),
            *labels.notes,
            *(id_notes(workspace.catalogue, dataset, stored.values()) if changed else []),
        ],
        leaks=[leak.line for leak in new_leaks(leaks, find_leaks(workspace.catalogue))]
        if changed
        and _may_leak(workspace, {*job.search.compared, *(i.id for i in stored.values())})
        else [],
    )


def _may_leak(workspace: Workspace, image_ids: Collection[int]) -> bool:
    """Return whether groups of these images leak; false only where none does."""
    grouping = workspace.catalogue.grouping
    members = grouping.members(grouping.groups_of(image_ids).values())
    if len(members) == len(set(members.values())):
        return False  # each is alone
    return len(members) > _FEW or bool(find_leaks(workspace.catalogue, members))


def _dataset_facts(
    known: Dataset | None, given: Mapping[str, str | None], defaults: Mapping[str, str | None]
) -> dict[str, str]:
    """Return the licence and source that a dataset gets: what was given; a default where it has none."""
    facts = {}
    for key, value in given.items():
        default = None if known and getattr(known, key) else defaults.get(key)
        if chosen := value or default:
            facts[key] = chosen
    return facts


def _dataset_changes(known: Dataset | None, facts: Mapping[str, str]) -> list[str]:
    """Return what an import changed of a dataset as it was `known` before, a line each."""
    if known is None:
        return []
    before = {key: getattr(known, key) for key in facts}
    return [
        f"{key} of dataset '{known.name}' changed: {before[key] or 'none'} -> {value}"
        for key, value in facts.items()
        if before[key] != value
    ]


def match_table(
    metadata: Path | None, columns: Columns | None, files: Sequence[FoundFile]
) -> Matched:
    """Match the rows of a table to `files`; without a table there are none.

    Raises:
        InputError: the table or its columns alone, or a table that can't be used or matches no file.
    """
    if metadata is None and columns is None:
        return Matched()
    if metadata is None:
        raise InputError("--columns needs the CSV file that has them: give --metadata CSV")
    if columns is None:
        raise InputError(
            f"give the columns of {metadata} a meaning: --columns image=COLUMN,tone=COLUMN"
        )
    table = read_metadata(metadata, columns)
    matched = match_rows(table, files)
    refuse_other_photographs(table, matched, files)
    return matched


def dataset_name(folder: Path) -> str:
    """Return the default name of a folder's dataset."""
    if ddi.is_ddi(folder):
        return ddi.DATASET
    folder = folder.resolve()
    return folder.parent.name if folder.name.lower() == "images" else folder.name


@dataclass
class _PhotographImporter:
    workspace: Workspace
    open_dataset: Callable[[], Dataset]
    dataset_id: int | None  #: None until a new dataset has its first image
    labels: MalignancyLabels
    in_place: bool
    actor: str
    cluster: Cluster | None = None
    added: set[str] = field(default_factory=set)  #: content hashes
    known: Mapping[str, KnownSource] = field(default_factory=dict)  #: by path, before the import

    def __post_init__(self) -> None:
        self.search = NearDuplicateSearch(self.workspace)
        self.reader = PhotographReader(self.workspace.store, self.in_place)

    def sources(self, paths: Iterable[str]) -> Mapping[str, KnownSource]:
        if self.dataset_id is None:
            return {}
        return self.workspace.catalogue.images.known_sources(self.dataset_id, paths)

    def stored(self, paths: Sequence[str]) -> dict[str, Image]:
        """Return the catalogued image of each imported file."""
        sources = self.sources(paths)
        ids = sorted({sources[path].image_id for path in paths})
        found = {image.id: image for image in self.workspace.catalogue.images.select(ids=ids)}
        return {path: found[sources[path].image_id] for path in paths}

    def run(self, files: Sequence[FoundFile], progress: Progress) -> list[FileOutcome]:
        outcomes: list[FileOutcome] = []
        self.known = self.sources(file.path for file in files)
        progress(0, len(files))
        with closing(self.taken(files)) as batches:
            for taken in batches:
                outcomes += self.catalogue([self.with_details(each) for each in taken])
                progress(len(outcomes), len(files))
        return outcomes

    def taken(
        self, files: Sequence[FoundFile]
    ) -> Generator[Sequence[StoredPhotograph], None, None]:
        """Yield the photographs as they are read, in the order of the files, in batches."""
        if self.cluster is not None:
            yield from self.taken_on(self.cluster, files)
            return
        if len(files) - len(self.known) > MANY:
            self.workspace.store.list_once(Kind.IMAGE)
        # One more than there are processors: while one waits for the disk, another computes. A server
        # keeps one waiting longer.
        threads = min(8, (os.cpu_count() or 1) + 1)
        waits = not self.workspace.store.local or any(file.remote for file in files)
        with worker_threads(AT_A_TIME if waits else threads) as pool:
            yield from map_batches(pool, self.take, files, BATCH)

    def take(self, file: FoundFile) -> StoredPhotograph:
        """Read one photograph, unless the listing or the table refuses it. Runs in a thread."""
        return self.refused(file) or self.reader.take(file, self.known.get(file.path))

    def refused(self, file: FoundFile) -> StoredPhotograph | None:
        fault = file.fault or self.labels.matched.faults.get(file.path)
        return StoredPhotograph(file, refusal=fault) if fault else None

    def taken_on(
        self, cluster: Cluster, files: Sequence[FoundFile]
    ) -> Generator[Sequence[StoredPhotograph], None, None]:
        """Yield photographs as `taken` does, read by the workers of a cluster."""
        able = [file for file in files if not self.refused(file)]
        cluster.check(
            self.workspace.store,
            originals=[str(f.place) for f in able[:1] if not f.remote],
            writes=True,
        )
        job = ReadingJob(self.workspace.store.url, self.in_place, current_umask())
        rows = [FileRow(file, self.known.get(file.path)) for file in able]
        found = cluster.in_order(job, rows, cluster.resources("cpu"))
        batch: list[StoredPhotograph] = []
        with closing(found):
            for file in files:
                taken = self.refused(file) or next(found)
                if isinstance(taken, Refused):
                    taken = StoredPhotograph(file, refusal=taken.reason)
                batch.append(taken)
                if len(batch) == BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def with_details(self, taken: StoredPhotograph) -> StoredPhotograph:
        """Return a photograph with what the table says of it."""
        details = self.labels.matched.details.get(taken.file.path)
        if taken.image is None or details is None:
            return taken
        return replace(taken, image=replace(taken.image, details=details))

    def catalogue(self, batch: Sequence[StoredPhotograph]) -> list[FileOutcome]:
        """Catalogue a batch and return its outcomes."""
        catalogued: list[FileOutcome] = []
        if new := [t.image for t in batch if t.image]:
            if self.dataset_id is None:
                self.dataset_id = self.open_dataset().id
            if not self.added:  # what an earlier import left comes first, so that little waits
                self.search.link_all()
            copied = [
                i
                for i in new
                if i.in_place is None and keeps_name(self.known.get(i.path), i.content_hash)
            ]
            self.workspace.store.flush_names(Kind.IMAGE, [image.content_hash for image in copied])
            catalogued = self.workspace.catalogue.images.add(self.dataset_id, new, self.actor)
            self.search.link([image.content_hash for image in new])
        by_path = {outcome.name: outcome for outcome in catalogued}
        outcomes = [self.outcome(taken, by_path.get(taken.file.path)) for taken in batch]
        return self.correct(outcomes)

    def outcome(self, taken: StoredPhotograph, catalogued: FileOutcome | None) -> FileOutcome:
        path = taken.file.path
        if taken.refusal:
            return FileOutcome(path, Outcome.REFUSED, taken.refusal)
        if catalogued is None or taken.image is None:
            return FileOutcome(path, Outcome.UNCHANGED)
        if catalogued.outcome is Outcome.ADDED:
            self.added.add(taken.image.content_hash)
            notes = [*map(Note, taken.changes), *catalogued.remarks]
            return FileOutcome.noted(path, catalogued.outcome, notes)
        if catalogued.outcome is Outcome.UNCHANGED and taken.repair:
            known = self.known[path]
            if known.in_place != taken.image.in_place:
                self.workspace.catalogue.images.move(
                    known.image_id, taken.image.in_place, self.actor
                )
            return FileOutcome.noted(path, Outcome.REPAIRED, [taken.repair])
        return catalogued

    def correct(self, outcomes: list[FileOutcome]) -> list[FileOutcome]:
        """Correct the metadata of known files by their rows."""
        details = self.labels.matched.details
        known = [
            (o.name, self.known[o.name])
            for o in outcomes
            if o.outcome is not Outcome.REFUSED and o.name in self.known and o.name in details
        ]
        if not known:
            return outcomes
        ids = [source.image_id for _, source in known]
        differing = self.workspace.catalogue.images.differing(
            ids, [details[path] for path, _ in known]
        )
        stored = {image.id: image for image in self.workspace.catalogue.images.select(ids=ids)}
        notes: dict[str, list[Note]] = defaultdict(list)
        wrong: list[str] = []
        for (path, source), changes in zip(known, differing, strict=True):
            if changes and not source.first:
                kept = f"its {', '.join(changes)} not taken: that of the first file counts"
                notes[path].append(Note(kept))
                continue
            if changes:
                wrong.append(path)
            if source.first and malignancy_kept(stored[source.image_id], details[path]):
                notes[path].append(Note(_kept(stored[source.image_id], details[path])))
        if wrong:
            corrected = self.workspace.catalogue.images.update_details(
                [self.known[path].image_id for path in wrong],
                [details[path] for path in wrong],
                self.actor,
            )
            for path, changes in zip(wrong, corrected, strict=True):
                notes[path] = [*_corrections(changes), *notes[path]]
        return [
            FileOutcome.noted(
                o.name,
                Outcome.REPAIRED if o.name in wrong else o.outcome,
                [*o.remarks, *notes[o.name]],
            )
            if o.name in notes
            else o
            for o in outcomes
        ]


def _near_duplicates(
    workspace: Workspace, added: set[str], imported: Iterable[Image]
) -> list[SimilarPair]:
    """Return the pairs with an imported photograph, those with one just added first."""
    names = {image.id: image.content_hash for image in imported}
    new = {image_id for image_id, digest in names.items() if digest in added}
    pairs = workspace.catalogue.near_duplicates.pairs(names)
    found = [
        SimilarPair(
            pair.names,
            (pair.first_id, pair.second_id),
            pair.correlation,
            pair.change,
            pair.patients,
            pair.first_id in new or pair.second_id in new,
        )
        for pair in pairs
    ]
    return sorted(found, key=lambda pair: not pair.new)


def _photographs_of_release(listing: Listing, folder: Path) -> tuple[Listing, list[str]]:
    """Return the photographs of a release of ddiseg without its masks, with a note; else all files.

    Raises:
        InputError: a release without photographs.
    """
    if not is_release(folder):
        return listing, []
    photographs = tuple(f for f in listing.files if f.path.startswith("images/"))
    if not photographs:
        raise InputError(
            f"{folder} is a release of ddiseg without photographs: give the folder of the photographs "
            "to 'ddiseg import', and this one to 'ddiseg masks import'"
        )
    taken = "a release of ddiseg: only the photographs in its images/ are taken"
    left = len(listing.files) - len(photographs)
    masks = f"; pictures left, its masks: {left}" if left else ""
    return Listing(photographs, ()), [f"{taken}{masks}"]


def _other_files(listing: Listing, folder: Path, metadata: Path | None) -> list[str]:
    table = metadata.resolve() if metadata else None
    return other_kinds(path for path in listing.others if (folder / path).resolve() != table)


def _kept(image: Image, new: Details) -> str:
    """Return why the malignancy of an image is not that of its diagnosis, and how to change it."""
    by = image.malignant_source or "earlier metadata"
    though = "" if new.malignant is None else f", though {new.malignant} by {new.malignant_source}"
    return (
        f"malignant stays {image.malignant}, by {by}{though}: to change it, give a column with "
        "--columns malignant=COLUMN,..."
    )


def _corrections(changes: Mapping[str, Sequence[object]]) -> list[Note]:
    """Return a note for each detail of an image that was corrected; the kind is without the values."""
    notes = []
    for name, (old, new) in changes.items():
        if old == new:
            continue
        before, after = ("nothing" if value is None else str(value) for value in (old, new))
        unknown = old is None or (name == "tone" and old == "unknown")
        what = "filled in" if unknown else "cleared" if new is None else "corrected"
        notes.append(Note(f"corrected {name} {before} -> {after}", f"{name} {what}"))
    return notes
