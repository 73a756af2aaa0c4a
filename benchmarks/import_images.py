"""Import of 300 x 300 PNG photographs: goal 150 images/s on two cores.

The peer is what any import has to do at least: a loop that decodes each file and encodes the
pixels as PNG again, at Pillow's default settings, on one thread.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from annotation_protocol.phantoms.phantoms import TONES, draw_scene, render
from benchmarks.timing import seconds

COUNT, SIZE, ROUNDS = 500, 300, 3


def main() -> None:
    from ddiseg.ingest.photographs import import_photographs
    from ddiseg.workspace.workspace import Workspace

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        photographs = root / "photographs"
        photographs.mkdir()
        for index in range(COUNT):
            rng = np.random.default_rng(index)
            phantom = render(draw_scene(rng, TONES[index % 3]), rng, SIZE)
            Image.fromarray(phantom.image).convert("RGBA").save(photographs / f"{index:06d}.png")

        def ours(round_: int) -> float:
            workspace = Workspace.create(root / f"workspace-{round_}")
            return seconds(lambda: import_photographs(workspace, photographs))

        def peer() -> None:
            for path in sorted(photographs.iterdir()):
                with Image.open(path) as picture:
                    picture.convert("RGB").save(io.BytesIO(), "PNG")

        measured = [(ours(i), seconds(peer)) for i in range(ROUNDS)]
        us, them = (min(m[k] for m in measured) for k in (0, 1))
        again = seconds(
            lambda: import_photographs(Workspace.open(root / "workspace-0"), photographs)
        )
    print(
        f"import {COUNT / us:.0f} images/s, decode-and-encode loop {COUNT / them:.0f} images/s: {them / us:.2f} x"
    )
    print(
        f"second import of the same folder: {COUNT / again:.0f} images/s ({COUNT} images of {SIZE} x {SIZE}, best of {ROUNDS})"
    )
