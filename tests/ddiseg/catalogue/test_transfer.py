"""Copies of a catalogue from one database to another."""

from __future__ import annotations

import sqlite3
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, insert, select, text
from sqlalchemy.engine import make_url

from ddiseg.catalogue import Catalogue, JobKind
from ddiseg.catalogue.database import Database
from ddiseg.catalogue.leases import SERVE
from ddiseg.catalogue.marks import Mark, MovedError, UnfinishedCopyError, store_version
from ddiseg.catalogue.tables import (
    TABLES,
    Dataset,
    Event,
    Image,
    Job,
    NearDuplicate,
    Source,
    Thumbnail,
)
from ddiseg.catalogue.transfer import Copied, Move, transfer
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.outcomes import Outcome
from tests.ddiseg.rows import new_image
from tests.wording import Refusal

Copy = Callable[..., Copied]
MOVE = Move("manager", {"old": "here", "new": "there"})


@pytest.fixture
def copy() -> Copy:
    """copy(url, another): copy a catalogue."""

    def run(source: str, target: str, **options: Any) -> Copied:
        with closing(_Opened(source)) as one, closing(_Opened(target)) as other:
            return transfer(one.database, other.database, **options)

    return run


class _Opened:
    def __init__(self, url: str) -> None:
        self.database = Database(url)

    def close(self) -> None:
        self.database.engine.dispose()


@pytest.fixture
def new_file(tmp_path: Path) -> str:
    """The URL of an SQLite file that does not exist."""
    return f"sqlite:///{tmp_path / 'copy.sqlite'}"


@pytest.fixture
def clinic(catalogue: Catalogue) -> Catalogue:
    """Nine images."""
    dataset = catalogue.images.dataset("clinic")
    catalogue.images.add(dataset.id, [new_image(n) for n in range(9)], "tester")
    return catalogue


def _dump(url: str) -> list[str]:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        return sorted(connection.iterdump())


def _execute(url: str, statement: str) -> None:
    with closing(_Opened(url)) as opened, opened.database.write() as session:
        session.connection().exec_driver_sql(statement)


@pytest.mark.postgres
def test_transfer__to_postgresql_and_back_is_equal_row_for_row(
    full: Catalogue, catalogue_url: str, emptied_url: str, new_file: str, copy: Copy
) -> None:
    steps: list[tuple[int, int]] = []
    there = copy(catalogue_url, emptied_url, progress=lambda *step: steps.append(step))
    back = copy(emptied_url, new_file)
    assert set(there.rows) == {table.name for table in TABLES}
    assert all(there.rows.values()), "a table without rows is not tested: give `full` some"
    assert (back.rows, back.digest) == (there.rows, there.digest)
    assert _dump(new_file) == _dump(catalogue_url)
    assert steps[-1] == (2 * there.total, 2 * there.total)


@pytest.mark.postgres
def test_transfer__ids_go_on_where_they_were(
    full: Catalogue, catalogue_url: str, emptied_url: str, new_file: str, copy: Copy
) -> None:
    with full._database.write() as session:
        session.execute(text("DELETE FROM jobs"))  # job 1 is never given out again
    copy(catalogue_url, emptied_url)
    copy(emptied_url, new_file)
    for url in (emptied_url, new_file):
        catalogue = Catalogue.open(url)
        images = catalogue.images.select()
        catalogue.images.add(1, [new_image(99)], "tester")
        assert catalogue.images.select()[-1].id == max(image.id for image in images) + 1
        catalogue.jobs.request(JobKind.PULL)
        with catalogue._database.read() as session:
            assert session.scalars(select(Job.id)).all() == [2]
        catalogue.close()


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200)
_FLOAT = st.floats(allow_nan=False)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_BIG = st.integers(-(2**63), 2**63 - 1)


@st.composite
def _rows(draw: st.DrawFn) -> dict[type[Any], list[dict[str, Any]]]:
    """Rows with any value that both databases take."""
    names = draw(st.lists(_TEXT, min_size=1, max_size=4, unique=True))
    number = range(1, len(names) + 1)
    times = {"created_at": "2026-01-01T00:00:00.000000+00:00"}
    image = {"dataset_id": 1, "perceptual_hash": "0" * 16, "width": 2**31 - 1, "height": 1, **times}
    flags = st.none() | st.booleans()
    return {
        Dataset: [
            {
                "id": n,
                "name": name,
                "source": draw(st.none() | _TEXT),
                "synthetic": draw(st.booleans()),
                **times,
            }
            for n, name in zip(number, names, strict=True)
        ],
        Image: [
            {
                "id": n,
                "name": draw(_TEXT),
                "content_hash": f"h{n}",
                "malignant": draw(flags),
                "tone": "unknown",
                "state": "new",
                **image,
            }
            for n in number
        ],
        Source: [
            {
                "dataset_id": 1,
                "image_id": n,
                "path": f"{n}",
                "name": "n",
                "file_hash": "f",
                "size": draw(_BIG),
                "modified_ns": draw(_BIG),
                **times,
            }
            for n in number
        ],
        Thumbnail: [
            {
                "image_id": n,
                "signature": draw(st.binary(max_size=9)),
                "pixels": draw(st.binary(max_size=9)),
            }
            for n in number
        ],
        NearDuplicate: [
            {"first_id": 1, "second_id": n, "correlation": draw(_FLOAT), "change": "same"}
            for n in number
        ],
        Event: [
            {"at": "then", "kind": "k", "actor": draw(_TEXT), "detail": draw(_JSON)} for _ in number
        ],
    }


@pytest.fixture
def pair(catalogue_url: str, emptied_url: str) -> Iterator[tuple[Database, Database]]:
    """An SQLite catalogue and one on PostgreSQL, both empty."""
    with closing(_Opened(catalogue_url)) as one, closing(_Opened(emptied_url)) as other:
        yield one.database, other.database


@pytest.mark.postgres
@pytest.mark.property
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_rows())
def test_transfer__any_value_stays_as_it_is(
    pair: tuple[Database, Database], rows: dict[type[Any], list[dict[str, Any]]]
) -> None:
    for database in pair:
        with database.write() as session:
            for table in reversed(TABLES):
                session.execute(table.delete())
    with pair[0].write() as session:
        for kind, each in rows.items():
            session.execute(insert(kind), each)

    def stored(database: Database) -> list[Any]:
        with database.read() as session:
            return [
                _exact(
                    list(
                        session.execute(
                            select(kind.__table__).order_by(*kind.__table__.primary_key)
                        )
                    )
                )
                for kind in rows
            ]

    copied = transfer(*pair)
    assert stored(pair[1]) == stored(pair[0])
    assert copied.total == sum(map(len, rows.values()))


def _exact(value: Any) -> Any:
    """Return a value so that 0.0 and -0.0, and 1 and True, differ."""
    return struct.pack("d", value) if isinstance(value, float) else repr(value)


@pytest.mark.postgres
def test_transfer__json_stays_as_it_was_written(
    clinic: Catalogue, catalogue_url: str, emptied_url: str, new_file: str, copy: Copy
) -> None:
    """With its spaces, repeated keys and digits, and a null of JSON is no missing value."""
    odd = """'{"b":1e400,  "a" : 1.10, "a": "\\u0000\\ud800"}'"""
    _execute(catalogue_url, f"UPDATE events SET detail = {odd} WHERE id = 1")
    _execute(catalogue_url, "UPDATE events SET detail = 'null' WHERE id = 2")
    copy(catalogue_url, emptied_url)
    copy(emptied_url, new_file)
    assert _dump(new_file) == _dump(catalogue_url)


@pytest.mark.postgres
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE images SET diagnosis = printf('%.201c', 'x') WHERE id = 3",
        "UPDATE images SET patient = 'p' || char(0) || 'q' WHERE id = 3",
        "UPDATE images SET fitzpatrick = NULL, near_group = 3000000000 WHERE id = 3",
        "UPDATE images SET near_group = 'three' WHERE id = 3",
        "UPDATE events SET detail = '{\"iou\": NaN}' WHERE id = 3",
    ],
)
def test_transfer__a_value_that_postgresql_refuses(
    clinic: Catalogue,
    catalogue_url: str,
    emptied_url: str,
    copy: Copy,
    refusal: Refusal,
    statement: str,
) -> None:
    _execute(catalogue_url, statement)
    with refusal(InputError):
        copy(catalogue_url, emptied_url)
    with pytest.raises(UnfinishedCopyError):
        Catalogue.open(emptied_url)


def test_transfer__again_is_unchanged(
    clinic: Catalogue, catalogue_url: str, new_file: str, copy: Copy
) -> None:
    first, again = copy(catalogue_url, new_file), copy(catalogue_url, new_file)
    assert (first.outcome, again.outcome) == (Outcome.ADDED, Outcome.UNCHANGED)
    assert again.digest == first.digest


def test_transfer__target_holds_another_catalogue(
    clinic: Catalogue, catalogue_url: str, new_file: str, copy: Copy, refusal: Refusal
) -> None:
    other = Catalogue.create(new_file)
    other.images.dataset("other")
    other.close()
    before = _dump(new_file)
    with refusal(InputError):
        copy(catalogue_url, new_file)
    assert _dump(new_file) == before


def test_transfer__target_is_the_catalogue_itself(
    clinic: Catalogue, catalogue_url: str, copy: Copy, refusal: Refusal
) -> None:
    with refusal(InputError):
        copy(catalogue_url, catalogue_url)


def test_transfer__source_of_an_older_schema(
    clinic: Catalogue, catalogue_url: str, new_file: str, copy: Copy
) -> None:
    with clinic._database.write() as session:
        store_version(session, "0001")
    with pytest.raises(
        WorkspaceError, match="run 'ddiseg init' on the workspace, which upgrades it"
    ):
        copy(catalogue_url, new_file)
    assert not Path(new_file.removeprefix("sqlite:///")).exists() or "images" not in str(
        _dump(new_file)
    )


def test_transfer__a_server_runs(
    clinic: Catalogue, catalogue_url: str, new_file: str, copy: Copy
) -> None:
    with (
        clinic.leases.hold(SERVE),
        pytest.raises(WorkspaceError, match=r"ddiseg serve runs .*: stop it"),
    ):
        copy(catalogue_url, new_file)


@pytest.mark.both_databases
def test_transfer__nobody_writes_to_the_source_meanwhile(
    clinic: Catalogue,
    catalogue_url: str,
    new_file: str,
    copy: Copy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """People read on, and who writes waits: for no time at all in this test."""
    monkeypatch.setattr("ddiseg.catalogue.connections.BUSY_TIMEOUT", 0.05)
    waited = []

    def write(_done: int, _total: int) -> None:
        if not waited:
            other = Catalogue.open(catalogue_url)
            assert len(other.images.select()) == 9
            with pytest.raises(WorkspaceError, match="another ddiseg is writing"):
                other.images.dataset("other")
            waited.append(True)
            other.close()

    copy(catalogue_url, new_file, progress=write)
    assert waited
    clinic.images.dataset("other")


@pytest.mark.postgres
def test_transfer__slower_than_a_server_lets_a_transaction_idle(
    clinic: Catalogue,
    catalogue_url: str,
    postgres_url: str,
    new_file: str,
    copy: Copy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ddiseg.catalogue.connections._IDLE_MINUTES", 0.01)  # of writers
    of_all = "idle_in_transaction_session_timeout = 500"
    _execute(postgres_url, f"ALTER DATABASE {make_url(postgres_url).database} SET {of_all}")
    waits = iter([0.8])

    def wait(_done: int, _total: int) -> None:
        time.sleep(next(waits, 0))

    assert copy(catalogue_url, postgres_url, progress=wait).outcome is Outcome.ADDED
    waits = iter([0.8])
    assert copy(postgres_url, new_file, progress=wait).outcome is Outcome.ADDED


def test_unfinished__no_command_opens_it(
    clinic: Catalogue, catalogue_url: str, new_file: str, copy: Copy, refusal: Refusal
) -> None:
    with pytest.raises(RuntimeError):
        copy(catalogue_url, new_file, progress=_stop_after(12))
    for open_it in (Catalogue.open, Catalogue.create):
        with refusal(UnfinishedCopyError):
            open_it(new_file)
    assert copy(catalogue_url, new_file).found == 1 + 9 + 9
    Catalogue.open(new_file).close()


def _stop_after(rows: int) -> Callable[[int, int], None]:
    def progress(done: int, _total: int) -> None:
        if done >= rows:
            raise RuntimeError("stopped")

    return progress


def test_unfinished__source_was_changed_since(
    clinic: Catalogue, catalogue_url: str, new_file: str, copy: Copy
) -> None:
    with pytest.raises(RuntimeError):
        copy(catalogue_url, new_file, progress=_stop_after(12))
    clinic.images.skip(1, "blurry", None, "anna")
    assert copy(catalogue_url, new_file).restarted
    assert copy(catalogue_url, new_file).outcome is Outcome.UNCHANGED


def test_unfinished__of_another_catalogue(
    clinic: Catalogue,
    catalogue_url: str,
    new_file: str,
    tmp_path: Path,
    copy: Copy,
    refusal: Refusal,
) -> None:
    with pytest.raises(RuntimeError):
        copy(catalogue_url, new_file, progress=_stop_after(12))
    other = f"sqlite:///{tmp_path / 'other.sqlite'}"
    Catalogue.create(other).close()
    with refusal(InputError):
        copy(other, new_file)


@pytest.mark.both_databases
def test_move__the_old_catalogue_is_kept_and_nobody_opens_it(
    clinic: Catalogue, catalogue_url: str, new_file: str, copy: Copy, refusal: Refusal
) -> None:
    clinic.close()
    copied = copy(catalogue_url, new_file, move=MOVE)
    with pytest.raises(MovedError):
        Catalogue.open(catalogue_url)
    database = Database(catalogue_url)
    assert Mark.read(database.revision()) is not None
    with database.read() as session:
        assert session.scalar(select(func.count(Image.id))) == copied.rows["images"]
    database.engine.dispose()
    moved = Catalogue.open(new_file)
    event = moved.events.last("move-catalogue")
    assert event is not None
    assert (event.actor, event.detail["old"], event.detail["new"]) == ("manager", "here", "there")
    moved.images.dataset("work goes on")
    moved.close()
    assert copy(catalogue_url, new_file, move=MOVE).outcome is Outcome.UNCHANGED


@pytest.mark.both_databases
def test_move__someone_has_the_old_catalogue_open(
    clinic: Catalogue,
    catalogue_url: str,
    new_file: str,
    copy: Copy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ddiseg.catalogue.transfer._PATIENCE", 0)
    assert len(clinic.images.select()) == 9  # and may write
    with pytest.raises(WorkspaceError, match="open and may write to it: stop that, then run the"):
        copy(catalogue_url, new_file, move=MOVE)
    clinic.images.dataset("written since")
    clinic.close()
    copy(catalogue_url, new_file, move=MOVE)
    moved = Catalogue.open(new_file)
    assert [each.name for each in moved.images.datasets()] == ["clinic", "written since"]
    moved.close()
