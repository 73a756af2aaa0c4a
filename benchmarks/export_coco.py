"""COCO export of 500 five-class masks: goal under 5 s, and encoding no slower than the peer's.

Two comparisons: encoding alone, all classes of a mask at once against pycocotools class by class;
and the whole export against the shortest script that reads each stored PNG with Pillow, encodes
with pycocotools, asks it for area and box, and dumps the JSON.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from annotation_protocol import load_protocol
from annotation_protocol.phantoms.phantoms import TONES, draw_scene, render
from benchmarks.timing import paired, seconds
from ddiseg import masks

COUNT, SIZE, ROUNDS = 500, 300, 3


def main() -> None:
    from ddiseg.release.folder import write_release
    from ddiseg.release.release import Release

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        workspace = _workspace(root)

        def ours(round_: int) -> float:
            target = root / f"release-{round_}"
            return seconds(
                lambda: write_release(Release.gather(workspace), "coco", target, images=False)
            )

        def peer() -> None:
            annotations = []
            for path in sorted((root / "masks").iterdir()):
                with Image.open(path) as picture:
                    mask = np.asarray(picture)
                for index in range(1, 5):
                    region = mask == index
                    if region.any():
                        rle = coco.encode(np.asfortranarray(region.astype(np.uint8)))
                        area, box = coco.area(rle), coco.toBbox(rle).tolist()
                        counts = rle["counts"].decode()
                        annotations.append({"segmentation": counts, "area": int(area), "bbox": box})
            (root / "peer.json").write_text(json.dumps(annotations))

        measured = [(ours(i), seconds(peer)) for i in range(ROUNDS)]
        us, them = (min(m[k] for m in measured) for k in (0, 1))
        loaded = [workspace.mask(m) for m in workspace.catalogue.masks.all()]
    alone = paired(
        lambda: [masks.encode_classes(mask, range(1, 5)) for mask in loaded],
        lambda: [_one_by_one(mask) for mask in loaded],
        ROUNDS,
    )
    print(
        f"encoding {COUNT} masks of {SIZE} x {SIZE} {alone[0]:.3f} s, pycocotools class by class "
        f"{alone[1]:.3f} s: {alone[1] / alone[0]:.2f} x (medians of {ROUNDS})"
    )
    print(
        f"whole export {us:.2f} s, the bare script {them:.2f} s: {them / us:.2f} x (best of {ROUNDS}); "
        "ours also reads the catalogue, checks each mask's hash and writes manifest and licence durably"
    )


def _one_by_one(mask: np.ndarray) -> list[dict[str, object]]:
    return [coco.encode(np.asfortranarray((mask == i).astype(np.uint8))) for i in range(1, 5)]


def _workspace(root: Path):  # type: ignore[no-untyped-def]
    from ddiseg.ingest.mask_files import import_masks
    from ddiseg.ingest.photographs import import_photographs
    from ddiseg.workspace.workspace import Workspace

    for name in ("photographs", "masks"):
        (root / name).mkdir()
    palette = load_protocol().palette()
    for index in range(COUNT):
        rng = np.random.default_rng(index)
        phantom = render(draw_scene(rng, TONES[index % 3]), rng, SIZE)
        Image.fromarray(phantom.image).save(root / "photographs" / f"{index:06d}.png")
        (root / "masks" / f"{index:06d}.png").write_bytes(masks.encode_png(phantom.mask, palette))
    workspace = Workspace.create(root / "workspace")
    import_photographs(workspace, root / "photographs")
    import_masks(workspace, root / "masks", format_name="png", annotator="a", reviewer="b")
    return workspace
