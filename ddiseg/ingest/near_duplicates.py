"""Compare new photographs with all others, and store the pairs that show one picture."""

from __future__ import annotations

import logging
from collections import defaultdict

import numpy as np

from ddiseg import near_duplicates
from ddiseg.catalogue.near_duplicates import ConfirmedPair
from ddiseg.errors import DdisegError
from ddiseg.outcomes import counted
from ddiseg.workspace.workspace import Workspace

#: Images of one transaction.
BATCH = 256

_logger = logging.getLogger(__name__)


def link_near_duplicates(workspace: Workspace) -> None:
    """Compare every image that was not compared yet; what was finished is kept.

    Images that an older program imported get their thumbnail first, from the stored photograph; one
    whose file is missing or damaged waits until it is put back.
    """
    _describe_older(workspace)
    catalogue = workspace.catalogue.near_duplicates
    new = catalogue.not_compared()
    if not new:
        return
    ids, signatures = catalogue.signatures()
    index = near_duplicates.Index(signatures)
    not_compared = set(new)
    for start in range(0, len(new), BATCH):
        part = new[start : start + BATCH]
        places = np.searchsorted(ids, part)
        proposed: dict[int, list[int]] = defaultdict(list)
        for image_id, near in zip(part, index.near(signatures[places]), strict=True):
            others = ids[near].tolist()
            # A pair of two that are new is left to the later one.
            proposed[image_id] = [i for i in others if i < image_id or i not in not_compared]
        catalogue.add(part, _confirmed(workspace, proposed))


def _confirmed(workspace: Workspace, proposed: dict[int, list[int]]) -> list[ConfirmedPair]:
    wanted = {i for image_id, others in proposed.items() if others for i in (image_id, *others)}
    side = near_duplicates.SIDE
    thumbnails = {
        image_id: np.frombuffer(pixels, np.uint8).reshape(side, side)
        for image_id, pixels in workspace.catalogue.near_duplicates.thumbnails(wanted).items()
    }
    pairs = []
    for image_id, others in proposed.items():
        for other in others:
            if other == image_id:
                continue
            first, second = sorted((image_id, other))
            found, change = near_duplicates.compare(thumbnails[first], thumbnails[second])
            if found >= near_duplicates.MIN_CORRELATION:
                pairs.append(ConfirmedPair(first, second, round(found, 4), change.value))
    return pairs


def _describe_older(workspace: Workspace) -> None:
    older = workspace.catalogue.near_duplicates.without_thumbnail()
    if not older:
        return
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
