from __future__ import annotations

from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import Details
from ddiseg.errors import InputError
from ddiseg.ingest.metadata import Key, parse_columns, parse_malignant, parse_tone, read_metadata
from tests.wording import Refusal

COLUMNS = {Key.IMAGE: "file", Key.TONE: "tone", Key.DIAGNOSIS: "dx"}


@pytest.mark.parametrize(
    ("text", "group", "exact"),
    [
        ("12", "I-II", None), ("34", "III-IV", None), ("56", "V-VI", None), ("56.0", "V-VI", None),
        *((str(n), ("I-II", "III-IV", "V-VI")[(n - 1) // 2], n) for n in range(1, 7)),
        *((f"{n}.0", ("I-II", "III-IV", "V-VI")[(n - 1) // 2], n) for n in range(1, 7)),
        ("I", "I-II", 1), ("ii", "I-II", 2), ("III", "III-IV", 3), ("iv", "III-IV", 4),
        ("V", "V-VI", 5), ("vi", "V-VI", 6), ("\u2163", "III-IV", 4), (" 5 ", "V-VI", 5),
        ("I-II", "I-II", None), ("III\u2013IV", "III-IV", None), ("V - vi", "V-VI", None),
        ("3-4", "III-IV", None), ("type IV", "III-IV", 4), ("FST 2", "I-II", 2),
        ("Fitzpatrick skin type V", "V-VI", 5),
        *((blank, "unknown", None) for blank in ("", "  ", "NA", "n/a", "NaN", "None", "unknown")),
    ],
)  # fmt: skip
def test_parse_tone(text: str, group: str, exact: int | None) -> None:
    assert parse_tone(text) == (group, exact)


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "7",
        "-1",
        "-12",
        "3.5",
        "inf",
        "1e0",
        "13",
        "1234",
        "II-III",
        "I-VI",
        "VII",
        "brown",
        "type",
        "I-",
    ],
)
def test_parse_tone__refused(text: str) -> None:
    with pytest.raises(InputError, match=f"tone '{text}' is none of 12, 34, 56"):
        parse_tone(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((yes, True) for yes in ("TRUE", "True", "yes", "Y", "1", "1.0", "malignant")),
        *((no, False) for no in ("FALSE", "false", "no", "n", "0", "0.0", "Benign")),
        *((blank, None) for blank in ("", " ", "NA", "unknown")),
    ],
)
def test_parse_malignant(text: str, expected: bool | None) -> None:
    assert parse_malignant(text) is expected


@pytest.mark.parametrize("text", ["2", "-1", "perhaps", "BCC"])
def test_parse_malignant__refused(text: str, refusal: Refusal) -> None:
    with refusal(InputError):
        parse_malignant(text)


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
        "file,tone,dx,x, x\n",
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
