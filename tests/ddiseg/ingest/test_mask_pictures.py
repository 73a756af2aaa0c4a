"""Masks in colours, with a labelmap or without, and in other files than PNG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from annotation_protocol import load_protocol
from ddiseg.errors import InputError
from ddiseg.formats import MASKS, guess_format
from ddiseg.ingest.class_values import ClassMapping, class_mask
from ddiseg.ingest.label_map import read_label_map
from ddiseg.ingest.mask_files import MaskImport, import_masks
from ddiseg.ingest.photographs import import_photographs
from ddiseg.ingest.png_masks import read_masks
from ddiseg.masks.colours import colour_value
from ddiseg.workspace.workspace import Workspace
from tests.wording import Refusal

PROTOCOL = load_protocol()

#: As large as the photographs of the fixtures.
SIZE = (16, 24)
#: Background, a lesion, skin.
DRAWN = np.full(SIZE, 4, np.uint8)
DRAWN[:4], DRAWN[6:12, 5:15] = 0, 1

COLOURS = {0: (0, 0, 0), 1: (128, 0, 0), 4: (0, 128, 0)}
LABEL_MAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nNevus:128,0,0::\nskin:0,128,0::\n"


def painted(mask: NDArray[np.uint8] = DRAWN) -> NDArray[np.uint8]:
    pixels = np.zeros((*mask.shape, 3), np.uint8)
    for class_id, colour in COLOURS.items():
        pixels[mask == class_id] = colour
    return pixels


@pytest.fixture
def catalogued(workspace: Workspace, folder: Callable[..., Path]) -> Workspace:
    import_photographs(workspace, folder("a.png", "b.png", "c.png"))
    return workspace


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A data set as CVAT exports it."""
    root = tmp_path / "voc"
    for name in ("SegmentationClass", "SegmentationObject", "JPEGImages", "ImageSets"):
        (root / name).mkdir(parents=True)
    Image.fromarray(painted()).save(root / "SegmentationClass" / "a.png")
    Image.fromarray(painted()[::-1]).save(root / "SegmentationObject" / "a.png")
    Image.fromarray(painted()).save(root / "JPEGImages" / "a.jpg")
    (root / "labelmap.txt").write_text(LABEL_MAP)
    return root


def run(
    workspace: Workspace, path: Path, classes: str | None = None, kind: str = "png", **options: Any
) -> MaskImport:
    mapping = ClassMapping.parse(classes, PROTOCOL) if classes else None
    options = {"annotator": "anna", "mapping": mapping, **options}
    return import_masks(workspace, path, format_name=kind, **options)


def told(done: MaskImport) -> dict[str, str]:
    return {o.name: o.outcome.value for o in done.outcomes}


def drawn(workspace: Workspace) -> NDArray[np.uint8]:
    return workspace.mask(workspace.catalogue.masks.all()[-1])


@pytest.mark.parametrize("kind", ["voc", "png"])
@pytest.mark.parametrize("below", ["", "SegmentationClass"])
def test_import__labelmap(catalogued: Workspace, voc: Path, kind: str, below: str) -> None:
    done = run(catalogued, voc / below, "nevus=lesion", kind)
    assert told(done) == {"a.png": "added"}
    np.testing.assert_array_equal(drawn(catalogued), DRAWN)
    (mask,) = catalogued.catalogue.masks.all()
    assert (mask.classes, mask.unlabelled) == ([0, 1, 4], 0)


def test_import__labelmap_with_an_unknown_label(
    catalogued: Workspace, voc: Path, refusal: Refusal
) -> None:
    (refused,) = run(catalogued, voc, kind="voc").outcomes
    with refusal(InputError):
        raise InputError(refused.note)
    skin_only = np.full((*SIZE, 3), (0, 128, 0), np.uint8)
    Image.fromarray(skin_only).save(voc / "SegmentationClass" / "a.png")
    assert told(run(catalogued, voc, kind="voc")) == {"a.png": "added"}  # nothing is a nevus


def test_import__palette_by_its_colours(catalogued: Workspace, voc: Path) -> None:
    """VOC's own files: the indices are those of another list of classes."""
    indices = np.select([DRAWN == 1, DRAWN == 4], [15, 2], 0).astype(np.uint8)
    picture = Image.fromarray(indices).convert("P")
    palette = np.zeros((256, 3), np.uint8)
    palette[15], palette[2] = COLOURS[1], COLOURS[4]
    picture.putpalette(palette.ravel().tolist())
    picture.putdata(indices.ravel().tolist())
    picture.save(voc / "SegmentationClass" / "a.png")
    run(catalogued, voc, "nevus=lesion", "voc")
    np.testing.assert_array_equal(drawn(catalogued), DRAWN)
    (voc / "labelmap.txt").unlink()
    Image.open(voc / "SegmentationClass" / "a.png").save(voc / "SegmentationClass" / "b.png")
    (voc / "SegmentationClass" / "a.png").unlink()
    classes = "#000000=background,#800000=lesion,#008000=skin"
    assert told(run(catalogued, voc, classes, "voc")) == {"b.png": "added"}
    np.testing.assert_array_equal(drawn(catalogued), DRAWN)


def test_import__void_of_voc_is_unlabelled(catalogued: Workspace, voc: Path) -> None:
    pixels = painted()
    pixels[0] = (224, 224, 192)
    Image.fromarray(pixels).save(voc / "SegmentationClass" / "a.png")
    run(catalogued, voc, "nevus=lesion", "voc")
    (mask,) = catalogued.catalogue.masks.all()
    assert (mask.unlabelled, mask.classes) == (24, [0, 1, 4])
    pixels[0] = (224, 224, 224)
    Image.fromarray(pixels).save(voc / "SegmentationClass" / "b.png")
    refused = run(catalogued, voc, "nevus=lesion", "voc").outcomes[1]
    assert "name every value, for example '#e0e0e0=ignore'" in str(refused.note)


@pytest.mark.parametrize("kind", ["voc", "png"])
def test_import__colours_without_a_map(
    catalogued: Workspace, voc: Path, kind: str, refusal: Refusal
) -> None:
    (voc / "labelmap.txt").unlink()
    (refused,) = run(catalogued, voc, kind=kind).outcomes
    with refusal(InputError):
        raise InputError(refused.note)
    done = run(catalogued, voc, "#000000=ignore,#800000=lesion,#008000=skin", kind)
    assert told(done) == {"a.png": "added"}
    np.testing.assert_array_equal(drawn(catalogued), np.where(DRAWN == 0, 255, DRAWN))


def test_import__label_without_a_labelmap(
    catalogued: Workspace, voc: Path, refusal: Refusal
) -> None:
    (voc / "labelmap.txt").unlink()
    with refusal(InputError):
        run(catalogued, voc, "nevus=lesion")


def test_import__soft_edges(catalogued: Workspace, voc: Path) -> None:
    pixels = painted()
    pixels[6, 5:10] += 7
    Image.fromarray(pixels).save(voc / "SegmentationClass" / "a.png")
    (added,) = run(catalogued, voc, "nevus=lesion", "voc").outcomes
    assert added.note == "5 pixels within 10 of a known value or colour: taken for it"
    np.testing.assert_array_equal(drawn(catalogued), DRAWN)
    pixels[6, 5:10] += 7
    Image.fromarray(pixels).save(voc / "SegmentationClass" / "b.png")
    done = run(catalogued, voc, "nevus=lesion", "voc")
    assert told(done)["b.png"] == "refused"
    assert "#8e0e0e" in str(done.outcomes[1].note)


@pytest.mark.parametrize("ending", ["bmp", "tif", "gif", "png", "webp"])
@pytest.mark.parametrize("in_colours", [False, True])
def test_import__other_files(
    catalogued: Workspace, tmp_path: Path, ending: str, in_colours: bool
) -> None:
    (tmp_path / "m").mkdir()
    values = painted() if in_colours else np.where(DRAWN == 1, 255, 0).astype(np.uint8)
    picture = Image.fromarray(values)
    if ending == "gif" and in_colours:
        picture = picture.quantize(8)
    options = {"lossless": True} if ending == "webp" else {}
    picture.save(tmp_path / "m" / f"a.{ending}", **options)
    classes = (
        "#000000=background,#800000=lesion,#008000=skin" if in_colours else "0=skin,255=lesion"
    )
    assert told(run(catalogued, tmp_path / "m", classes)) == {f"a.{ending}": "added"}
    expected = DRAWN if in_colours else np.where(DRAWN == 1, 1, 4)
    np.testing.assert_array_equal(drawn(catalogued), expected)


def test_import__lossy_webp(catalogued: Workspace, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    Image.fromarray(painted()).save(tmp_path / "m" / "a.webp")
    (refused,) = run(catalogued, tmp_path / "m", "#000000=background").outcomes
    assert refused.note == "is a lossy WebP, which changes values: export it lossless, or as PNG"


def test_import__other_kinds_are_told(catalogued: Workspace, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    Image.fromarray(DRAWN).save(tmp_path / "m" / "a.png")
    for name in ("b.svg", "c.svg", "d.psd"):
        (tmp_path / "m" / name).write_bytes(b"x")
    done = run(catalogued, tmp_path / "m")
    assert told(done) == {"a.png": "added"}
    assert done.notes == ["files of other kinds left alone: 2 .svg, 1 .psd"]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_import__jpeg(catalogued: Workspace, tmp_path: Path, mode: str) -> None:
    (tmp_path / "m").mkdir()
    lesion = np.zeros(SIZE, np.uint8)
    lesion[:, 8:16] = 255  # on the edges of blocks: the values come off by a few
    noisy = np.clip(lesion.astype(int) + np.arange(24) % 7 - 3, 0, 255).astype(np.uint8)
    Image.fromarray(noisy).convert(mode).save(tmp_path / "m" / "a.jpg", quality=95)
    (added,) = run(catalogued, tmp_path / "m", "0=skin,255=lesion").outcomes
    assert added.outcome.value == "added"
    assert "within 10 of a known value" in str(added.note)
    np.testing.assert_array_equal(drawn(catalogued), np.where(lesion, 1, 4))


def test_import__jpeg_too_soft_or_of_class_ids(
    catalogued: Workspace, tmp_path: Path, refusal: Refusal
) -> None:
    (tmp_path / "m").mkdir()
    soft = np.tile(np.linspace(0, 255, 24), (16, 1)).astype(np.uint8)
    Image.fromarray(soft).save(tmp_path / "m" / "a.jpg")
    Image.fromarray(DRAWN).save(tmp_path / "m" / "b.jpg")
    done = run(catalogued, tmp_path / "m", "0=skin,255=lesion")
    assert set(told(done).values()) <= {"refused", "added"}
    assert "soft edges" in str(done.outcomes[0].note)
    for classes in (None, "0=background,1=lesion,4=skin"):
        done = run(catalogued, tmp_path / "m", classes)
        assert told(done)["b.jpg"] == "refused"
        with refusal(InputError):
            raise InputError(done.outcomes[1].note)


def test_import__grey_levels_in_a_palette(catalogued: Workspace, tmp_path: Path) -> None:
    """As optipng shrinks a grey picture: the indices are no class ids."""
    (tmp_path / "m").mkdir()
    indices = np.select([DRAWN == 1, DRAWN == 4], [1, 2], 0).astype(np.uint8)
    picture = Image.fromarray(indices).convert("P")
    picture.putpalette([0, 0, 0, 1, 1, 1, 4, 4, 4])
    picture.putdata(indices.ravel().tolist())
    picture.save(tmp_path / "m" / "a.png")
    (added,) = run(catalogued, tmp_path / "m").outcomes
    assert added.note == "grey levels that were moved into a palette: read as the grey levels"
    np.testing.assert_array_equal(drawn(catalogued), DRAWN)


def test_import__photographs_among_masks(catalogued: Workspace, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    Image.fromarray(DRAWN).save(tmp_path / "m" / "a_mask.png")
    for name in ("a.jpg", "x.jpg"):
        Image.fromarray(painted()).save(tmp_path / "m" / name)
    done = run(catalogued, tmp_path / "m", suffixes=["_mask"])
    assert told(done) == {"a_mask.png": "added", "x.jpg": "refused"}
    assert done.notes == ["pictures left out, which have the name of a PNG mask: photographs: 1"]


def test_guess_format__voc(voc: Path, tmp_path: Path) -> None:
    assert guess_format(voc, MASKS) == "voc"
    assert guess_format(voc / "SegmentationClass", MASKS) == "voc"
    (tmp_path / "m").mkdir()
    Image.fromarray(DRAWN).save(tmp_path / "m" / "a.jpg")
    assert guess_format(tmp_path / "m", MASKS) == "png"


def test_read_label_map__colours_of_voc(tmp_path: Path) -> None:
    path = tmp_path / "labelmap.txt"
    path.write_text("\ufeff# x\nbackground:::\naeroplane:::\nbicycle:0,128,0:a,b:\n", "utf-8")
    assert read_label_map(path) == {
        colour_value(0, 0, 0): "background",
        colour_value(128, 0, 0): "aeroplane",
        colour_value(0, 128, 0): "bicycle",
    }


@pytest.mark.parametrize(
    "text", ["", "a:1,2::\n", "a:1,2,300::\n", "a:1,2,3::\nb:1,2,3::\n", ":1,2,3::\n"]
)
def test_read_label_map__refused(tmp_path: Path, text: str, refusal: Refusal) -> None:
    (tmp_path / "labelmap.txt").write_text(text)
    with refusal(InputError):
        read_label_map(tmp_path / "labelmap.txt")


@pytest.mark.parametrize("text", ["#80000=lesion", "#800000=mole", "a=lesion,A=skin", "=lesion"])
def test_parse__refused(text: str, refusal: Refusal) -> None:
    with refusal(InputError):
        ClassMapping.parse(text, PROTOCOL)


def test_parse__values_colours_and_labels() -> None:
    mapping = ClassMapping.parse("0=skin, #800000=lesion,Mole type 2=lesion,7=ignore", PROTOCOL)
    assert mapping == {0: 4, colour_value(128, 0, 0): 1, 7: 255}
    assert mapping.labels == {"mole type 2": 1}


@pytest.mark.property
@given(
    arrays(
        np.uint8,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.sampled_from([0, 1, 4]),
    )
)
def test_read_masks__colours_come_back(
    tmp_path_factory: pytest.TempPathFactory, mask: NDArray[np.uint8]
) -> None:
    path = tmp_path_factory.mktemp("m") / "a.png"
    Image.fromarray(painted(mask)).save(path)
    mapping = ClassMapping.parse("#000000=background,#800000=lesion,#008000=skin", PROTOCOL)
    (file,) = read_masks(path)
    np.testing.assert_array_equal(class_mask(file, mapping), mask)


@pytest.mark.property
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(data=st.data())
def test_import__every_file_ends_with_an_outcome(
    catalogued: Workspace, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("m")
    names = data.draw(
        st.sets(
            st.sampled_from(["a.png", "b.png", "c.jpg", "z.jpg", "x/a.png", "d.bmp"]), min_size=1
        )
    )
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        mode = data.draw(st.sampled_from(["L", "RGB", "P", "1", "RGBA", "LA"]))
        values = data.draw(
            arrays(np.uint8, (16, 24), elements=st.sampled_from([0, 1, 3, 128, 255]))
        )
        picture = Image.fromarray(values).convert(mode)
        picture = picture.convert("RGB" if name.endswith("jpg") and mode != "L" else mode)
        picture = picture.convert(
            "RGB" if mode in ("RGBA", "LA") and name.endswith("bmp") else picture.mode
        )
        picture.save(folder / name)
        if data.draw(st.booleans()) and data.draw(st.booleans()):
            (folder / name).write_bytes(
                (folder / name).read_bytes()[: data.draw(st.integers(0, 90))]
            )
    classes = data.draw(
        st.sampled_from(
            [None, "0=skin,255=lesion", "0=skin,1=lesion,128=ignore,255=marker,3=ruler"]
        )
    )
    done = run(catalogued, folder, classes)
    assert {o.name for o in done.outcomes} == names
    for outcome in done.outcomes:
        assert outcome.outcome.value != "refused" or outcome.note
        assert "Traceback" not in (outcome.note or "")
