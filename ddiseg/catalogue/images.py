"""Images: datasets, source files, metadata, skips, and how an image is referred to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session, aliased

from ddiseg.catalogue.annotations import resubmit
from ddiseg.catalogue.database import Repository, in_parts, named, scalars_in
from ddiseg.catalogue.events import close_skips, step
from ddiseg.catalogue.groups import add_to_groups, rebuild_groups, regroup
from ddiseg.catalogue.lifecycle import Action, State
from ddiseg.catalogue.signatures import store_thumbnails
from ddiseg.catalogue.subsets import named_subset
from ddiseg.catalogue.tables import (
    Dataset,
    Event,
    Image,
    Skip,
    Source,
    Subset,
    SubsetMember,
)
from ddiseg.errors import InputError, NotFoundError
from ddiseg.outcomes import FileOutcome, Note, Outcome, counted

#: Prefix of a `malignant_source` that derives malignancy from the diagnosis.
FROM_DIAGNOSIS = "diagnosis: "

#: Patient or lesion of metadata that says outright that it is not known.
UNKNOWN_ID = ""


@dataclass(frozen=True)
class Details:
    """Metadata of an image; None is a missing value, which changes nothing that is stored.

    UNKNOWN_ID as patient or lesion says that it is not known, and clears a stored one.
    """

    tone: str = "unknown"
    tone_source: str | None = None
    fitzpatrick: int | None = None
    malignant: bool | None = None
    malignant_source: str | None = None
    diagnosis: str | None = None
    patient: str | None = None
    lesion: str | None = None


#: Stored and new value by the name of a detail that differs; tone_source only with the tone,
#: malignant_source also where a column confirms a malignancy derived from the diagnosis.
Differences = dict[str, list[Any]]


@dataclass(frozen=True)
class NewImage:
    """A file to be catalogued; it has been read, hashed and stored."""

    path: str  #: relative to the imported folder, with /
    file_hash: str
    size: int
    modified_ns: int
    content_hash: str
    perceptual_hash: str
    width: int
    height: int
    in_place: str | None = None
    thumbnail: tuple[bytes, bytes] | None = None  #: signature and pixels
    details: Details = field(default_factory=Details)
    orientation: int | None = None  #: EXIF orientation of the file, 1 to 8

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class KnownSource:
    """A file that was imported before."""

    image_id: int
    file_hash: str
    size: int
    modified_ns: int
    content_hash: str
    in_place: str | None
    first: bool  #: the image's first file, whose details are the image's
    orientation: int | None  #: EXIF orientation of the file; None: not recorded


class Images(Repository):
    """The images of a catalogue."""

    def dataset(
        self,
        name: str,
        licence: str | None = None,
        source: str | None = None,
        *,
        synthetic: bool = False,
    ) -> Dataset:
        """Return the dataset called `name`, created if new; licence and source are never removed.

        Raises:
            InputError: its images are synthetic and those to be added are not, or the other way
                round; a report describes all images of a dataset alike.
        """
        with self._database.write() as session:
            row = session.scalars(select(Dataset).where(Dataset.name == name)).first()
            if row is None:
                row = Dataset(name=name, synthetic=synthetic)
                session.add(row)
            elif row.synthetic != synthetic:
                _refuse_mixture(session, row)
                row.synthetic = synthetic
            row.licence = licence or row.licence
            row.source = source or row.source
            session.flush()
            return row

    def datasets(self) -> Sequence[Dataset]:
        return self._all(select(Dataset).order_by(Dataset.id))

    def find_dataset(self, name: str) -> Dataset | None:
        """Return the dataset called `name`, or None."""
        return self._first(select(Dataset).where(Dataset.name == name))

    def correct_dataset(self, name: str, facts: Mapping[str, Any], actor: str) -> list[str]:
        """Set `facts` (licence, source, synthetic) of a dataset; returns those that changed.

        Each change is an event. Raises NotFoundError where there is no such dataset.
        """
        with self._database.write() as session:
            row = named(session, Dataset, name)
            changed = {k: [getattr(row, k), v] for k, v in facts.items() if getattr(row, k) != v}
            for key, (old, new) in changed.items():
                setattr(row, key, new)
                detail = {"dataset": name, key: [old, new]}
                session.add(Event(kind="dataset", actor=actor, detail=detail))
            if "lesions_per_patient" in changed:
                rebuild_groups(session)
            return list(changed)

    def known_sources(self, dataset_id: int, paths: Iterable[str]) -> dict[str, KnownSource]:
        """Return the files of a dataset that were imported before, by path, of these paths."""
        other = aliased(Source)
        first = select(func.min(other.id)).where(other.image_id == Source.image_id)
        query = (
            select(Source, Image.content_hash, Image.in_place, first.scalar_subquery())
            .join(Image, Image.id == Source.image_id)
            .where(Source.dataset_id == dataset_id)
        )
        with self._database.read() as session:
            parts = (query.where(Source.path.in_(part)) for part in in_parts(paths))
            return {
                s.path: KnownSource(
                    s.image_id,
                    s.file_hash,
                    s.size,
                    s.modified_ns,
                    content,
                    in_place,
                    s.id == of_image,
                    s.orientation,
                )
                for part in parts
                for s, content, in_place, of_image in session.execute(part)
            }

    def add(self, dataset_id: int, batch: Sequence[NewImage], actor: str) -> list[FileOutcome]:
        """Catalogue files, all or none; an exact duplicate becomes a second source of its image.

        Two processes may add the same files at once: for the second one they are unchanged.
        """
        with self._database.write() as session:
            return _add_all(session, dataset_id, batch, actor)

    def update_details(
        self, image_ids: Sequence[int], details: Sequence[Details], actor: str
    ) -> list[Differences]:
        """Update the metadata of images, with an event each; returns the changes."""
        with self._database.write() as session:
            rows = {i.id: i for i in session.scalars(select(Image).where(Image.id.in_(image_ids)))}
            changes = [
                _correct(session, rows[image_id], new, actor)
                for image_id, new in zip(image_ids, details, strict=True)
            ]
            linked = zip(image_ids, changes, strict=True)
            regroup(session, {i for i, each in linked if each.keys() & {"patient", "lesion"}})
            return changes

    def differing(self, image_ids: Sequence[int], details: Sequence[Details]) -> list[Differences]:
        """Return what `update_details` would change."""
        stored = {i.id: i for i in self._all(select(Image).where(Image.id.in_(image_ids)))}
        return [_differences(stored[i], d) for i, d in zip(image_ids, details, strict=True)]

    def move(self, image_id: int, in_place: str | None, actor: str) -> None:
        """Store where a photograph is referenced; None: it was copied to the store."""
        with self._database.write() as session:
            image = session.get_one(Image, image_id)
            detail = {"in_place": [image.in_place, in_place]}
            image.in_place = in_place
            session.add(Event(kind="move", actor=actor, image_id=image_id, detail=detail))

    def find(self, reference: str) -> Image:
        """Return the image with this #id, name, DATASET:name, or name without its ending.

        Raises:
            NotFoundError: there is none.
            InputError: there are several.
        """
        with self._database.read() as session:
            found = _lookup(session, reference)
        if not found:
            raise NotFoundError(
                f"no image called '{reference}': give a file name, DATASET:NAME or #ID"
            )
        if len(found) > 1:
            choices = ", ".join(f"#{i.id}" for i in found[:5])
            raise InputError(
                f"'{reference}' is the name of {counted(len(found), 'image')} ({choices}): give DATASET:NAME or #ID"
            )
        return found[0]

    def select(
        self,
        *,
        subset: str | None = None,
        states: Sequence[State] | None = None,
        ids: Sequence[int] | None = None,
    ) -> Sequence[Image]:
        """Return the images that meet each given condition, in the order of their ids.

        Raises:
            NotFoundError: there is no such subset.
        """
        query = select(Image).order_by(Image.id)
        if subset is not None:
            query = query.join(SubsetMember, SubsetMember.image_id == Image.id)
            query = query.join(Subset, Subset.id == SubsetMember.subset_id).where(
                Subset.name == subset
            )
        if states is not None:
            query = query.where(Image.state.in_([s.value for s in states]))
        with self._database.read() as session:
            if subset is not None:
                named_subset(session, subset)
            if ids is None:
                return session.scalars(query).all()
            return scalars_in(session, query, Image.id, ids)

    def count(self, subset: str | None = None) -> int:
        """Return the number of images, of a subset or of all.

        Raises:
            NotFoundError: there is no such subset.
        """
        with self._database.read() as session:
            query = select(func.count(Image.id))
            if subset is not None:
                members = select(func.count()).select_from(SubsetMember)
                query = members.where(SubsetMember.subset_id == named_subset(session, subset).id)
            return session.scalars(query).one()

    def ids_of(self, content_hashes: Iterable[str]) -> set[int]:
        """Return the ids of the images with these pixels."""
        return set(self._all_in(select(Image.id), Image.content_hash, content_hashes))

    def by_stem(self, dataset: str | None = None) -> dict[str, set[int]]:
        """Return image ids by file name without ending, over all sources.

        Raises:
            NotFoundError: there is no such dataset.
        """
        found: dict[str, set[int]] = {}
        for path, image_id in self.source_paths(dataset):
            found.setdefault(path.rsplit("/", 1)[-1].rsplit(".", 1)[0], set()).add(image_id)
        return found

    def source_paths(self, dataset: str | None = None) -> list[tuple[str, int]]:
        """Return path and image id of all sources, of one dataset or of all.

        Raises:
            NotFoundError: there is no such dataset.
        """
        query = select(Source.path, Source.image_id).order_by(Source.id)
        with self._database.read() as session:
            if dataset is not None:
                row = named(session, Dataset, dataset)
                query = query.where(Source.dataset_id == row.id)
            return [(path, image_id) for path, image_id in session.execute(query)]

    def sources(self, image_id: int) -> Sequence[Source]:
        return self._all(select(Source).where(Source.image_id == image_id).order_by(Source.id))

    def counts(self) -> dict[tuple[str, str], int]:
        """Count images by (tone, state)."""
        return sum_counts(self.counts_by_dataset())

    def counts_by_dataset(self) -> dict[tuple[int, str, str], int]:
        """Count images by (dataset id, tone, state); an index holds all three."""
        columns = Image.dataset_id, Image.tone, Image.state
        query = select(*columns, func.count()).group_by(*columns).order_by(*columns)
        return {(dataset, tone, state): n for dataset, tone, state, n in self._rows(query)}

    def ids(self, *, tone: str | None = None, state: State | None = None) -> Sequence[int]:
        """Return the ids of images of a tone or in a state, ascending."""
        query = select(Image.id).order_by(Image.id)
        if tone is not None:
            query = query.where(Image.tone == tone)
        return self._all(query if state is None else query.where(Image.state == state.value))

    def diagnosis_counts(self) -> dict[tuple[str | None, bool | None, str], int]:
        """Count images by (diagnosis, malignant, tone)."""
        columns = Image.diagnosis, Image.malignant, Image.tone
        rows = self._rows(select(*columns, func.count()).group_by(*columns))
        return {(diagnosis, malignant, tone): n for diagnosis, malignant, tone, n in rows}

    def skip_counts_by_tone(self) -> dict[tuple[str, str], int]:
        """Count the skipped images by (reason, tone), in the order in which reasons were first given."""
        query = select(Skip.reason, Image.tone, func.count(), func.min(Skip.id))
        query = query.join(Image, Image.id == Skip.image_id).where(Skip.reopened_at.is_(None))
        rows = sorted(self._rows(query.group_by(Skip.reason, Image.tone)), key=lambda row: row[3])
        return {(reason, tone): n for reason, tone, n, _ in rows}

    def some_stored(self, count: int) -> list[str]:
        """Return the content hashes of up to `count` stored photographs, over the whole catalogue.

        Each is the first that is not in place of 1,000 images; these thousands lie equally far apart.
        """
        query = select(Image.content_hash).where(Image.in_place.is_(None)).order_by(Image.id)
        with self._database.read() as session:
            last = session.scalar(select(func.max(Image.id))) or 0
            starts = [last * number // count for number in range(count)]
            parts = [query.where(Image.id > s, Image.id <= s + 1000).limit(1) for s in starts]
            found = [session.scalars(part).first() for part in parts]
        return [digest for digest in dict.fromkeys(found) if digest is not None]

    def skip(self, image_id: int, reason: str, note: str | None, annotator: str) -> Outcome:
        """Skip an image; unchanged if the same person skipped it for the same reason."""
        with self._database.write([image_id]) as session:
            image = session.get_one(Image, image_id)
            same = select(Skip).where(
                Skip.image_id == image_id,
                Skip.reopened_at.is_(None),
                Skip.reason == reason,
                Skip.note == note,
                Skip.annotator == annotator,
            )
            if session.scalars(same).first() is not None:
                return Outcome.UNCHANGED
            step(session, image, Action.SKIP, annotator, {"reason": reason, "note": note})
            close_skips(session, image_id)  # a later reason replaces the first
            session.add(Skip(image_id=image_id, reason=reason, note=note, annotator=annotator))
            return Outcome.ADDED

    def reopen(self, image_id: int, actor: str) -> None:
        """Reopen an image: a skipped one is queued, an accepted one goes to rework.

        If a skipped image has a person's mask on the labelling server, that goes to review.
        """
        with self._database.write([image_id]) as session:
            image = session.get_one(Image, image_id)
            step(session, image, Action.REOPEN, actor)
            close_skips(session, image_id)
            if image.state == State.QUEUED:
                resubmit(session, image, actor)

    def skip_counts(self) -> dict[str, int]:
        """Count the skipped images by reason, in the order in which reasons were first given."""
        query = select(Skip.reason, func.count()).where(Skip.reopened_at.is_(None))
        rows = self._rows(query.group_by(Skip.reason).order_by(func.min(Skip.id)))
        return {reason: n for reason, n in rows}

    def skips(self, image_id: int | None = None) -> Sequence[Skip]:
        """Return the open skips, of one image or of all."""
        query = select(Skip).where(Skip.reopened_at.is_(None)).order_by(Skip.id)
        if image_id is not None:
            query = query.where(Skip.image_id == image_id)
        return self._all(query)


def sum_counts(counts: Mapping[tuple[int, str, str], int]) -> dict[tuple[str, str], int]:
    """Return numbers of images by (tone, state), over all datasets."""
    found: dict[tuple[str, str], int] = {}
    for (_, tone, state), n in counts.items():
        found[tone, state] = found.get((tone, state), 0) + n
    return found


def _refuse_mixture(session: Session, dataset: Dataset) -> None:
    """Raise InputError if the dataset has images of the other kind already."""
    existing = select(Image.id).where(Image.dataset_id == dataset.id).limit(1)
    if session.scalars(existing).first() is None:
        return
    if dataset.synthetic:
        raise InputError(
            f"dataset '{dataset.name}' holds synthetic images: add --synthetic if these show no "
            "person either, or give another --dataset"
        )
    raise InputError(
        f"dataset '{dataset.name}' holds images that are not synthetic: give the synthetic ones "
        "another --dataset"
    )


def _add_all(
    session: Session, dataset_id: int, batch: Sequence[NewImage], actor: str
) -> list[FileOutcome]:
    """Catalogue files with one query and one insert a table, however many there are."""
    in_batch = Source.path.in_([new.path for new in batch])
    query = select(Source).where(Source.dataset_id == dataset_id, in_batch)
    sources = {s.path: s for s in session.scalars(query)}
    wanted = Image.content_hash.in_([new.content_hash for new in batch])
    images = {i.content_hash: i for i in session.scalars(select(Image).where(wanted))}
    first: set[str] = set()
    for new in batch:
        if new.path not in sources and new.content_hash not in images:
            images[new.content_hash] = Image(
                dataset_id=dataset_id,
                name=new.name,
                content_hash=new.content_hash,
                perceptual_hash=new.perceptual_hash,
                width=new.width,
                height=new.height,
                in_place=new.in_place,
                state=State.NEW.value,
                **_stored(new.details),
            )
            first.add(new.path)
    session.add_all(images.values())
    session.flush()  # gives the new images their ids
    store_thumbnails(
        session,
        {
            images[new.content_hash].id: new.thumbnail
            for new in batch
            if new.path in first and new.thumbnail is not None
        },
    )
    add_to_groups(session, [images[new.content_hash] for new in batch if new.path in first])
    return [
        _see_again(session, sources[new.path], new)
        if new.path in sources
        else _add_one(session, dataset_id, new, images[new.content_hash], new.path in first, actor)
        for new in batch
    ]


def _see_again(session: Session, source: Source, new: NewImage) -> FileOutcome:
    known = session.get_one(Image, source.image_id)
    if known.content_hash != new.content_hash:
        start = "another photograph was imported under this name"
        rest = (
            "nothing is overwritten: import the new one under a new name, or into another --dataset"
        )
        why = Note(f"{start} (image #{known.id}); {rest}", f"{start}; {rest}")
        return FileOutcome.noted(new.path, Outcome.REFUSED, [why])
    source.file_hash, source.size, source.modified_ns = new.file_hash, new.size, new.modified_ns
    source.orientation = new.orientation or source.orientation
    return FileOutcome(new.path, Outcome.UNCHANGED)


def _add_one(
    session: Session, dataset_id: int, new: NewImage, image: Image, first: bool, actor: str
) -> FileOutcome:
    notes = []
    event = Event(actor=actor, image_id=image.id, detail={"path": new.path})
    session.add(event)
    if first:
        event.kind, event.state_after = "import", State.NEW.value
    else:
        event.kind = "duplicate"
        same = f"the same photograph as {image.name} (#{image.id}): one image, two names"
        notes.append(Note(same, "the same photograph as another file: one image, two names"))
        if contradicted := _differences(image, new.details):
            notes.append(
                Note(f"its {', '.join(contradicted)} not used: that of the first file is kept")
            )
    session.add(
        Source(
            dataset_id=dataset_id,
            image_id=image.id,
            path=new.path,
            name=new.name,
            file_hash=new.file_hash,
            size=new.size,
            modified_ns=new.modified_ns,
            orientation=new.orientation,
        )
    )
    return FileOutcome.noted(new.path, Outcome.ADDED, notes)


def _differences(image: Image, new: Details) -> Differences:
    """Return the stored and the new value of each detail that the new metadata changes."""
    found: Differences = {}
    for name in (f.name for f in fields(Details)):
        stored, given = getattr(image, name), getattr(new, name)
        missing = given is None or (name == "tone" and given == "unknown")
        given = None if given == UNKNOWN_ID else given
        if name not in _JOINED and not missing and stored != given:
            found[name] = [stored, given]
    if "tone" in found and new.fitzpatrick is None and image.fitzpatrick is not None:
        found["fitzpatrick"] = [image.fitzpatrick, None]  # it belongs to the wrong tone
    return found | _malignancy_differences(image, new)


def _stored(details: Details) -> dict[str, Any]:
    """Return the columns of a new image; an unknown malignancy has no source."""
    details = replace(details, malignant_source=None) if details.malignant is None else details
    return {name: None if v == UNKNOWN_ID else v for name, v in asdict(details).items()}


#: Details that are compared together with others.
_JOINED = {"tone_source", "malignant", "malignant_source"}


def _malignancy_differences(image: Image, new: Details) -> Differences:
    """Return differences in malignancy: a derived one follows its diagnosis, any other is kept."""
    if _is_derived(image.malignant_source):
        # Another diagnosis, or the same one derived anew, replaces what was derived before.
        other = new.diagnosis is not None and new.diagnosis != image.diagnosis
        if new.malignant is None and not (other or _is_derived(new.malignant_source)):
            return {}
        confirmed = new.malignant == image.malignant
        if confirmed and _is_derived(new.malignant_source):
            return {}
    else:
        confirmed = False
        derived = _is_derived(new.malignant_source)
        if new.malignant in (None, image.malignant) or (derived and image.malignant is not None):
            return {}
    found: Differences = {} if confirmed else {"malignant": [image.malignant, new.malignant]}
    source = None if new.malignant is None else new.malignant_source
    if image.malignant_source != source:
        found["malignant_source"] = [image.malignant_source, source]
    return found


def malignancy_kept(image: Image, new: Details) -> bool:
    """Return whether an image keeps a malignancy that its new diagnosis contradicts or drops.

    It does if the malignancy came from a column of the metadata, or its source was not recorded.
    """
    if image.malignant is None or _is_derived(image.malignant_source):
        return False
    if new.malignant is None:
        return new.diagnosis is not None and new.diagnosis != image.diagnosis
    return _is_derived(new.malignant_source) and new.malignant != image.malignant


def _is_derived(malignant_source: str | None) -> bool:
    return (malignant_source or "").startswith(FROM_DIAGNOSIS)


def _correct(session: Session, image: Image, new: Details, actor: str) -> Differences:
    changes = _differences(image, new)
    if not changes:
        return changes
    if "tone" in changes or "fitzpatrick" in changes:
        changes["tone_source"] = [image.tone_source, new.tone_source]
    for name, (_, given) in changes.items():
        setattr(image, name, given)
    session.add(Event(kind="metadata", actor=actor, image_id=image.id, detail=changes))
    return changes


def _lookup(session: Session, reference: str) -> Sequence[Image]:
    if reference.startswith("#") and reference[1:].isdigit():
        image = session.get(Image, int(reference[1:]))
        return [image] if image else []
    dataset, colon, name = reference.partition(":")
    wanted = name if colon else reference
    datasets = select(Dataset.id)
    of_dataset = Source.dataset_id.in_(
        datasets.where(Dataset.name == dataset) if colon else datasets
    )
    # A name has no slash, and a path without one is a name: one index is enough.
    exact = Source.path == wanted if "/" in wanted else Source.name == wanted
    found = session.scalars(_with_source(of_dataset, exact)).all()
    if found or "/" in wanted:
        return found
    pattern = wanted.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    without_ending = Source.name.like(f"{pattern}.%", escape="\\")
    found_by_index = Source.id.in_(select(Source.id).where(without_ending))  # without reading rows
    return session.scalars(_with_source(of_dataset, found_by_index)).all()


def _with_source(*conditions: ColumnElement[bool]) -> Select[Image]:
    """Return the query for the images that have a source, in the order of their ids."""
    # Sources first: a database must not look for a source of each image.
    ids = select(Source.image_id).where(*conditions)
    return select(Image).where(Image.id.in_(ids)).order_by(Image.id)
