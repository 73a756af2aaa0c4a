"""The same rows on SQLite and on PostgreSQL give the same answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ddiseg.evaluation.annotator_study import work_report
from ddiseg.report.contact_sheet import Pairs
from ddiseg.workspace.status import status
from ddiseg.workspace.workspace import Workspace
from tests.scale import SCALE


@pytest.mark.postgres
@pytest.mark.process
def test_status_study_and_report__same_on_both(
    scale_folder: Path, new_database: Callable[[str | None], str], tmp_path: Path
) -> None:
    from benchmarks.scale_rows import make_workspace  # it takes PyTorch with it

    make_workspace(tmp_path / "work", SCALE, new_database(None))
    found = []
    for root in (scale_folder, tmp_path / "work"):
        workspace = Workspace.open(root)
        catalogue = workspace.catalogue
        counted = status(catalogue, "embedded", runs=False)
        pairs = Pairs(workspace)
        sheet = [
            (pair.image.name, pair.lesion_iou)
            for pair in pairs.of_tone(catalogue.images.ids(tone="I-II"), "seed")
        ]
        found.append(
            (
                (counted.counts, counted.accepted, counted.skips, counted.subsets, counted.leaks),
                [*map(str, counted.steps)],
                work_report(workspace).as_dict(),
                catalogue.masks.most_doubtful(12),
                catalogue.images.find("clinic-a_0000007").id,
                sheet,
            )
        )
        catalogue.close()
    assert found[0] == found[1]
