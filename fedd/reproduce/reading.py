"""Check the files of a data set before hours are spent on it: photographs and masks that can't be read."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from annotation_protocol import load_protocol
from fedd.dataset import DatasetImage, mask_files
from fedd.errors import DatasetError, ReproductionError
from fedd.network.cost import counted

logger = logging.getLogger(__name__)

#: Threads that decode.
_THREADS = 8

#: Files named in a message.
_NAMED = 3


def readable(items: Sequence[DatasetImage], *, partial: bool) -> list[DatasetImage]:
    """Return the images whose files can be read; a mask that can't be is left out.

    Without `partial` such files raise ReproductionError, which names them.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        problems = list(pool.map(_problems, items))
    found = [problem for of_item in problems for problem in of_item if problem]
    if found and not partial:
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise ReproductionError(
            f"{counted(len(found), 'file')} can't be read: {'; '.join(found[:_NAMED])}{more}. Replace them, or leave "
            "them out: --partial"
        )
    for problem in found:
        logger.warning("left out: %s", problem)
    return [
        replace(item, mask=None) if of_mask else item
        for item, (of_photograph, of_mask) in zip(items, problems, strict=True)
        if not of_photograph
    ]


def report_strays(items: Sequence[DatasetImage], masks: Path) -> None:
    """Log how many masks have no photograph."""
    strays = sorted(set(mask_files(masks)) - {item.stem for item in items})
    if strays:
        logger.warning(
            "%s in %s without a photograph, such as %s: not used",
            counted(len(strays), "mask"), masks, ", ".join(strays[:_NAMED]),
        )  # fmt: skip


def _problems(item: DatasetImage) -> tuple[str, str]:
    """Return why photograph and mask can't be read; "" if they can."""
    problems = ["", ""]
    try:
        item.photograph()
    except DatasetError as error:
        problems[0] = str(error)
    if item.mask is not None:
        try:
            item.class_ids(len(load_protocol().classes))
        except DatasetError as error:
            problems[1] = str(error)
    return problems[0], problems[1]
