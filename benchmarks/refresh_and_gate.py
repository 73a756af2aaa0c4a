"""Refresh and gate at 120 training masks: goal under 6 minutes on two cores.

150 phantoms with their true masks, of which the rule holds about every fifth out; a first version
has learned from 30. Measured is what `ddiseg loop run` does when a refresh is due: activations,
training of probes and refiners, estimates on the validation split, both versions' masks of the hold-out
set, and the decision. There is no peer: no other tool has a gate.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from benchmarks.timing import seconds
from ddiseg.ingest.mask_files import import_masks
from ddiseg.ingest.photographs import import_photographs
from ddiseg.ingest.rendered import render_ddi
from ddiseg.model.train import Refreshed, train_version
from ddiseg.workspace.workspace import Workspace

IMAGES, FIRST, GOAL = 150, 36, 360


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        render_ddi(folder / "ddi", folder / "masks", IMAGES, seed=0)
        workspace = Workspace.create(folder / "work")
        import_photographs(workspace, folder / "ddi")
        files = sorted((folder / "masks").iterdir())
        accept(workspace, files[:FIRST], folder / "first")
        train_version(workspace, "benchmark", start_holdout=True)
        accept(workspace, files[FIRST:], folder / "later")
        done: list[Refreshed] = []
        took = seconds(lambda: done.append(train_version(workspace, "benchmark")))
        gate = done[0].version.gate
        assert gate is not None
        print(
            f"{len(done[0].version.training_masks)} training masks, "
            f"{gate['held_out']['images']} in the hold-out set: {took:.0f} s (goal: under {GOAL} s)"
        )
        print("\n".join(f"  {reason}" for reason in done[0].reasons))


def accept(workspace: Workspace, files: list[Path], folder: Path) -> None:
    """Bring masks into a workspace as read by two people; `folder` is made for them."""
    folder.mkdir()
    for path in files:
        shutil.copy(path, folder)
    import_masks(workspace, folder, format_name="png", annotator="reader-1", reviewer="reader-2")


if __name__ == "__main__":
    main()
