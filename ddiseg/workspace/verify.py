"""Verification of a workspace: files, rows, states against events, and sets that must share no group.

It changes nothing; `ddiseg.workspace.repair` puts back what it can. `verify_files` checks the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ddiseg.outcomes import Progress, silent
from ddiseg.sampling.leaks import find_leaks
from ddiseg.workspace.access import open_to_others
from ddiseg.workspace.backup import how_to_restore
from ddiseg.workspace.pseudonyms import key_problem
from ddiseg.workspace.store import Kind
from ddiseg.workspace.verify_files import BadFile, FileCheck, Part, Problem
from ddiseg.workspace.verify_progress import verify_progress
from ddiseg.workspace.workspace import Workspace

__all__ = ["BadFile", "Findings", "Part", "Problem", "verify"]


@dataclass(frozen=True)
class Findings:
    """Counts of what was checked, and the problems."""

    checked: dict[str, int]  #: number of images, mask files, model files
    #: Files without a row and temporary files, left by a stopped run: harmless.
    orphans: dict[str, int]
    problems: list[Problem]
    skipped: int = 0  #: files that a stopped check, which this one continued, has found whole
    began: str = ""  #: when that one began, UTC


def verify(workspace: Workspace, progress: Progress = silent, *, restart: bool = False) -> Findings:
    """Read every file of a workspace once and compare it with the catalogue; changes nothing.

    Files are read on several threads, and few are in memory. A check that was stopped less than a day
    ago goes on where it was, see `ddiseg.workspace.verify_progress`.

    Args:
        restart: read every file again.
    """
    catalogue, stored = workspace.catalogue, workspace.catalogue.stored_rows
    checked = {
        Kind.IMAGE.value: stored.count_images(),
        Kind.MASK.value: stored.count_masks(),
        Kind.MODEL.value: len({model.file_hash for model in stored.models()}),
    }
    with verify_progress(workspace.root, restart=restart) as kept:
        files = FileCheck(workspace, kept)
        problems = files.problems(sum(checked.values()), progress)
        problems += [Problem(Part.HISTORY, line) for line in catalogue.events.contradictions()]
        problems += [Problem(Part.GROUPS, leak.line, leak=leak) for leak in find_leaks(catalogue)]
        if problem := key_problem(workspace):
            problems.append(Problem(Part.PSEUDONYMS, problem))
        problems += [
            Problem(Part.ACCESS, f"{place} is open to other users of this machine; {_CLOSE}")
            for place in open_to_others(workspace.places)
        ]
        orphans = _orphans(workspace)
        if not checked["images"] and (orphans["images"] > _MOST_LEFT_BY_IMPORT or orphans["masks"]):
            problems.append(Problem(Part.CATALOGUE, _emptied(workspace, orphans)))
        kept.end()
    began = kept.began if files.skipped else ""
    return Findings(checked, orphans, problems, files.skipped, began)


def _orphans(workspace: Workspace) -> dict[str, int]:
    """Count the files of the store that no row names."""
    stored = workspace.catalogue.stored_rows
    known = {
        Kind.IMAGE: stored.known_images,
        Kind.MASK: stored.known_masks,
        Kind.MODEL: stored.known_models,
    }
    orphans = {
        kind.value: sum(len(page) - len(named(page)) for page in workspace.store.pages(kind))
        for kind, named in known.items()
    }
    return {**orphans, "temporary": workspace.store.count_temporary()}


_CLOSE = "'ddiseg init' or 'ddiseg verify --repair' closes it"

#: Photographs that a killed import may leave in the store without a row: two batches.
_MOST_LEFT_BY_IMPORT = 128


def _emptied(workspace: Workspace, orphans: Mapping[str, int]) -> str:
    shared = (
        ""
        if workspace.store.local
        else "; where another workspace shares this store, import photographs into this one"
    )
    return (
        f"the catalogue names no image, and the store has {orphans['images']} images and "
        f"{orphans['masks']} masks: it is not the catalogue of this workspace; "
        f"{how_to_restore(workspace.root)}{shared}"
    )
