from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from syrupy.assertion import SnapshotAssertion

from annotation_protocol import load_protocol
from ddiseg.catalogue import State
from ddiseg.errors import InputError, NotFoundError
from ddiseg.formats import MASKS, format_names, load_format
from ddiseg.ingest.class_values import class_mask
from ddiseg.ingest.mask_files import import_masks
from ddiseg.ingest.photographs import import_photographs
from ddiseg.ingest.placement import Geometry
from ddiseg.masks import decode_png, parse_class_mapping
from ddiseg.outcomes import FileOutcome, Outcome
from ddiseg.workspace.image_record import describe
from ddiseg.workspace.store import Kind
from ddiseg.workspace.verify import verify
from ddiseg.workspace.workspace import Workspace
from tests.wording import Refusal

pytestmark = pytest.mark.both_databases

#: As large as the photographs of the fixtures: 16 rows, 24 columns.
DRAWN = (np.arange(16 * 24, dtype=np.uint8) % 5).reshape(16, 24)
SKIN_AND_LESION = {0: 4, 255: 1}


@pytest.fixture
def catalogued(workspace: Workspace, folder: Any) -> Workspace:
    """A workspace with the images a to e."""
    import_photographs(workspace, folder(*(f"{name}.png" for name in "abcde")))
    return workspace


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    (tmp_path / "masks").mkdir()
    return tmp_path / "masks"


def save(values: Any, path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)
    return path.read_bytes()


def npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def run(
    workspace: Workspace, path: Path, kind: str = "png", **options: Any
) -> dict[str, FileOutcome]:
    options = {"annotator": "anna", **options}
    done = import_masks(workspace, path, format_name=kind, **options)
    return {o.name: o for o in done.outcomes}


def outcomes(told: dict[str, FileOutcome]) -> dict[str, str]:
    return {name: o.outcome.value for name, o in told.items()}


def test_formats(refusal: Refusal) -> None:
    assert {"png", "sddi"} <= set(format_names(MASKS))
    with refusal(InputError):
        load_format(MASKS, "gif")


def test_import_masks(catalogued: Workspace, masks: Path) -> None:
    save(DRAWN, masks / "a.png")
    save(DRAWN.T.reshape(16, 24), masks / "sub" / "b.PNG")
    (masks / "notes.txt").write_text("x")
    assert outcomes(run(catalogued, masks)) == {"a.png": "added", "sub/b.PNG": "added"}
    image = catalogued.catalogue.images.find("a.png")
    (mask,) = catalogued.catalogue.masks.of_image(image.id)
    assert (mask.width, mask.height, mask.mapping, mask.annotator) == (24, 16, "same", "anna")
    assert (mask.classes, mask.protocol_version, mask.origin) == ([0, 1, 2, 3, 4], "1.1", "a.png")
    assert np.array_equal(catalogued.mask(mask), DRAWN)
    assert image.state == State.SUBMITTED
    assert not catalogued.catalogue.masks.accepted()
    events = catalogued.catalogue.events.count()
    assert set(outcomes(run(catalogued, masks)).values()) == {"unchanged"}
    assert catalogued.catalogue.events.count() == events


def test_import_masks__one_file(catalogued: Workspace, masks: Path) -> None:
    save(DRAWN, masks / "a.png")
    save(DRAWN, masks / "b.png")
    assert outcomes(run(catalogued, masks / "b.png")) == {"b.png": "added"}


@pytest.mark.training
def test_import_masks__reviewed(catalogued: Workspace, masks: Path) -> None:
    save(DRAWN, masks / "a.png")
    run(catalogued, masks)
    assert outcomes(run(catalogued, masks, reviewer="ben")) == {"a.png": "repaired"}
    (mask,) = catalogued.catalogue.masks.accepted().values()
    assert [r.reviewer for r in catalogued.catalogue.masks.reviews([mask.id])] == ["ben"]
    assert outcomes(run(catalogued, masks, reviewer="ben")) == {"a.png": "unchanged"}
    save(DRAWN[::-1], masks / "a.png")
    told = run(catalogued, masks, reviewer="ben")
    assert outcomes(told) == {"a.png": "refused"}
    assert "'ddiseg reopen IMAGE' first" in str(told["a.png"].note)


@pytest.mark.training
def test_import_masks__foreign_values(catalogued: Workspace, masks: Path) -> None:
    lesion = DRAWN == 1
    save(np.where(lesion, 255, 0), masks / "a.png")
    run(catalogued, masks, mapping=SKIN_AND_LESION)
    (mask,) = catalogued.catalogue.masks.all()
    assert mask.classes == [1, 4]
    assert np.array_equal(catalogued.mask(mask), np.where(lesion, 1, 4))


def test_import_masks__ignored_values(catalogued: Workspace, masks: Path) -> None:
    values = np.where(DRAWN == 1, 9, 0)
    values[:4] = 255
    save(values, masks / "a.png")
    save(np.full((16, 24), 255), masks / "b.png")
    mapping = parse_class_mapping("0=skin,9=lesion,255=ignore", load_protocol().class_names)
    told = run(catalogued, masks, mapping=mapping, reviewer="ben")
    assert outcomes(told) == {"a.png": "added", "b.png": "refused"}
    assert told["b.png"].note == "none of its pixels has a class: all are ignored"
    (mask,) = catalogued.catalogue.masks.all()
    assert (mask.unlabelled, mask.classes) == (4 * 24, [1, 4])
    expected = np.where(DRAWN == 1, 1, 4)
    expected[:4] = 255
    np.testing.assert_array_equal(catalogued.mask(mask), expected)
    assert not verify(catalogued).problems
    again = run(catalogued, masks, mapping=mapping, reviewer="ben")
    assert outcomes(again)["a.png"] == "unchanged"
    shown = describe(catalogued, catalogued.catalogue.images.find("a.png"))["masks"][0]
    assert shown["shares"]["unlabelled"] == 0.25


def test_import_masks__only_ignored_values_are_named(catalogued: Workspace, masks: Path) -> None:
    """The other values stay class ids; without the option, the hint is that."""
    values = DRAWN.copy()
    values[:4] = 255
    save(values, masks / "a.png")
    hint = "if 255 is a pixel without a class, give --classes 255=ignore"
    assert str(run(catalogued, masks)["a.png"].note).endswith(hint)
    assert outcomes(run(catalogued, masks, mapping={255: 255})) == {"a.png": "added"}
    (mask,) = catalogued.catalogue.masks.all()
    np.testing.assert_array_equal(catalogued.mask(mask), values)
    assert mask.classes == [0, 1, 2, 3, 4]
    save(np.where(values == 1, 9, values), masks / "b.png")
    told = run(catalogued, masks, mapping={255: 255})
    assert "value 9 is no class" in str(told["b.png"].note)
    assert outcomes(told)["a.png"] == "refused", "9 says that the others may mean anything, too"
    told = run(catalogued, masks, mapping={255: 255, 9: 1})
    assert "name every value, for example 0=background" in str(told["a.png"].note)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_import_masks__equal_channels(catalogued: Workspace, masks: Path, mode: str) -> None:
    grey = Image.fromarray(np.where(DRAWN == 1, 255, 0).astype(np.uint8))
    grey.convert(mode).save(masks / "a.png")
    told = run(catalogued, masks, mapping=SKIN_AND_LESION)
    assert outcomes(told) == {"a.png": "added"}
    assert told["a.png"].note == f"{mode} with equal channels: read as one"
    (mask,) = catalogued.catalogue.masks.all()
    assert np.array_equal(catalogued.mask(mask), np.where(DRAWN == 1, 1, 4))


def test_import_masks__palette(catalogued: Workspace, masks: Path) -> None:
    picture = Image.fromarray(DRAWN).convert("P")
    picture.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200, 90, 90, 90])
    picture.putdata(DRAWN.ravel().tolist())
    picture.save(masks / "a.png")
    run(catalogued, masks)
    (mask,) = catalogued.catalogue.masks.all()
    assert np.array_equal(catalogued.mask(mask), DRAWN)


def in_colours() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.dstack([DRAWN, DRAWN, DRAWN + 1])


def half_clear() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.dstack([DRAWN, DRAWN, DRAWN, np.full_like(DRAWN, 128)])


@pytest.mark.training
@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (DRAWN[:, :23], "is 23 x 16, but its photograph is 24 x 16: export it at that size, or give --stretched"),
        (DRAWN.T, "is 16 x 24, but its photograph is 24 x 16"),
        (np.where(DRAWN == 2, 7, DRAWN), "mask value 7 is no class; values seen: 0, 1, 2, 3, 4, 7; give every value a class with --classes VALUE=CLASS,..."),
        (np.where(DRAWN == 2, 255, 0), "mask value 255 is no class; values seen: 0, 1, 2, 3, 4, 255; if 255 is a pixel without a class, give --classes 255=ignore"),
        (in_colours(), "mask values #000001, #010102, #020203, #030304, #040405 are no class"),
        (half_clear(), "is partly transparent"),
    ],
    ids=["size", "turned", "class 7", "foreign", "colours", "transparent"],
)  # fmt: skip
def test_import_masks__png_refused(
    catalogued: Workspace, masks: Path, values: Any, reason: str
) -> None:
    save(values, masks / "a.png")
    save(DRAWN, masks / "b.png")
    told = run(catalogued, masks)
    other = "refused" if "no class" in reason else "added"
    assert outcomes(told) == {"a.png": "refused", "b.png": other}
    assert reason in str(told["a.png"].note)
    assert len(catalogued.store.digests(Kind.MASK)) == (other == "added")
    assert catalogued.catalogue.images.find("a.png").state == State.NEW


@pytest.mark.training
def test_import_masks__png_damaged(catalogued: Workspace, masks: Path) -> None:
    whole = save(DRAWN, masks / "whole.png")
    rgb = save(np.dstack([DRAWN] * 3), masks / "whole.png")
    (masks / "whole.png").unlink()
    Image.fromarray(DRAWN.astype(np.uint16)).save(masks / "d.png")
    data = {"a": whole[:-30], "b": rgb[:-30], "c": b"x", "e": b"no picture" * 9}
    for name, content in data.items():
        (masks / f"{name}.png").write_bytes(content)
    told = run(catalogued, masks)
    assert set(outcomes(told).values()) == {"refused"}
    reasons = ("corrupt", "damaged or cut short", "not a PNG", "16-bit grey", "not a PNG")
    for name, reason in zip("abcde", reasons, strict=True):
        assert reason in str(told[f"{name}.png"].note)


@pytest.mark.training
def test_import_masks__value_without_a_meaning(catalogued: Workspace, masks: Path) -> None:
    save(np.where(DRAWN == 2, 128, 0), masks / "a.png")
    told = run(catalogued, masks, mapping=SKIN_AND_LESION)
    assert "(--classes) does not name value 128; values seen: 0, 128;" in str(told["a.png"].note)


@pytest.mark.training
def test_import_masks__stretched(catalogued: Workspace, masks: Path) -> None:
    square = (np.arange(64, dtype=np.uint8) % 5).reshape(8, 8)
    save(square, masks / "a.png")
    save(DRAWN, masks / "b.png")
    assert outcomes(run(catalogued, masks, geometry=Geometry(stretched=True))) == {
        "a.png": "added",
        "b.png": "added",
    }
    first, second = catalogued.catalogue.masks.all()
    assert (first.mapping, first.width, first.height) == ("stretched", 8, 8)
    assert second.mapping == "same"
    over = catalogued.mask_over(catalogued.catalogue.images.find("a.png"), first)
    assert np.array_equal(over, np.kron(square, np.ones((2, 3), np.uint8)))


def test_import_masks__values_of_the_whole_folder_are_said_once(
    catalogued: Workspace, masks: Path
) -> None:
    """Each file has other values; the reason of all is the same, so that it folds into one line."""
    for name, value in (("a", 255), ("b", 254), ("c", 253)):
        save(np.where(DRAWN == 1, value, 0), masks / f"{name}.png")
    assert {o.note for o in run(catalogued, masks).values()} == {
        "mask values 253, 254, 255 are no class; values seen: 0, 253, 254, 255; "
        "give every value a class with --classes VALUE=CLASS,..."
    }
    told = run(catalogued, masks, mapping=SKIN_AND_LESION)
    assert told["a.png"].outcome is Outcome.ADDED
    assert {told[name].note for name in ("b.png", "c.png")} == {
        "the class mapping (--classes) does not name values 253, 254; values seen: 0, 253, 254; "
        "name every value, for example 0=skin,255=lesion"
    }


@pytest.mark.training
@pytest.mark.parametrize("mapping", [None, SKIN_AND_LESION])
def test_import_masks__soft_edges(
    catalogued: Workspace, masks: Path, mapping: dict[int, int] | None
) -> None:
    for n, name in enumerate("abc"):
        save(np.arange(16 * 24).reshape(16, 24) % (100 + n), masks / f"{name}.png")
    save(np.zeros((16, 24)), masks / "d.png")
    told = run(catalogued, masks, mapping=mapping)
    smooth = "export it without smoothing, one value a class, or take it out of the folder"
    unknown = "are no class" if mapping is None else "the class mapping (--classes) does not name"
    assert {told[f"{name}.png"].note for name in "abc"} == {
        f"mask has more than 8 values that {unknown} (soft edges or a photograph?): {smooth}"
    }
    assert told["d.png"].note == (
        None
        if mapping is not None
        else "other masks of this folder hold values that are no class (soft edges or a photograph?): "
        "export those without smoothing, or take them out of the folder"
    )


@pytest.mark.training
def test_import_masks__equal_faults_have_equal_reasons(catalogued: Workspace, masks: Path) -> None:
    whole = save(DRAWN, masks / "a.png")
    contents = {"a": b"no picture" * 9, "b": b"no picture", "c": whole[:-5], "d": whole[:-9]}
    for name, content in contents.items():
        (masks / f"{name}.png").write_bytes(content)
    assert len({o.note for o in run(catalogued, masks).values()}) == 2


def test_import_masks__other_sizes_have_one_reason(catalogued: Workspace, masks: Path) -> None:
    for rows, name in ((8, "a"), (9, "b")):
        save(DRAWN[:rows], masks / f"{name}.png")
    assert {o.note for o in run(catalogued, masks).values()} == {
        "is of another size than its photograph, as one of 24 x 8 on 24 x 16: export it at that size, "
        "or give --stretched if the photograph was stretched to it"
    }


@pytest.mark.training
def test_import_masks__the_subset_is_read_as_its_folder(
    catalogued: Workspace, masks: Path, wording: SnapshotAssertion
) -> None:
    """The values of the files that are left alone say what those of the subset mean."""
    save(np.zeros((16, 24)), masks / "a.png")
    save(np.where(DRAWN == 1, 255, 0), masks / "b.png")
    save(np.zeros((16, 24)), masks / "z.png")
    image = catalogued.catalogue.images.find("a.png")
    catalogued.catalogue.subsets.store({"few": [image.id]}, {}, "tester")
    told = run(catalogued, masks, subset="few")
    assert outcomes(told) == {"a.png": "refused"}
    assert "hold values that are no class (255): give --classes" in str(told["a.png"].note)
    assert run(catalogued, masks)["z.png"].note == wording


@pytest.mark.training
def test_import_masks__what_was_tolerated_is_said_once(
    catalogued: Workspace, masks: Path, wording: SnapshotAssertion
) -> None:
    """A file is read twice where no mapping is given."""
    Image.fromarray(DRAWN).convert("RGB").save(masks / "a.png")
    assert run(catalogued, masks)["a.png"].note == wording


@pytest.mark.training
def test_import_masks__notes_of_few_values(catalogued: Workspace, masks: Path) -> None:
    def notes() -> list[str]:
        return import_masks(catalogued, masks, format_name="png", annotator="anna").notes

    advice = "if 0 means skin, give --classes 0=skin,1=lesion"
    save(np.zeros((16, 24)), masks / "a.png")
    assert notes() == [f"the mask holds only 0, read as background; {advice}"]
    (masks / "b.png").write_bytes(b"damaged")
    save(DRAWN == 1, masks / "c.png")
    assert notes() == [f"all 2 masks hold only 0 and 1, read as background and lesion; {advice}"]
    save(DRAWN, masks / "d.png")
    assert notes() == []


def test_import_masks__unknown_and_ambiguous(
    catalogued: Workspace, folder: Any, masks: Path, refusal: Refusal, wording: SnapshotAssertion
) -> None:
    import_photographs(catalogued, folder("sub/a.png", name="more", first_seed=50))
    save(DRAWN, masks / "a.png")
    save(DRAWN, masks / "z.png")
    told = run(catalogued, masks)
    assert told["a.png"].note == wording
    assert told["z.png"].note == wording
    told = run(catalogued, masks, dataset="more")
    assert outcomes(told) == {"a.png": "added", "z.png": "refused"}
    assert [m.image_id for m in catalogued.catalogue.masks.all()] == [6]
    with refusal(NotFoundError):
        run(catalogued, masks, dataset="none")


def test_import_masks__repeated(
    catalogued: Workspace, masks: Path, wording: SnapshotAssertion
) -> None:
    for path in ("1/a.png", "2/a.png", "2/b.png", "3/b.png", "1/c.png", "2/c.png"):
        save(DRAWN, masks / path)
    save(DRAWN[::-1], masks / "3/b.png")
    save(DRAWN.T.reshape(16, 24)[:5], masks / "1/c.png")
    told = run(catalogued, masks)
    assert outcomes(told) == {
        "1/a.png": "added",
        "1/c.png": "refused",
        "2/a.png": "unchanged",
        "2/b.png": "added",
        "2/c.png": "added",
        "3/b.png": "refused",
    }
    assert told["2/a.png"].note == wording
    assert told["3/b.png"].note == wording
    assert len(catalogued.catalogue.masks.all()) == 3


def test_import_masks__repeat_of_one_that_is_refused(catalogued: Workspace, masks: Path) -> None:
    catalogued.catalogue.images.skip(1, "blurry", None, "anna")
    save(DRAWN, masks / "1/a.png")
    save(DRAWN, masks / "2/a.png")
    told = run(catalogued, masks)
    assert outcomes(told) == {"1/a.png": "refused", "2/a.png": "refused"}
    assert "its image is skipped: 'ddiseg reopen IMAGE' first" in str(told["2/a.png"].note)


@pytest.mark.training
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_import_masks__stored_copy_lost(catalogued: Workspace, masks: Path, damage: Any) -> None:
    save(DRAWN, masks / "a.png")
    run(catalogued, masks)
    (mask,) = catalogued.catalogue.masks.all()
    damage(Path(catalogued.store.path(Kind.MASK, mask.content_hash)))
    told = run(catalogued, masks)
    assert outcomes(told) == {"a.png": "repaired"}
    assert told["a.png"].note == "its stored copy was missing or damaged"
    assert np.array_equal(catalogued.mask(mask), DRAWN)


@pytest.mark.training
@pytest.mark.parametrize(
    ("annotator", "reviewer"), [("anna", "anna"), ("anna", " Anna "), (" ", None), ("anna", "")]
)
def test_import_masks__people(
    catalogued: Workspace,
    masks: Path,
    monkeypatch: pytest.MonkeyPatch,
    annotator: str,
    reviewer: str | None,
    refusal: Refusal,
) -> None:
    save(DRAWN, masks / "a.png")
    monkeypatch.setattr("ddiseg.ingest.mask_files.read_file", None)
    with refusal(InputError):
        run(catalogued, masks, annotator=annotator, reviewer=reviewer)


@pytest.mark.training
@pytest.mark.parametrize(("path", "kind"), [("", "png"), ("", "sddi"), ("absent", "png")])
def test_import_masks__no_masks(
    catalogued: Workspace, masks: Path, path: str, kind: str, refusal: Refusal
) -> None:
    (masks / "a.txt").write_bytes(b"x")
    with refusal(InputError):
        run(catalogued, masks / path, kind)


# --- sDDI ---

SQUARE = (np.arange(256 * 256, dtype=np.int32) // 300 % 5).reshape(256, 256)


@pytest.mark.training
def test_import_masks__sddi(catalogued: Workspace, masks: Path, wording: SnapshotAssertion) -> None:
    for path in ("training/5%/train/a.npy", "training/10%/train/a.npy", "testing/test_dark/b.npy"):
        (masks / path).parent.mkdir(parents=True, exist_ok=True)
        (masks / path).write_bytes(npy(SQUARE))
    (masks / "c.npy").write_bytes(npy(np.asfortranarray(SQUARE)))
    told = run(catalogued, masks, "sddi", annotator="FEDD authors")
    assert outcomes(told) == {
        "c.npy": "added",
        "testing/test_dark/b.npy": "added",
        "training/10%/train/a.npy": "added",
        "training/5%/train/a.npy": "unchanged",
    }
    assert told["training/5%/train/a.npy"].note == wording
    for mask in catalogued.catalogue.masks.all():
        assert (mask.mapping, mask.width, mask.height) == ("stretched", 256, 256)
        assert np.array_equal(catalogued.mask(mask), SQUARE)
        assert mask.classes == [0, 1, 2, 3, 4]


def class_7() -> Any:
    array = SQUARE.copy()
    array[3, 4] = 7
    return array


class Trap:
    def __reduce__(self) -> Any:
        return (print, ("unpickled",))


@pytest.mark.training
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (npy(SQUARE.astype(np.float32)), "holds float32; the masks of sDDI are int32"),
        (npy(SQUARE.astype(np.uint8)), "holds uint8; the masks of sDDI are int32"),
        (npy(SQUARE.astype(np.int64)), "holds int64; the masks of sDDI are int32"),
        (npy(SQUARE[:128]), r"has shape (128, 256); the masks of sDDI are 256 x 256"),
        (npy(SQUARE[None]), "has shape (1, 256, 256)"),
        (npy(class_7()), "mask value 7 is no class; values seen: 0, 1, 2, 3, 4, 7"),
        (npy(SQUARE - 1), "mask value -1 is no class"),
        (npy(np.array([Trap()], object), allow_pickle=True), "holds Python objects"),
        (pickle.dumps(Trap()), "is a pickle"),
        (npy(SQUARE)[:-1], "is truncated"),
        (b"", "not a .npy file"),
        (b"text", "not a .npy file"),
    ],
    ids=["float", "uint8", "int64", "size", "axes", "class 7", "negative", "objects", "pickle", "truncated", "empty", "text"],
)  # fmt: skip
def test_import_masks__sddi_refused(
    catalogued: Workspace, masks: Path, data: bytes, reason: str, capsys: Any
) -> None:
    (masks / "a.npy").write_bytes(data)
    (masks / "b.npy").write_bytes(npy(SQUARE))
    told = run(catalogued, masks, "sddi")
    other = "refused" if "no class" in reason else "added"
    assert outcomes(told) == {"a.npy": "refused", "b.npy": other}
    assert reason in str(told["a.npy"].note)
    assert "unpickled" not in capsys.readouterr().out


def test_read_masks__for_other_readers(masks: Path) -> None:
    """What evaluating against a folder of masks goes by: nothing is read before it is asked for."""
    save(np.where(DRAWN == 1, 255, 0), masks / "sub" / "a.png")
    (masks / "b.png").write_bytes(b"damaged")
    bad, good = sorted(load_format(MASKS, "png")(masks), key=lambda file: file.photograph)
    assert (good.name, good.photograph, good.stretched) == ("sub/a.png", "sub/a", False)
    assert np.array_equal(class_mask(good, SKIN_AND_LESION), np.where(DRAWN == 1, 1, 4))
    with pytest.raises(InputError, match="not a PNG"):
        bad.load()


@pytest.mark.training
def test_store__holds_protocol_colours(catalogued: Workspace, masks: Path) -> None:
    save(DRAWN, masks / "a.png")
    run(catalogued, masks)
    (digest,) = catalogued.store.digests(Kind.MASK)
    data = catalogued.store.get(Kind.MASK, digest)
    assert np.array_equal(decode_png(data), DRAWN)
    picture = Image.open(io.BytesIO(data))
    assert picture.mode == "P"
    assert picture.convert("RGB").getpixel((1, 0)) == (0x56, 0xB4, 0xE9)
