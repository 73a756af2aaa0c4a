from __future__ import annotations

from pathlib import Path

import pytest

from ddiseg.errors import InputError
from ddiseg.ingest.csv_table import read_table
from tests.wording import Refusal

ROWS = [["name", "dx"], ["a", "n\u00e4vus"], ["017", "x"]]
EXCEL = "name;dx\r\na;n\u00e4vus\r\n017;x\r\n"


@pytest.mark.parametrize(
    ("data", "first_line", "notes"),
    [
        (EXCEL.encode("utf-8-sig"), 2, 1),
        (EXCEL.encode("cp1252"), 2, 2),
        (EXCEL.encode("utf-16"), 2, 2),
        (EXCEL.encode("utf-16-le"), 2, 2),
        (EXCEL.encode("utf-16-be"), 2, 2),
        (EXCEL.encode("utf-32"), 2, 2),
        (("sep=;\r\n" + EXCEL).encode(), 3, 1),
        (("\ufeffsep=;\n" + EXCEL).encode(), 3, 1),
        (('"sep=;"\n' + EXCEL).encode(), 3, 1),
        (("sep=,\r\n" + EXCEL.replace(";", ",")).encode(), 3, 0),
        (EXCEL.replace(";", "|").encode(), 2, 1),
        (EXCEL.replace("017", '="017"').encode(), 2, 1),
        (EXCEL.replace("017", '"=""017"""').encode(), 2, 1),
        (EXCEL.replace("name;dx", '"name";"dx"').encode(), 2, 1),
    ],
    ids=["bom", "cp1252", "utf-16", "utf-16-le, no mark", "utf-16-be, no mark", "utf-32", "sep", "bom and sep",
         "quoted sep", "sep, commas", "bars", "formula", "quoted formula", "quoted header"],
)  # fmt: skip
def test_read_table__as_excel_writes_it(
    tmp_path: Path, data: bytes, first_line: int, notes: int
) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(data)
    table = read_table(path)
    rows = list(table.rows)
    assert [table.header, *(cells for _, cells in rows)] == ROWS
    assert [line for line, _ in rows] == [first_line, first_line + 1]
    assert len(table.notes) == notes


def test_read_table__euro_sign_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(b"name,dx\na,5 \x80 \x96 x\n")
    table = read_table(path)
    assert [cells for _, cells in table.rows] == [["a", "5 \u20ac \u2013 x"]]
    assert table.notes == ["m.csv is not UTF-8: read as cp1252"]


def test_read_table__bytes_that_windows_does_not_use(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(b"name,dx\na,\x81\xe4\n")
    assert read_table(path).notes == ["m.csv is not UTF-8: read as latin-1"]


def test_read_table__separator_of_the_header_outside_quotes(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text('name;"size, depth, age";dx\na;1,2;x\n')
    table = read_table(path)
    assert table.header == ["name", "size, depth, age", "dx"]
    assert [cells for _, cells in table.rows] == [["a", "1,2", "x"]]


def test_read_table__cells_made_safe_for_excel(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("name,dx\n'-1,'=x\n'a,it's\n")
    assert [cells for _, cells in read_table(path).rows] == [["-1", "=x"], ["'a", "it's"]]


def test_read_table__quoted_newline(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(b'name,dx\r\na,"one\r\ntwo"\r\nb,x\r\n')
    assert list(read_table(path).rows) == [(2, ["a", "one\r\ntwo"]), (4, ["b", "x"])]


@pytest.mark.parametrize(
    "data",
    [b"PK\x03\x04rest", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1rest", b"\xff\xfea"],
    ids=["xlsx", "xls", "half a letter"],
)
def test_read_table__refused(tmp_path: Path, data: bytes, refusal: Refusal) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(data)
    with refusal(InputError):
        read_table(path)
