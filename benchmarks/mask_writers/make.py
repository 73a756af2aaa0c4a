"""Write phantoms with a ring, a ruler and holes with the writers of other tools: the files in this folder.

Run in an environment of its own, see README.md; ddiseg itself needs none of these packages:

    python benchmarks/mask_writers/make.py
"""

from __future__ import annotations

import json
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_fill_holes

from annotation_protocol.phantoms.phantoms import LESION, MARKER, SKIN, Scene, render

HERE = Path(__file__).parent
SIZE, COUNT = 128, 4
NAMES = ["lesion", "marker", "ruler", "skin"]

Mask = NDArray[np.uint8]


def main() -> None:
    masks = phantoms()
    (HERE / "truth").mkdir(exist_ok=True)
    for name, mask in masks.items():
        Image.fromarray(mask).save(HERE / "truth" / f"{name}.png", optimize=True)
    supervision(masks)
    datumaro(masks)
    ultralytics(masks)
    label_studio(masks)
    packages = ("supervision", "datumaro", "ultralytics", "label-studio-sdk")
    print(", ".join(f"{package} {version(package)}" for package in packages))


def phantoms() -> dict[str, Mask]:
    """Masks whose lesion lies in a closed ring of a pen; every second lesion has a hole."""
    found: dict[str, Mask] = {}
    seed = 0
    while len(found) < COUNT:
        rng = np.random.default_rng(seed)
        scene = Scene(
            "III-IV", "pigmented", radius=0.14, marker=True, ruler=True, cloth=seed % 2 == 1
        )
        mask = render(scene, rng, SIZE).mask
        ring, lesion = mask == MARKER, mask == LESION
        if lesion.any() and (binary_fill_holes(ring) & ~ring)[lesion].mean() > 0.9:
            if len(found) % 2:
                ys, xs = np.nonzero(lesion)
                away = np.hypot(*(np.indices(mask.shape) - [[[ys.mean()]], [[xs.mean()]]]))
                mask[lesion & (away < 4)] = SKIN
            found[f"phantom{seed}"] = mask
        seed += 1
    return found


def present(mask: Mask) -> list[int]:
    """Return the classes in a mask but the background."""
    return [index for index in range(1, 5) if (mask == index).any()]


def write(name: str, document: Any) -> None:
    (HERE / name).write_text(json.dumps(document, separators=(",", ":")) + "\n")


def supervision(masks: dict[str, Mask]) -> None:
    import supervision as sv

    with tempfile.TemporaryDirectory() as folder:
        annotations = {}
        for name, mask in masks.items():
            path = f"{folder}/{name}.png"
            Image.fromarray(np.repeat(mask[..., None], 3, 2)).save(path)
            regions = np.stack([mask == index for index in present(mask)])
            annotations[path] = sv.Detections(
                xyxy=sv.mask_to_xyxy(regions).astype(float),
                mask=regions,
                class_id=np.array(present(mask)) - 1,
            )
        made = sv.DetectionDataset(NAMES, list(annotations), annotations)
        made.as_coco(annotations_path=f"{folder}/made.json")
        write("supervision.json", json.loads(Path(folder, "made.json").read_text()))


def datumaro(masks: dict[str, Mask]) -> None:
    from datumaro import Dataset
    from datumaro.components.annotation import Mask as Region
    from datumaro.components.dataset_base import DatasetItem
    from datumaro.components.media import Image as Media

    items = []
    for name, mask in masks.items():
        regions = [Region(image=mask == index, label=index - 1) for index in present(mask)]
        picture = Media.from_numpy(np.repeat(mask[..., None], 3, 2))
        items.append(DatasetItem(id=name, media=picture, annotations=regions))
    made = Dataset.from_iterable(items, categories=NAMES)
    with tempfile.TemporaryDirectory() as folder:
        for mode in ("mask", "polygons"):
            made.export(f"{folder}/{mode}", "coco_instances", segmentation_mode=mode)
            path = Path(folder, mode, "annotations/instances_default.json")
            write(f"datumaro_{mode}.json", json.loads(path.read_text()))
        made.export(f"{folder}/voc", "voc_segmentation")
        shutil.rmtree(HERE / "datumaro_voc", ignore_errors=True)
        (HERE / "datumaro_voc").mkdir()
        shutil.copy(f"{folder}/voc/labelmap.txt", HERE / "datumaro_voc")
        shutil.copytree(f"{folder}/voc/SegmentationClass", HERE / "datumaro_voc/SegmentationClass")


def ultralytics(masks: dict[str, Mask]) -> None:
    """YOLO has a format of its own, which ddiseg does not import: its polygons, written as COCO."""
    from ultralytics.data.converter import convert_segment_masks_to_yolo_seg

    annotations: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "masks").mkdir()
        (Path(folder) / "labels").mkdir()
        for name, mask in masks.items():
            Image.fromarray(mask).save(f"{folder}/masks/{name}.png")
        convert_segment_masks_to_yolo_seg(f"{folder}/masks", f"{folder}/labels", classes=4)
        for number, name in enumerate(masks, 1):
            for line in Path(folder, "labels", f"{name}.txt").read_text().splitlines():
                category, *shares = line.split()
                polygon = [round(float(share) * SIZE, 3) for share in shares]
                entry = {"id": len(annotations) + 1, "image_id": number, "segmentation": [polygon]}
                annotations.append({**entry, "category_id": int(category) + 1, "iscrowd": 0})
    write("ultralytics.json", {**coco_head(masks), "annotations": annotations})


def coco_head(masks: dict[str, Mask]) -> dict[str, Any]:
    return {
        "images": [
            {"id": number, "file_name": f"{name}.png", "width": SIZE, "height": SIZE}
            for number, name in enumerate(masks, 1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)],
    }


CONFIG = """<View><Image name="image" value="$image"/><PolygonLabels name="label" toName="image">
<Label value="lesion"/><Label value="marker"/><Label value="ruler"/><Label value="skin"/>
</PolygonLabels></View>"""


def label_studio(masks: dict[str, Mask]) -> None:
    """Brush strokes as the SDK encodes them; and polygons around them, through its COCO converter."""
    from label_studio_sdk.converter import Converter
    from label_studio_sdk.converter.brush import mask2rle

    brushed, outlined = [], []
    for number, (name, mask) in enumerate(masks.items(), 1):
        strokes = [
            region(
                "brushlabels",
                index,
                format="rle",
                rle=mask2rle(255 * (mask == index).astype(np.uint8)),
            )
            for index in present(mask)
        ]
        outlines = [
            region("polygonlabels", index, points=points, closed=True)
            for index in present(mask)
            for points in outlines_of(mask == index)
        ]
        brushed.append(task(number, name, strokes))
        outlined.append(task(number, name, outlines))
    write("label_studio_brush.json", brushed)
    write("label_studio_polygons.json", outlined)
    with tempfile.TemporaryDirectory() as folder:
        for name, mask in masks.items():
            Image.fromarray(mask).save(f"{folder}/{name}.png")
        for entry in outlined:
            entry["data"]["image"] = f"{folder}/{entry['data']['image']}"
        Path(folder, "in.json").write_text(json.dumps(outlined))
        converter = Converter(CONFIG, folder, download_resources=False)
        converter.convert_to_coco(f"{folder}/in.json", f"{folder}/out", is_dir=False)
        document = json.loads(Path(folder, "out", "result.json").read_text())
        for image in document["images"]:
            image["file_name"] = Path(image["file_name"]).name
        write("label_studio_coco.json", document)


def outlines_of(inside: NDArray[np.bool_]) -> list[list[list[float]]]:
    """Return the outer outlines, as a person draws them, in percent of the picture."""
    import cv2

    found, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [(100 * c.reshape(-1, 2) / SIZE).round(4).tolist() for c in found if len(c) > 2]


def region(kind: str, index: int, **value: Any) -> dict[str, Any]:
    return {
        **{"id": f"{kind[0]}{index}", "type": kind, "from_name": "label", "to_name": "image"},
        **{"original_width": SIZE, "original_height": SIZE, "image_rotation": 0},
        "value": {**value, kind: [NAMES[index - 1]]},
    }


def task(number: int, name: str, result: list[dict[str, Any]]) -> dict[str, Any]:
    times = dict.fromkeys(("created_at", "updated_at"), "2026-01-01T00:00:00Z")
    annotation = {
        "id": number,
        "completed_by": 1,
        "was_cancelled": False,
        **times,
        "result": result,
    }
    return {
        "id": number,
        "data": {"image": f"{name}.png"},
        "annotations": [annotation],
        "predictions": [],
    }


if __name__ == "__main__":
    main()
