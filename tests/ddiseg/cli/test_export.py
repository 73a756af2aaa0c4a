"""`ddiseg export`: what it tells of a release."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import NewMask
from ddiseg.workspace.workspace import Workspace

Run = Callable[..., Any]


def test_export__masks_labelled_in_part_are_counted(
    ddiseg: Run, filled: Workspace, tmp_path: Path, wording: SnapshotAssertion
) -> None:
    """1.png has a whole mask; of the 6 x 8 pixels of 2.png ten are labelled."""

    def export(folder: str, *words: str) -> Any:
        return ddiseg(
            *("--workspace", filled.root, "export", "--format", "png"),
            *("--to", tmp_path / folder, *words),
        )

    def told(result: Any) -> list[str]:
        return [line for line in result.out.splitlines() if "in part" in line]

    assert told(export("whole")) == []
    mask = np.full((6, 8), 255, np.uint8)
    mask[0, :6], mask[5, :4] = 4, 1
    new = NewMask(*(2, filled.store_mask(mask), 8, 6, "same", [1, 4], "1.0", "anna"), unlabelled=38)
    filled.catalogue.masks.submit([new], reviewer="ben")
    done = export("both")
    assert told(done) == wording
    counts = export("both", "--output", "json").json["partly_labelled"]
    assert counts == {"images": 1, "unlabelled_pixels": 38}
