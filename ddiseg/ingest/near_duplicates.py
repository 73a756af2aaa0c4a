"""Compare new photographs with all others, and store the pairs that show one picture."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from ddiseg import near_duplicates
from ddiseg.catalogue.near_duplicates import ConfirmedPair
from ddiseg.catalogue.signatures import BLOCK, LENGTH
from ddiseg.errors import DdisegError
from ddiseg.outcomes import counted
from ddiseg.workspace.workspace import Workspace

#: Images of one transaction.
BATCH = 256

_logger = logging.getLogger(__name__)


class NearDuplicateSearch:
    """The signatures of all images in memory, read when they are first needed."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._catalogue = workspace.catalogue.near_duplicates
        self.compared: set[int] = set()  #: ids of the images that were compared
        self._index = near_duplicates.Index()
        self._ids: NDArray[np.int64] = np.empty(
            0, np.int64
        )  #: (N,) image ids, in the order of the index

    def link_all(self) -> None:
        """Compare every image that was not compared yet; what was finished is kept.

        Images that an older program imported get their thumbnail first, from the stored photograph;
        one whose file is missing or damaged waits until it is put back.
        """
        if _describe_older(self._workspace):
            self._index, self._ids = near_duplicates.Index(), np.empty(0, np.int64)
        self._link(self._catalogue.not_compared())

    def link(self, content_hashes: Collection[str]) -> None:
        """Compare those of these images that were not compared yet with all others."""
        self._link(self._catalogue.not_compared(content_hashes))

    def _link(self, new: Sequence[int]) -> None:
        if not new:
            return
        self._read()
        not_compared = set(new)
        self.compared |= not_compared
        for start in range(0, len(new), BATCH):
            part = new[start : start + BATCH]
            signatures = self._catalogue.signatures_of(part)
            joined = np.frombuffer(b"".join(signatures.values()), np.uint8).reshape(-1, LENGTH)
            proposed: dict[int, list[int]] = {}
            for image_id, near in zip(signatures, self._index.near(joined), strict=True):
                others = self._ids[near].tolist()
                # A pair of two that are new is left to the later one.
                proposed[image_id] = [i for i in others if i < image_id or i not in not_compared]
            self._catalogue.add(part, self._confirmed(proposed))

    def _read(self) -> None:
        """Add the signatures that were stored since the last time."""
        # Other processes import too: what they store last may have smaller ids than what was read.
        first = int(self._ids.max(initial=0)) - 2 * BLOCK
        recent = self._ids[self._ids >= first]
        new_ids = [self._ids]
        for ids, signatures in self._catalogue.signatures(max(0, first)):
            if len(recent):
                unknown = ~np.isin(ids, recent)
                ids, signatures = ids[unknown], signatures[unknown]
            self._index.add(signatures)
            new_ids.append(ids)
        self._ids = np.concatenate(new_ids)

    def _confirmed(self, proposed: dict[int, list[int]]) -> list[ConfirmedPair]:
        wanted = {i for image_id, others in proposed.items() if others for i in (image_id, *others)}
        side = near_duplicates.SIDE
        thumbnails = {
            image_id: np.frombuffer(pixels, np.uint8).reshape(side, side)
            for image_id, pixels in self._catalogue.thumbnails(wanted).items()
        }
        pairs = []
        for image_id, others in proposed.items():
            for other in others:
                if other == image_id or other not in thumbnails:
                    continue
                first, second = sorted((image_id, other))
                found, change = near_duplicates.compare(thumbnails[first], thumbnails[second])
                if found >= near_duplicates.MIN_CORRELATION:
                    pairs.append(ConfirmedPair(first, second, round(found, 4), change.value))
        return pairs


def _describe_older(workspace: Workspace) -> int:
    """Make the thumbnails of images that have none; returns the number of images looked at."""
    older = workspace.catalogue.near_duplicates.without_thumbnail()
    if not older:
        return 0
    _logger.info(
        f"making thumbnails of {counted(len(older), 'image')} that an earlier version imported, to find "
        "near-duplicates"
    )
    unread = 0
    for start in range(0, len(older), BATCH):
        described = {}
        for image in older[start : start + BATCH]:
            try:
                pixels = workspace.photograph(image)
            except DdisegError:
                unread += 1
                continue
            described[image.id] = near_duplicates.describe(pixels)
        workspace.catalogue.near_duplicates.describe(described)
    if unread:
        _logger.info(
            f"{counted(unread, 'image')} without a readable file not compared: 'ddiseg verify' names them"
        )
    return len(older)
