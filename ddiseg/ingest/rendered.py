"""A folder in DDI's own layout, filled with rendered phantoms, and the true mask of each.

It lets anyone try every command without a photograph of a person. Results on it show how the tool
behaves on rendered pictures, not how well a model does on patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from annotation_protocol import load_protocol
from annotation_protocol.csv_files import csv_text
from annotation_protocol.files import atomic_write
from annotation_protocol.phantoms.phantoms import TONES, draw_scene, render
from ddiseg import images, masks
from ddiseg.ingest.ddi import METADATA
from ddiseg.outcomes import Progress, silent

#: Width and height of a phantom in pixels.
SIZE = 256

COLUMNS = ("", "DDI_ID", "DDI_file", "skin_tone", "malignant", "disease")
LICENCE = "CC0-1.0 (rendered by code, shows no person)"
SOURCE = "rendered by ddiseg demo"


def render_ddi(
    photographs: Path, truth: Path, count: int, seed: int, progress: Progress = silent
) -> None:
    """Write `count` phantoms and `ddi_metadata.csv` to `photographs`, their masks to `truth`.

    The tones take turns, so each has a third. Existing files are left as they are;
    the same count and seed give the same pixels.
    """
    photographs.mkdir(parents=True, exist_ok=True)
    truth.mkdir(parents=True, exist_ok=True)
    jobs = [(photographs, truth, number, seed) for number in range(1, count + 1)]
    rows: list[Sequence[object]] = [COLUMNS]
    with ProcessPoolExecutor() as pool:
        for row in pool.map(_render_one, jobs, chunksize=8):
            rows.append(row)
            progress(len(rows) - 1, count)
    atomic_write(photographs / METADATA, csv_text(rows))


def _render_one(job: tuple[Path, Path, int, int]) -> Sequence[object]:
    """Write one phantom and its mask; return its row of DDI's table."""
    photographs, truth, number, seed = job
    rng = np.random.default_rng((seed, number))
    tone = TONES[number % len(TONES)]
    phantom = render(draw_scene(rng, tone, wild=0.35), rng, SIZE)
    name = f"{number:06d}.png"
    protocol = load_protocol()
    if not (photographs / name).exists():
        atomic_write(photographs / name, images.encode_png(phantom.image))
    if not (truth / name).exists():
        atomic_write(truth / name, masks.encode_png(phantom.mask, protocol.palette()))
    code = protocol.tone(tone).code
    assert code is not None
    return number - 1, number, name, code, str(phantom.malignant).upper(), phantom.diagnosis
