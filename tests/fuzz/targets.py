"""The importers under test: for each, what it is given, how it is run, and the classes in the file.

An input is a set of files. After each run the command line must have ended in words, the outcomes
must name every file, and an accepted mask must have each class that its file has, or say why not.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_masks

from annotation_protocol import load_protocol
from ddiseg.cli.common import run
from ddiseg.cli.main import cli
from ddiseg.masks import brush_rle, classes_in, decode_png, encode_png
from ddiseg.workspace.workspace import Workspace
from tests.fuzz.mutations import damaged, mutated

HEIGHT, WIDTH = 16, 24
NAMES = ("a.png", "b.png", "c.jpg")
CLASSES = load_protocol().class_names
SUFFIXES = st.sampled_from(["", "", "", "_segmentation", "_mask"])

Files: TypeAlias = Mapping[str, bytes]
#: Class names by name of the photograph.
Held: TypeAlias = dict[str, set[str]]


@dataclass(frozen=True)
class Target:
    """One importer."""

    files: st.SearchStrategy[Files]
    command: tuple[str, ...]  #: "{input}" is the folder of the files
    held: Callable[[Files], Held]  #: classes that a reader of the format finds in the files


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


def photograph(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((WIDTH, HEIGHT))


def make_workspace(folder: Path) -> Path:
    """Make a workspace with the photographs of NAMES; the last was turned by its EXIF orientation."""
    photographs = folder / "photographs"
    photographs.mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        picture, exif = photograph(seed), Image.Exif()
        if name.endswith(".jpg"):
            exif[0x112] = 6
            picture = picture.transpose(Image.Transpose.ROTATE_90)
        picture.save(photographs / name, exif=exif)
    root = folder / "work"
    for arguments in (["init", str(root)], ["--workspace", str(root), "import", str(photographs)]):
        ended = call(*arguments)
        assert ended.status == 0, ended.err
    return root


def call(*arguments: str) -> Ended:
    """Run a command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = run(cli, list(arguments))
    return Ended(status, out.getvalue(), err.getvalue())


def check(target: Target, files: Files, pristine: Path, scratch: Path) -> None:
    """Import `files` into a copy of a workspace and raise AssertionError where that went wrong."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(pristine, scratch / "work")
    for name, data in files.items():
        path = scratch / "input" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    words = [word.format(input=scratch / "input") for word in target.command]
    ended = call("--workspace", str(scratch / "work"), "--output", "json", *words)
    said = ended.out + ended.err
    assert ended.status in (0, 1, 2), said
    assert "Traceback" not in said, said
    assert "a defect" not in said, said
    assert ended.out or ended.err, "nothing was said"
    document = json.loads(ended.out) if ended.out else {}
    outcomes = [*document.get("files", []), *(document.get("masks") or {}).get("files", [])]
    assert all(o["note"] for o in outcomes if o["outcome"] == "refused"), said
    compare(target.held(files), scratch / "work", said)


def compare(held: Held, root: Path, said: str) -> None:
    """Check the accepted masks against the classes in the files."""
    workspace = Workspace.open(root)
    try:
        for image in workspace.catalogue.images.select():
            for row in workspace.catalogue.masks.of_image(image.id):
                found = {CLASSES[c] for c in classes_in(workspace.mask(row)) if c < len(CLASSES)}
                lost = held.get(image.name, set()) - found
                silent = {name for name in lost if name not in said}
                assert not silent, f"{image.name} lost {', '.join(silent)} without a word: {said}"
    finally:
        workspace.catalogue.close()


# --- COCO ---------------------------------------------------------------------------------------


def _box(x: int, y: int, w: int, h: int) -> NDArray[np.bool_]:
    region = np.zeros((HEIGHT, WIDTH), np.bool_)
    region[y : y + h, x : x + w] = True
    return region


BOXES = st.builds(
    _box,
    st.integers(0, WIDTH - 1),
    st.integers(0, HEIGHT - 1),
    st.integers(1, WIDTH),
    st.integers(1, HEIGHT),
)
REGIONS = st.one_of(
    BOXES,
    st.tuples(BOXES, BOXES).map(lambda pair: pair[0] & ~pair[1]),
    st.tuples(BOXES, BOXES).map(lambda p: p[0] | p[1]),
)


def _counts(region: NDArray[np.bool_]) -> list[int]:
    flat = np.concatenate([[False], region.ravel(order="F")])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], changes, [region.size]])).tolist()


def _polygon(region: NDArray[np.bool_]) -> list[list[int]]:
    rows, columns = np.nonzero(region)
    if not rows.size:
        return []
    x, y, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return [[int(v) for v in (x, y, right, y, right, bottom, x, bottom)]]


def _coco_annotation(
    number: int, image: int, category: int, region: NDArray[np.bool_], kind: str
) -> dict[str, Any]:
    encoded = coco_masks.encode(np.asfortranarray(region.astype(np.uint8)))
    segmentation: Any = {
        "polygon": _polygon(region),
        "counts": {"counts": _counts(region), "size": [HEIGHT, WIDTH]},
        "rle": {"counts": encoded["counts"].decode(), "size": [HEIGHT, WIDTH]},
    }[kind]
    drawn = _box(0, 0, 0, 0) if kind == "polygon" and not segmentation else region
    if kind == "polygon" and segmentation:
        drawn = np.zeros_like(region)
        rows, columns = np.nonzero(region)
        drawn[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    box = coco_masks.toBbox(coco_masks.encode(np.asfortranarray(drawn.astype(np.uint8)))).tolist()
    return {
        "id": number, "image_id": image, "category_id": category, "iscrowd": 0, "segmentation": segmentation,
        "bbox": box, "area": int(drawn.sum()),
    }  # fmt: skip


@st.composite
def coco_documents(draw: Callable[..., Any]) -> dict[str, Any]:
    annotations = [
        _coco_annotation(number, draw(st.integers(1, 3)), draw(st.integers(0, 4)), draw(REGIONS), draw(st.sampled_from(["polygon", "counts", "rle"])))
        for number in range(1, draw(st.integers(1, 5)) + 1)
    ]  # fmt: skip
    return {
        "images": [
            {"id": n, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for n, name in enumerate(NAMES, 1)
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(CLASSES)],
        "annotations": annotations,
    }


def coco_held(files: Files) -> Held:
    """Return the classes with pixels, as pycocotools decodes the regions; {} where the file is odd."""
    try:
        document = json.loads(files["labels.json"])
        names = {i["id"]: i["file_name"] for i in document["images"]}
        sizes = {i["id"]: (i["height"], i["width"]) for i in document["images"]}
        labels = {c["id"]: c["name"] for c in document["categories"]}
        held: Held = {}
        for each in document["annotations"]:
            if _pixels(each["segmentation"], sizes[each["image_id"]]):
                held.setdefault(names[each["image_id"]], set()).add(labels[each["category_id"]])
    except Exception:  # noqa: BLE001 - the oracle reads sound files only
        return {}
    return held


def _pixels(segmentation: Any, size: tuple[int, int]) -> int:
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], list):
        counts = segmentation["counts"]
        return sum(counts[1::2]) if sum(counts) == size[0] * size[1] and min(counts) >= 0 else 0
    if isinstance(segmentation, dict):
        return 0 if tuple(segmentation["size"]) != size else int(coco_masks.area(segmentation))
    # A corner outside the picture, or no area, makes a polygon of no pixels.
    inside = [
        p
        for p in segmentation
        if len(p) >= 6 and min(p) >= 0 and max(p[::2]) <= size[1] and max(p[1::2]) <= size[0]
    ]
    return int(sum(coco_masks.area(coco_masks.frPyObjects(inside, *size)))) if inside else 0


# --- Label Studio -------------------------------------------------------------------------------


def _brush(number: int, label: str, region: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "id": f"r{number}", "type": "brushlabels", "from_name": "tag", "to_name": "img", "origin": "manual", "original_height": HEIGHT,
        "original_width": WIDTH, "image_rotation": 0, "value": {"format": "rle", "rle": brush_rle.encode(region), "brushlabels": [label]},
    }  # fmt: skip


@st.composite
def label_studio_documents(draw: Callable[..., Any]) -> list[dict[str, Any]]:
    tasks = []
    for number, name in enumerate(NAMES, 1):
        annotations = [
            {
                "id": 10 * number + who, "completed_by": {"id": who, "email": f"reader-{who}@example.org"}, "was_cancelled": False,
                "created_at": f"2026-01-0{who}T00:00:00Z", "updated_at": f"2026-01-0{who}T00:00:00Z", "prediction": {},
                "result": [
                    _brush(k, draw(st.sampled_from(CLASSES)), draw(REGIONS)) for k in range(draw(st.integers(0, 2)))
                ],
            }
            for who in range(1, draw(st.integers(1, 2)) + 1)
        ]  # fmt: skip
        tasks.append(
            {
                "id": number,
                "data": {"image": f"/data/upload/1/0123abcd-{name}"},
                "annotations": annotations,
                "predictions": [],
            }
        )
    return tasks


# --- Rasters and arrays -------------------------------------------------------------------------

MASKS = st.tuples(st.integers(0, 4), REGIONS, st.integers(0, 4)).map(
    lambda parts: np.where(parts[1], parts[0], parts[2]).astype(np.uint8)
)


def _saved(mask: NDArray[np.uint8], kind: str) -> bytes:
    if kind == "palette":
        return encode_png(mask, load_protocol().palette())
    file = io.BytesIO()
    if kind == "npy":
        square = np.asarray(Image.fromarray(mask).resize((256, 256), Image.Resampling.NEAREST))
        np.save(file, square.astype(np.int32))
    elif kind == "rgb":
        Image.fromarray(np.repeat(mask[..., None], 3, axis=2)).save(file, "PNG")
    elif kind == "voc":
        colours = np.array(
            [(0, 0, 0), (128, 0, 0), (0, 0, 128), (128, 128, 0), (0, 128, 0)], np.uint8
        )
        Image.fromarray(colours[mask]).save(file, "PNG")
    elif kind == "16 bit":
        Image.fromarray(mask.astype(np.uint16)).save(file, "PNG")
    else:
        Image.fromarray(mask).save(file, kind)
    return file.getvalue()


@st.composite
def mask_folders(draw: Callable[..., Any], kinds: list[str], ending: str = ".png") -> Files:
    files = {}
    for name in NAMES:
        stem = draw(st.sampled_from(["", "", "deep/", "0123abcd-"])) + name[:-4] + draw(SUFFIXES)
        sound = st.builds(_saved, MASKS, st.sampled_from(kinds))
        files[stem + ending] = draw(st.one_of(sound, damaged(sound)))
    return files


def raster_held(files: Files) -> Held:
    """Return the classes in the palette PNGs that carry the name of a photograph."""
    held: Held = {}
    for name in NAMES:
        data = files.get(f"{name[:-4]}.png")
        if data is None:
            continue
        try:
            values = classes_in(decode_png(data))
        except Exception:  # noqa: BLE001 - the oracle reads sound files only
            continue
        held[name] = {CLASSES[v] for v in values if v < len(CLASSES)}
    return held


LABEL_MAPS = st.sampled_from(
    [
        b"# label:color_rgb:parts:actions\nbackground:0,0,0::\nlesion:128,0,0::\nmarker:0,0,128::\nruler:128,128,0::\nskin:0,128,0::\n",
        b"",
        b"lesion:128,0,0::\n",
        b"lesion:1e9,0,0::\nlesion\n::::\n",
        b"\xff\xfe",
    ]
)


# --- Photographs and tables ---------------------------------------------------------------------


def _encoded(seed: int, kind: str) -> bytes:
    file = io.BytesIO()
    picture = photograph(seed)
    exif = Image.Exif()
    exif[0x112] = seed % 9
    if kind == "TIFF16":
        Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 16).save(file, "TIFF")
    elif kind == "TIFF32":
        Image.fromarray(np.asarray(picture.convert("L")).astype(np.float32) / 255).save(
            file, "TIFF"
        )
    elif kind == "CMYK":
        picture.convert("CMYK").save(file, "JPEG")
    elif kind in ("PNG", "JPEG", "WEBP"):
        picture.save(file, kind, exif=exif)
    else:
        picture.save(file, kind)
    return file.getvalue()


ENCODED = st.builds(
    _encoded,
    st.integers(10, 60),
    st.sampled_from(["PNG", "JPEG", "TIFF", "TIFF16", "TIFF32", "BMP", "GIF", "WEBP", "CMYK"]),
)
ENDING = st.sampled_from([".png", ".jpg", ".tif", ".bmp", ".gif", ".webp"])
PHOTOGRAPHS = st.dictionaries(
    st.tuples(st.sampled_from(["x", "y", "deep/z", "José", "=cmd"]), ENDING).map("".join),
    st.one_of(ENCODED, damaged(ENCODED)),
    min_size=1,
    max_size=3,
)

CELLS = st.one_of(
    st.sampled_from(
        ["", "-", "?", "-1", "1", "3.0", "IV", "type-3", "12", "F5", "malignant", "benign", "Indeterminate", "non-neoplastic",
         "x.png", "y.jpg", "deep/z.png", "=1+1", "José", "€", "\x00", "MEL", "#N/A", "a\nb", 'a"b', "0.1.2", "NaN", "x" * 300]
    ),
    st.text(max_size=10),
)  # fmt: skip
HEADER = ("file", "tone", "patient", "lesion", "dx", "mal")


@st.composite
def described_photographs(draw: Callable[..., Any]) -> Files:
    files = dict(
        draw(
            st.dictionaries(st.sampled_from(["x.png", "y.jpg", "deep/z.png"]), ENCODED, min_size=1)
        )
    )
    text = io.StringIO(newline="")
    rows = draw(st.lists(st.lists(CELLS, min_size=6, max_size=6), max_size=6))
    for row in rows:
        if draw(st.booleans()):
            row[0] = draw(st.sampled_from([*files, "x", "z"]))
    csv.writer(text, delimiter=draw(st.sampled_from([",", ",", ";", "\t"]))).writerows(
        [HEADER, *rows]
    )
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]))
    table = text.getvalue().encode(encoding, "replace")
    files["t.csv"] = draw(st.one_of(st.just(table), damaged(st.just(table))))
    return files


def nothing(_: Files) -> Held:
    return {}


def _json(name: str) -> Callable[[Any], Files]:
    def write(document: Any) -> Files:
        return {name: json.dumps(document).encode("utf-8", "replace")}

    return write


PEOPLE = ("--annotator", "reader-1", "--reviewer", "reader-2")

#: Importers by name.
TARGETS = {
    "coco": Target(
        st.one_of(
            mutated(coco_documents()).map(_json("labels.json")),
            damaged(coco_documents().map(lambda d: json.dumps(d).encode())).map(lambda data: {"labels.json": data}),
        ),
        ("masks", "import", "{input}/labels.json", "--as", "coco", *PEOPLE),
        coco_held,
    ),
    "labelstudio": Target(
        mutated(label_studio_documents()).map(_json("export.json")),
        ("masks", "import", "{input}/export.json", "--as", "labelstudio", "--rest", "skin", "--reviewer", "reader-9"),
        nothing,
    ),
    "png": Target(
        mask_folders(["palette", "palette", "PNG", "rgb", "16 bit"]),
        ("masks", "import", "{input}", "--as", "png", *PEOPLE),
        raster_held,
    ),
    "jpg": Target(
        mask_folders(["JPEG", "BMP", "PNG"], ".jpg"),
        ("masks", "import", "{input}", "--as", "png", "--classes", "0=background,1=lesion,2=marker,3=ruler,4=skin", *PEOPLE),
        nothing,
    ),
    "colours": Target(
        st.tuples(mask_folders(["voc", "voc", "palette"]), LABEL_MAPS).map(
            lambda both: {f"SegmentationClass/{n}": d for n, d in both[0].items()} | {"labelmap.txt": both[1]}
        ),
        ("masks", "import", "{input}", "--as", "png", *PEOPLE),
        nothing,
    ),
    "sddi": Target(mask_folders(["npy"], ".npy"), ("masks", "import", "{input}", "--as", "sddi", *PEOPLE), nothing),
    "photographs": Target(PHOTOGRAPHS, ("import", "{input}"), nothing),
    "metadata": Target(
        described_photographs(),
        ("import", "{input}", "--metadata", "{input}/t.csv", "--columns",
         "image=file,tone=tone,patient=patient,lesion=lesion,diagnosis=dx,malignant=mal"),
        nothing,
    ),
}  # fmt: skip
