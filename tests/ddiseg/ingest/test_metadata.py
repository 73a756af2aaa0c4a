from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import Details
from ddiseg.errors import InputError
from ddiseg.ingest.coded_values import is_blank
from ddiseg.ingest.metadata import Key, parse_columns, read_metadata
from tests.wording import Refusal

COLUMNS = {Key.IMAGE: "file", Key.TONE: "tone", Key.DIAGNOSIS: "dx"}


def test_parse_columns() -> None:
    text = 'image=img_id, tone = fitspatrick,"diagnosis=dx, final",lesion=a=b'
    wanted = {Key.IMAGE: "img_id", Key.TONE: "fitspatrick", Key.DIAGNOSIS: "dx, final"}
    assert parse_columns(text) == {**wanted, Key.LESION: "a=b"}


@pytest.mark.parametrize(
    "text",
    [
        "", "tone=t", "image", "image=", "image=a,,tone=b", "image=a,colour=b",
        "image=a,tone=b,tone=c", "image=a\ntone=b", "image=" + "a" * 200_000,
    ],
)  # fmt: skip
def test_parse_columns__refused(text: str, refusal: Refusal) -> None:
    with refusal(InputError):
        parse_columns(text)


@pytest.mark.parametrize(
    ("file", "source"),
    [("m.csv", "m.csv: bad"), ("diagnosis", "./diagnosis: bad")],
    ids=["named as usual", "a column, not a diagnosis"],
)
def test_read_metadata__where_malignancy_comes_from(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / file
    path.write_text("file,bad\na.png,yes\nb.png,\n")
    a, b = read_metadata(path, {Key.IMAGE: "file", Key.MALIGNANT: "bad"}).rows
    assert (a.details.malignant, a.details.malignant_source) == (True, source)
    assert (b.details.malignant, b.details.malignant_source) == (None, None)


PLAIN = "file,tone,dx\na.png,3,naevus\nb.png,,\n"


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (PLAIN.encode(), None),
        (PLAIN.encode("utf-8-sig"), None),
        (PLAIN.replace("\n", "\r\n").encode(), None),
        (PLAIN.replace("\n", "\r").encode(), None),
        (PLAIN.replace(",", ";").encode(), "separated by semicolons"),
        (PLAIN.replace(",", "\t").encode(), "separated by tabs"),
        (PLAIN.encode("utf-16"), "read as utf-16"),
        (PLAIN.replace("file", " file ").encode(), None),
        (PLAIN.replace("naevus", "naevus,,").encode(), None),
        (PLAIN.replace("\n", "\n\n").encode(), None),
        (PLAIN.replace("file", ",unused,file").replace(".png", ".png").replace("a.png", "0,,a.png").replace("b.png", "1,,b.png").encode(), None),
    ],
    ids=["plain", "bom", "crlf", "cr", "semicolons", "tabs", "utf-16", "spaces in header", "blank cells too many", "blank lines", "unnamed column"],
)  # fmt: skip
def test_read_metadata__tolerated(tmp_path: Path, data: bytes, note: str | None) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(data)
    metadata = read_metadata(path, COLUMNS)
    known = Details("III-IV", "m.csv: tone", 3, diagnosis="naevus")
    assert [(row.image, row.details, row.fault) for row in metadata.rows] == [
        ("a.png", known, None),
        ("b.png", Details(), None),
    ]
    assert len(metadata.notes) == (note is not None)
    assert str(note or "") in "".join(metadata.notes)


def test_read_metadata__latin_1(tmp_path: Path, wording: SnapshotAssertion) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes("file,tone,dx\na.png,3,nävus\n".encode("latin-1"))
    metadata = read_metadata(path, COLUMNS)
    assert metadata.rows[0].details.diagnosis == "nävus"
    assert metadata.notes == wording


def test_read_metadata__line_of_a_row_after_one_of_two_lines(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text('file,tone,dx\na.png,3,"two\nlines"\nb.png,9,\n')
    assert [row.line for row in read_metadata(path, COLUMNS).rows] == [2, 4]


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",,\n",
        "file,dx\na.png,b\n",
        "a,b\n1,2\n",
        "file,tone,dx,tone\na.png,1,b,2\n",
        'file,tone,dx\na.png,1,"never closed\nb.png,2,c\n',
        "file,tone,dx\na.png,1," + "x" * 200_000,
    ],
)
def test_read_metadata__refused(tmp_path: Path, text: str, refusal: Refusal) -> None:
    path = tmp_path / "m.csv"
    path.write_text(text)
    with refusal(InputError):
        read_metadata(path, COLUMNS)


@pytest.mark.parametrize("name", ["absent.csv", "."])
def test_read_metadata__no_file(tmp_path: Path, name: str, refusal: Refusal) -> None:
    with refusal(InputError):
        read_metadata(tmp_path / name, COLUMNS)


@pytest.mark.parametrize(
    ("row", "image", "fault"),
    [
        ("a.png,brown,x", "a.png", "tone 'brown' is none of"),
        ("a.png,1", "a.png", "2 cells, but 3 columns"),
        ("a.png,1,x,y", "a.png", "4 cells, but 3 columns"),
        ("a.png,1," + "x" * 201, "a.png", "diagnosis is 201 characters long; 200 at most"),
        (",1,x", None, "names no image"),
        ("../../etc/passwd,1,x", None, "leads out of the folder"),
        ("sub/../../a.png,1,x", None, "leads out of the folder"),
        ("..\\a.png,1,x", None, "leads out of the folder"),
        ("/etc/passwd,1,x", None, "is an absolute path"),
        ("C:\\a.png,1,x", None, "is an absolute path"),
        ("\\\\server\\share\\a.png,1,x", None, "is an absolute path"),
    ],
)
def test_read_metadata__row_with_fault(
    tmp_path: Path, row: str, image: str | None, fault: str
) -> None:
    path = tmp_path / "m.csv"
    path.write_text(f"file,tone,dx\n{row}\nb.png,1,y\n")
    bad, good = read_metadata(path, COLUMNS).rows
    assert bad.image == image
    assert fault in str(bad.fault)
    assert bad.details == Details()
    assert good.fault is None


def test_read_metadata__codes_that_mean_unknown(tmp_path: Path, wording: SnapshotAssertion) -> None:
    path = tmp_path / "m.csv"
    path.write_text(
        "file,fst,mal\na.png,-1,malignant\nb.png,2,Indeterminate\nc.png,type-3,benign\n"
        "d.png,F5,non-neoplastic\ne.png,-1,\nf.png,-1,NA\ng.png,IV-V,\nh.png,0,1\n"
    )
    columns = {Key.IMAGE: "file", Key.TONE: "fst", Key.MALIGNANT: "mal"}
    metadata = read_metadata(path, columns)
    assert [(r.details.tone, r.details.fitzpatrick, r.details.malignant) for r in metadata.rows] == [
        ("unknown", None, True), ("I-II", 2, None), ("III-IV", 3, False), ("V-VI", 5, None),
        ("unknown", None, None), ("unknown", None, None), ("unknown", None, None),
        ("unknown", None, None),
    ]  # fmt: skip
    assert [row.line for row in metadata.rows if row.fault] == [9]
    assert metadata.notes == wording


def test_read_metadata__other_columns_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("file,tone,dx,x, x\na.png,3,naevus,,\n")
    (row,) = read_metadata(path, COLUMNS).rows
    assert (row.fault, row.details.fitzpatrick) == (None, 3)


def test_read_metadata__header_of_two_lines(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text('file,"skin\ntone"\na.png,3\n')
    (row,) = read_metadata(path, {Key.IMAGE: "file", Key.TONE: "skin tone"}).rows
    assert (row.line, row.details.fitzpatrick) == (3, 3)


#: Cells that metadata have, some of them odd.
CELLS = st.one_of(
    st.sampled_from(
        [
            "",
            "3",
            "IV",
            "type-3",
            "-1",
            "brown",
            "Indeterminate",
            "yes",
            "p.png",
            '="017"',
            "'=1",
            "\u2163",
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12),
)


@pytest.mark.property
@given(rows=st.lists(st.lists(CELLS, min_size=2, max_size=5), max_size=8), delimiter=st.sampled_from(",;\t|"), encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))  # fmt: skip
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_read_metadata__any_rows_are_taken_or_refused_with_a_reason(
    tmp_path: Path, rows: list[list[str]], delimiter: str, encoding: str
) -> None:
    path = tmp_path / "m.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerows([["file", "tone", "mal"], *rows])
    columns = {Key.IMAGE: "file", Key.TONE: "tone", Key.MALIGNANT: "mal"}
    metadata = read_metadata(path, columns)
    written = [row for row in rows if any(cell.strip() for cell in row)]
    assert len(metadata.rows) == len(written)
    for row, cells in zip(metadata.rows, written, strict=True):
        if row.fault is None:
            given_tone = not is_blank(cells[1]) and row.details.tone == "unknown"
            assert not given_tone or any(" tone " in note for note in metadata.notes)
        else:
            assert row.details == Details()
