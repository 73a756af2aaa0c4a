"""The content of a release: reviewed masks with all their metadata, read as a stream.

Arrays: H rows, W columns of the photograph; masks (H, W) uint8 class ids of the protocol.
"""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TypeVar

from annotation_protocol import Protocol, UserError, load_protocol
from ddiseg import masks
from ddiseg.catalogue.release_rows import ChosenMask
from ddiseg.errors import DamagedFileError, InputError, MissingFileError, StoreError
from ddiseg.outcomes import Progress, counted, silent, worker_threads
from ddiseg.pixel_budget import BUDGET
from ddiseg.release.items import ItemMaker, ReleaseItem
from ddiseg.release.naming import unique_stems
from ddiseg.release.public_names import PublicNames
from ddiseg.release.summary import ContentHash, ExportSummary
from ddiseg.sampling.groups import Groups
from ddiseg.workspace.workspace import Workspace

#: Images that are read and encoded at once; each holds a photograph in memory.
WORKERS = min(4, os.cpu_count() or 1)

#: Images that wait for a thread or for their turn to be written.
_AHEAD = WORKERS * 4

#: Images of a release in one file or one folder: a larger release is divided, so that each part fits
#: into the memory of who reads it.
IMAGES_PER_PART = 10_000

T = TypeVar("T")


@dataclass(frozen=True)
class Chosen:
    """What is decided over all images of a release, by position: compact, since there may be many."""

    image_ids: array[int]
    mask_ids: array[int]
    stems: Sequence[str]  #: file names without ending, unique in the release
    groups: Sequence[str]  #: keys of their groups


@dataclass(frozen=True)
class Release:
    """Images with one mask each, in the order of their ids; read again for each pass over them."""

    workspace: Workspace
    protocol: Protocol
    subset: str | None
    include_predictions: bool
    names: PublicNames
    chosen: Chosen
    format_name: str = ""  #: that it is written in
    images: bool = True  #: the photographs are written, too
    images_per_part: int = IMAGES_PER_PART

    @classmethod
    def gather(
        cls,
        workspace: Workspace,
        *,
        subset: str | None = None,
        include_predictions: bool = False,
        keep_names: bool = False,
    ) -> Release:
        """Select the images with an accepted mask, of a subset or of all.

        With `include_predictions` also the newest prediction of each image that has no accepted
        mask and is not skipped. Raises InputError where nothing is left, NotFoundError where the
        subset does not exist.
        """
        rows = workspace.catalogue.release_rows
        chosen = rows.chosen(subset, predictions=include_predictions)
        if not chosen:
            raise InputError(_nothing(workspace, subset, include_predictions))
        names = PublicNames.of(workspace, keep=keep_names)
        decided = _decide(workspace, chosen, names)
        return cls(workspace, load_protocol(), subset, include_predictions, names, decided)

    def __len__(self) -> int:
        return len(self.chosen.image_ids)

    def in_format(self, format_name: str, *, images: bool) -> Release:
        """Return the same release as it is written in a format, with or without photographs."""
        return replace(self, format_name=format_name, images=images)

    @property
    def public_subset(self) -> str | None:
        """The name of the subset as the release says it."""
        return self.subset and self.names.subsets()[self.subset]

    def items(self) -> Generator[ReleaseItem]:
        """Yield the images with all that is told of them.

        Raises:
            InputError: other masks are accepted by now than when the release was gathered.
        """
        maker = ItemMaker.of(self.workspace, self.names)
        folders, chosen = self.folders(), self.chosen
        rows = self.workspace.catalogue.release_rows.stream(
            self.subset, predictions=self.include_predictions
        )
        wanted = zip(chosen.image_ids, chosen.mask_ids, chosen.stems, chosen.groups, strict=True)
        for position, (row, now) in enumerate(zip_longest(rows, wanted)):
            if row is None or now is None or (row.image.id, row.mask.id) != now[:2]:
                raise InputError(
                    "masks were accepted or reopened while the release was gathered: run the same "
                    "command again"
                )
            folder = folders[position // self.images_per_part]
            yield maker.item(row, stem=now[2], group=now[3], folder=folder)

    def each(
        self,
        work: Callable[[ReleaseItem, masks.Mask], T],
        take: Callable[[ReleaseItem, T], object],
        progress: Progress = silent,
    ) -> ExportSummary:
        """Run `work` on every image and its mask, on several threads, and `take` on each result.

        The mask is at its own size, verified by its hash; `over` brings it to its photograph. Results
        are taken one after the other, in the order of the release, and few are in memory. An image
        whose work raises a UserError is refused with that reason and has no result; any other error,
        such as a full disk, stops everything.
        """
        summary = ExportSummary(self.protocol.class_names, self.content_hash())
        # Nothing may be written any more once the caller clears up after an error.
        with worker_threads(WORKERS) as pool:
            for done, (item, future) in enumerate(self._submitted(pool, work), 1):
                try:
                    present, result = future.result()
                except StoreError:  # of the store, not of this image
                    raise
                except UserError as error:
                    summary.leave_out(item, str(error).removeprefix(f"{item.image.name}: "))
                else:
                    take(item, result)
                    summary.add(item, present)
                progress(done, len(self))
        return summary

    def content(self) -> str:
        """Return the SHA-256 of everything in the release but the time."""
        content = self.content_hash()
        for item in self.items():
            content.add(item)
        return content.hexdigest(())

    def content_hash(self) -> ContentHash:
        """Return the hash of this release before the first of its images."""
        from ddiseg import __version__

        return ContentHash(
            {
                "format": self.format_name,
                "ddiseg": __version__,
                "protocol": self.protocol.version,
                "images": self.images,
                "subset": self.public_subset,
                "names_kept": self.names.are_kept,
                "include_predictions": self.include_predictions,
            }
        )

    def over(self, item: ReleaseItem, mask: masks.Mask) -> masks.Mask:
        """Return `mask` at the size of its photograph, (H, W); stretched back where it was stretched."""
        size = item.image.height, item.image.width
        return mask if mask.shape == size else masks.stretch(mask, size)

    def photograph_png(self, item: ReleaseItem) -> bytes:
        """Return the photograph as a PNG without metadata, checked against its hash."""
        return self.workspace.photograph_png(item.image)

    def folders(self) -> list[str]:
        """Return the folders that files of the release are divided into, [""] for none, each with /."""
        if len(self) <= self.images_per_part:
            return [""]
        return [f"part-{n + 1:05d}/" for n in range(-(-len(self) // self.images_per_part))]

    def _submitted(
        self, pool: ThreadPoolExecutor, work: Callable[[ReleaseItem, masks.Mask], T]
    ) -> Iterator[tuple[ReleaseItem, Future[tuple[list[str], T]]]]:
        """Yield the images with what a thread makes of them, some of them ahead of their turn."""
        ahead: deque[tuple[ReleaseItem, Future[tuple[list[str], T]]]] = deque()
        with closing(self.items()) as items:
            for item in items:
                ahead.append((item, pool.submit(self._one, work, item)))
                if len(ahead) > _AHEAD:
                    yield ahead.popleft()
        yield from ahead

    def _one(
        self, work: Callable[[ReleaseItem, masks.Mask], T], item: ReleaseItem
    ) -> tuple[list[str], T]:
        with BUDGET.hold(item.image.width * item.image.height):
            return self._work_on(work, item)

    def _work_on(
        self, work: Callable[[ReleaseItem, masks.Mask], T], item: ReleaseItem
    ) -> tuple[list[str], T]:
        try:
            mask = self.workspace.mask(item.mask)
        except (DamagedFileError, MissingFileError) as error:  # without the name of who drew it
            raise InputError(
                "its stored mask is damaged or missing; 'ddiseg verify --repair' says how to put it back"
            ) from error
        present = [self.protocol.class_names[index] for index in masks.classes_in(mask)]
        return present, work(item, mask)


def _decide(workspace: Workspace, chosen: Sequence[ChosenMask], names: PublicNames) -> Chosen:
    datasets = {d.id: names.dataset(d).name for d in workspace.catalogue.images.datasets()}
    named = [(c.id, names.image(c), datasets[c.dataset_id]) for c in chosen]
    return Chosen(
        image_ids=array("q", (c.id for c in chosen)),
        mask_ids=array("q", (c.mask_id for c in chosen)),
        stems=unique_stems(named),
        groups=Groups.read(workspace.catalogue).keys(chosen),
    )


def _nothing(workspace: Workspace, subset: str | None, include_predictions: bool) -> str:
    where = f"subset '{subset}'" if subset else "the workspace"
    count = workspace.catalogue.images.count(subset)
    if count == 0:
        return f"{where} has no images: nothing to export; add some with 'ddiseg import' first"
    images = counted(count, "image")
    if include_predictions:
        return (
            f"{where} has {images} and no accepted mask or prediction: nothing to "
            "export; import reviewed masks ('ddiseg masks import') or run 'ddiseg prelabel' first"
        )
    return (
        f"{where} has {images} and no accepted mask: nothing to export; import "
        "reviewed masks ('ddiseg masks import --annotator A --reviewer B') first, or add "
        "--include-predictions to export predictions, too"
    )
