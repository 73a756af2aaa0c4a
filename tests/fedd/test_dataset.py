from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fedd.dataset import UNKNOWN, DatasetImage, read_dataset
from fedd.errors import DatasetError
from tests.wording import Refusal

Rows = list[dict[str, Any]]


def _photographs(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (number, 0, 0)).save(path)
    return folder


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    return _photographs(tmp_path / "photographs", "000001.png", "deeper/000002.jpg", "000003.png")


def _table(folder: Path, text: str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_read__ddi_as_it_is_published(photographs: Path) -> None:
    _table(
        photographs,
        ",DDI_ID,DDI_file,skin_tone,malignant,disease\n"
        "0,1,000001.png,56,TRUE,melanoma\n1,2,000002.png,12,FALSE,nevus\n2,3,000003.png,34,,x\n",
        "ddi_metadata.csv",
    )
    found = read_dataset(photographs)
    assert [(i.stem, i.tone, i.malignant, i.patient) for i in found] == [
        ("000001", "V-VI", True, "000001"),
        ("000002", "I-II", False, "000002"),
        ("000003", "III-IV", None, "000003"),
    ]


def test_read__without_a_table_all_photographs_nothing_known(photographs: Path) -> None:
    found = read_dataset(photographs)
    assert [(i.stem, i.tone, i.malignant) for i in found] == [
        (f"00000{n}", "unknown", None) for n in (1, 2, 3)
    ]


def test_read__a_table_names_the_photographs_that_count(photographs: Path, tmp_path: Path) -> None:
    table = _table(tmp_path, "\ufefffile,patient\n000002.png,anna\n")
    (item,) = read_dataset(photographs, table)
    assert (item.stem, item.patient, item.path.name) == ("000002", "anna", "000002.jpg")


def test_read__partial_leaves_out_what_the_table_names_in_vain(
    photographs: Path, tmp_path: Path, refusal: Refusal
) -> None:
    first = min(p.name for p in photographs.iterdir() if p.suffix == ".png")
    table = _table(tmp_path, f"file\n{first}\ngone.png\n")
    with refusal(DatasetError):
        read_dataset(photographs, table)
    assert [i.path.name for i in read_dataset(photographs, table, partial=True)] == [first]
    with refusal(DatasetError):
        read_dataset(photographs, _table(tmp_path, "file\ngone.png\n"), partial=True)


@pytest.mark.parametrize(
    ("column", "cell", "tone"),
    [
        *(("fitspatrick", f"{n}.0", t) for n, t in ((1, "I-II"), (2, "I-II"), (3, "III-IV"))),
        *(("fitzpatrick", f"{n}", t) for n, t in ((4, "III-IV"), (5, "V-VI"), (6, "V-VI"))),
        *(("skin_tone", c, t) for c, t in (("12", "I-II"), ("34", "III-IV"), ("56", "V-VI"))),
        *(("tone", t, t) for t in ("I-II", "III-IV", "V-VI", "unknown")),
        *(("fitzpatrick_scale", c, "unknown") for c in ("-1", "")),
    ],
)
def test_read__tone(photographs: Path, tmp_path: Path, column: str, cell: str, tone: str) -> None:
    table = _table(tmp_path, f"img_id,{column}\n000001.png,{cell}\n")
    assert read_dataset(photographs, table)[0].tone == tone


@pytest.mark.parametrize(
    ("cell", "malignant"),
    [("TRUE", True), ("true", True), ("1", True), ("False", False), ("0", False), ("", None)],
)
def test_read__malignant(
    photographs: Path, tmp_path: Path, cell: str, malignant: bool | None
) -> None:
    table = _table(tmp_path, f"file,malignant\n000001.png,{cell}\n")
    assert read_dataset(photographs, table)[0].malignant is malignant


def test_read__the_columns_own_name_goes_before_an_alias(photographs: Path, tmp_path: Path) -> None:
    table = _table(tmp_path, "filename,file,patient_id,patient\nx.png,000001.png,b,a\n")
    (item,) = read_dataset(photographs, table)
    assert (item.stem, item.patient) == ("000001", "a")


@pytest.mark.parametrize(
    "text",
    [
        "file\n000009.png\n",
        "name\n000001.png\n",
        "file,malignant\n000001.png,maybe\n",
        "file,tone\n000001.png,dark\n",
        "file,tone\n,I-II\n",
        "file,tone\n000001.png,12\n000001.jpg,34\n",
        "file\n",
        "",
    ],
)
def test_read__tables_that_can_not_be_used(
    photographs: Path, tmp_path: Path, text: str, refusal: Refusal
) -> None:
    with refusal(DatasetError):
        read_dataset(photographs, _table(tmp_path, text))


def test_read__the_same_row_twice_is_one_photograph(photographs: Path, tmp_path: Path) -> None:
    table = _table(tmp_path, "file,tone\n000001.png,12\n000001.png,12\n")
    assert len(read_dataset(photographs, table)) == 1


def test_read__a_table_that_is_no_text(photographs: Path, tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00\x81")
    with refusal(DatasetError):
        read_dataset(photographs, tmp_path / "t.csv")


def test_read__no_folder_and_nothing_in_it(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not a folder"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="no photographs in"):
        read_dataset(tmp_path)


def test_read__two_photographs_of_one_name(tmp_path: Path, refusal: Refusal) -> None:
    with refusal(DatasetError):
        read_dataset(_photographs(tmp_path, "x/a.png", "y/a.png"))


def test_read__a_photograph_twice_byte_for_byte_is_one(tmp_path: Path) -> None:
    _photographs(tmp_path, "x/a.png")
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "a.png").write_bytes((tmp_path / "x" / "a.png").read_bytes())
    assert len(read_dataset(tmp_path)) == 1


def test_read__what_an_operating_system_left_is_no_photograph(photographs: Path) -> None:
    (photographs / "._000001.png").write_bytes(b"\x00\x05\x16\x07")
    assert len(read_dataset(photographs)) == 3


def test_masks__by_stem_at_any_depth(photographs: Path, tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "masks" / "test_dark").mkdir(parents=True)
    ids = np.array([[0, 4], [1, UNKNOWN]], np.uint8)
    np.save(tmp_path / "masks" / "test_dark" / "000001.npy", ids)
    Image.fromarray(ids).save(tmp_path / "masks" / "000003.png")
    one, two, three = read_dataset(photographs, masks=tmp_path / "masks")
    np.testing.assert_array_equal(one.class_ids(5), ids)
    np.testing.assert_array_equal(three.class_ids(5), ids)
    assert one.class_ids(5).dtype == np.uint8
    assert two.mask is None
    with refusal(DatasetError):
        two.class_ids(5)


def test_masks__none_is_of_a_photograph(
    photographs: Path, tmp_path: Path, refusal: Refusal
) -> None:
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "masks" / "other.npy", np.zeros((2, 2), np.uint8))
    with refusal(DatasetError):
        read_dataset(photographs, masks=tmp_path / "masks")


@pytest.mark.parametrize(
    "mask",
    [
        np.full((2, 2), 7, np.uint8),
        np.zeros((2, 2, 3), np.uint8),
        np.full((2, 2), 0.5),
        np.full((2, 2), np.nan),
    ],
)
def test_class_ids__no_mask_of_the_protocol(tmp_path: Path, mask: Any, refusal: Refusal) -> None:
    np.save(tmp_path / "m.npy", mask)
    with refusal(DatasetError):
        DatasetImage(tmp_path / "m.png", mask=tmp_path / "m.npy").class_ids(5)


@pytest.mark.parametrize("name", ["m.npy", "m.png"])
@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_class_ids__damaged_file(
    tmp_path: Path, name: str, content: bytes, refusal: Refusal
) -> None:
    (tmp_path / name).write_bytes(content)
    with refusal(DatasetError):
        DatasetImage(tmp_path / "m.png", mask=tmp_path / name).class_ids(5)


def test_photograph__rgb_and_the_right_way_up(tmp_path: Path) -> None:
    picture = Image.new("L", (6, 4))
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by a quarter
    picture.save(tmp_path / "a.jpg", exif=exif)
    photograph = DatasetImage(tmp_path / "a.jpg").photograph()
    assert (photograph.shape, photograph.dtype) == ((6, 4, 3), np.uint8)


def test_photograph__missing(tmp_path: Path, refusal: Refusal) -> None:
    with refusal(DatasetError):
        DatasetImage(tmp_path / "a.png").photograph()


@pytest.mark.property
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400), at=st.integers(0, 400), byte=st.integers(0, 255))
@pytest.mark.filterwarnings("ignore")
def test_photograph__damaged_is_refused_or_read(
    tmp_path: Path, cut: int, at: int, byte: int
) -> None:
    """Whatever byte is wrong, and wherever the file ends: a photograph, or one error of ours."""
    noise = np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(noise).save(path)
    data = bytearray(path.read_bytes())
    data[at % len(data)] = byte
    path.write_bytes(data[: max(0, len(data) - cut)])
    with suppress(DatasetError):
        assert DatasetImage(path).photograph().ndim == 3
