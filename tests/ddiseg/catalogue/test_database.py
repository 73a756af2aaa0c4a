"""Schema, connections and transactions."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, func, inspect, select, text
from sqlalchemy.engine import Engine, Inspector
from sqlalchemy.exc import IntegrityError

from ddiseg.catalogue import (
    Catalogue,
    Details,
    JobKind,
    ModelKind,
    Purpose,
)
from ddiseg.catalogue.connections import BUSY_TIMEOUT
from ddiseg.catalogue.database import Database, _alembic, _revisions
from ddiseg.catalogue.leases import SERVE
from ddiseg.catalogue.tables import Base
from ddiseg.errors import NotFoundError, WorkspaceError
from tests.wording import Refusal


@pytest.fixture
def url(catalogue_url: str) -> str:
    return catalogue_url


@pytest.mark.slow
def test_full__has_rows_in_every_table(full: Catalogue) -> None:
    with full._database.read() as session:
        for name, table in Base.metadata.tables.items():
            assert session.scalar(select(func.count()).select_from(table)), name


@pytest.mark.slow
def test_models_and_migrations__autogenerate_finds_no_difference(shared_url: str) -> None:
    engine = create_engine(shared_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


@pytest.mark.process
def test_models_and_migrations__same_tables_down_to_the_checks(
    catalogue: Catalogue, url: str, tmp_path: Path
) -> None:
    migrated, created = create_engine(url), create_engine(f"sqlite:///{tmp_path / 'x.sqlite'}")
    Base.metadata.create_all(created)
    for table in Base.metadata.tables:
        assert _structure(migrated, table) == _structure(created, table), table
    migrated.dispose()
    created.dispose()


def _structure(engine: Engine, table: str) -> dict[str, list[str]]:
    inspector: Inspector = inspect(engine)
    parts: dict[str, list[Any]] = {
        "columns": inspector.get_columns(table),
        "foreign keys": inspector.get_foreign_keys(table),
        "indexes": [
            # A partial index's condition is an object that shows no text by itself.
            {**index, "dialect_options": {k: str(v) for k, v in options.items()}}
            for index in inspector.get_indexes(table)
            for options in [index.get("dialect_options", {})]
        ],
        "unique": inspector.get_unique_constraints(table),
        "checks": inspector.get_check_constraints(table),
    }
    assert parts["columns"]
    return {name: sorted(map(repr, found)) for name, found in parts.items()} | {
        "primary key": [repr(inspector.get_pk_constraint(table))]
    }


@pytest.mark.process
def test_migrations__down_and_up_with_rows_in_it(full: Catalogue, url: str) -> None:
    full.close()
    database = Database(url)
    with database.engine.begin() as connection:
        command.downgrade(_alembic(connection), "base")
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    database.engine.dispose()
    with pytest.raises(WorkspaceError, match=r"is an empty database"):
        Catalogue.open(url)
    again = Catalogue.create(url)
    assert again.images.counts() == {}
    again.close()


#: A catalogue of schema 0001: #1 submitted twice, then painted by a model; #2 accepted; #3 new.
ROWS_OF_0001 = """
INSERT INTO datasets VALUES
    (1, 'clinic', NULL, NULL, 'then'),
    (2, 'phantoms', 'CC0-1.0 (rendered by code, shows no person)', 'rendered by ddiseg demo', 'then'),
    (3, 'waived', 'CC BY 4.0, all rights surrendered', 'portraits rendered by code', 'then'),
    (4, 'like', 'CC0-1.0 (rendered by code, shows no person), but for two', NULL, 'then');
INSERT INTO images (id, dataset_id, name, content_hash, perceptual_hash, width, height, tone, state, created_at)
VALUES (1, 1, '1.png', 'i1', '00000000000000aa', 8, 6, 'I-II', 'submitted', 'then'),
       (2, 1, '2.png', 'i2', '00ff00ff00ff00ff', 8, 6, 'I-II', 'accepted', 'then'),
       (3, 1, '3.png', 'i3', 'ff00ff00ff00ff00', 8, 6, 'I-II', 'new', 'then');
INSERT INTO model_versions VALUES (1, 'fedd-1', 'f', 'unet', 'b', '{}', '[]', '{}', '1.0', 'then');
INSERT INTO masks (id, image_id, content_hash, width, height, mapping, classes, annotator, model_version_id,
                   protocol_version, created_at)
VALUES (1, 1, 'a', 8, 6, 'same', '[1]', 'anna', NULL, '1.0', 'then'),
       (2, 1, 'b', 8, 6, 'same', '[1]', 'anna', NULL, '1.0', 'then'),
       (3, 2, 'c', 8, 6, 'same', '[1]', 'anna', NULL, '1.0', 'then'),
       (4, 1, 'd', 8, 6, 'same', '[1]', NULL, 1, '1.0', 'then');
INSERT INTO reviews VALUES (1, 3, 'ben', 'accept', NULL, 'then');
INSERT INTO acceptances VALUES (2, 3);
INSERT INTO events (kind, actor, image_id, state_before, state_after, detail, at)
VALUES ('import', 'tester', 1, NULL, 'new', '{}', 'then'),
       ('import', 'tester', 2, NULL, 'new', '{}', 'then'),
       ('import', 'tester', 3, NULL, 'new', '{}', 'then'),
       ('submit', 'anna', 1, 'new', 'submitted', '{"mask": "a"}', 'then'),
       ('submit', 'anna', 1, 'submitted', 'submitted', '{"mask": "b"}', 'then'),
       ('prelabel', 'fedd-1', 1, 'submitted', 'submitted', '{"mask": "d"}', 'then'),
       ('submit', 'anna', 2, 'new', 'submitted', '{"mask": "c"}', 'then'),
       ('accept', 'ben', 2, 'submitted', 'accepted', '{"mask": "c"}', 'then');
"""


@pytest.fixture
def of_0001(tmp_path: Path) -> str:
    """The URL of a catalogue with the oldest schema and rows in it."""
    url = f"sqlite:///{tmp_path / 'catalogue.sqlite'}"
    database = Database(url)
    with database.engine.begin() as connection:
        command.upgrade(_alembic(connection), "0001")
    database.engine.dispose()
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.executescript(ROWS_OF_0001)
    return url


def test_migrations__from_the_oldest_schema_a_submitted_mask_waits_for_review(
    of_0001: str, refusal: Refusal
) -> None:
    with refusal(WorkspaceError):
        Catalogue.open(of_0001)
    catalogue = Catalogue.create(of_0001)
    assert {i: m.content_hash for i, m in catalogue.masks.in_review().items()} == {1: "b"}
    assert {i: m.content_hash for i, m in catalogue.masks.accepted().items()} == {2: "c"}
    assert catalogue.events.contradictions() == []
    catalogue.masks.review(2, "ben", "accept")
    assert catalogue.images.find("#1").state == "accepted"
    assert catalogue.events.contradictions() == []
    catalogue.close()


@pytest.mark.process
def test_migrations__down_to_the_oldest_schema_and_up_again_keeps_its_rows(of_0001: str) -> None:
    def dump() -> list[str]:
        with closing(sqlite3.connect(of_0001.removeprefix("sqlite:///"))) as connection:
            # SQLite keeps its table of the last ids for good, once there is one.
            return sorted(line for line in connection.iterdump() if "sqlite_sequence" not in line)

    before = dump()
    Catalogue.create(of_0001).close()
    upgraded = dump()
    assert upgraded != before
    database = Database(of_0001)
    with database.engine.begin() as connection:
        command.downgrade(_alembic(connection), "0001")
    database.engine.dispose()
    assert dump() == before
    Catalogue.create(of_0001).close()
    assert dump() == upgraded


@pytest.mark.process
def test_migrations__from_the_oldest_schema_models_are_for_segmentation(of_0001: str) -> None:
    catalogue = Catalogue.create(of_0001)
    (model,) = catalogue.models.all()
    assert (model.name, model.kind, model.training_images) == ("fedd-1", "segmentation", {})
    assert catalogue.models.current().id == model.id
    with pytest.raises(NotFoundError, match="ddiseg refresh --malignancy"):
        catalogue.models.current(ModelKind.MALIGNANCY)
    catalogue.close()


def test_migrations__down_to_0002_no_classifier_is_left_to_be_taken_for_probes(
    full: Catalogue, url: str
) -> None:
    full.close()
    database = Database(url)
    with database.engine.begin() as connection:
        command.downgrade(_alembic(connection), "0002")
    with database.read() as session:
        assert session.execute(text("SELECT id, name FROM model_versions")).all() == [(1, "fedd-1")]
        assert session.scalar(text("SELECT count(*) FROM masks")) == 3
    database.engine.dispose()
    again = Catalogue.create(url)
    assert [(m.name, m.kind) for m in again.models.all()] == [("fedd-1", "segmentation")]
    assert again.events.contradictions() == []
    again.close()


def test_migrations__from_the_oldest_schema_only_phantoms_are_synthetic(of_0001: str) -> None:
    catalogue = Catalogue.create(of_0001)
    assert {d.name: d.synthetic for d in catalogue.images.datasets()} == {
        "clinic": False,
        "phantoms": True,
        "waived": False,
        "like": False,
    }
    assert catalogue.evaluations.last_compared() == {}
    assert catalogue.evaluations.last() is None
    catalogue.close()


def test_migrations__from_0004_the_origin_of_malignancy_is_not_known(of_0001: str) -> None:
    file = of_0001.removeprefix("sqlite:///")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE images SET malignant = 1 WHERE id = 1")
        connection.commit()
    catalogue = Catalogue.create(of_0001)
    stored = [(i.malignant, i.malignant_source) for i in catalogue.images.select()]
    assert stored == [(True, None), (None, None), (None, None)]
    derived = Details(malignant=False, malignant_source="diagnosis: --benign")
    assert catalogue.images.update_details([1, 2], [derived] * 2, "tester")[0] == {}
    catalogue.close()
    database = Database(of_0001)
    with database.engine.begin() as connection:
        command.downgrade(_alembic(connection), "0004")
    with database.read() as session:
        kept = session.execute(text("SELECT malignant FROM images ORDER BY id")).scalars().all()
        assert kept == [1, 0, None]
    database.engine.dispose()


#: Batches and rounds of schema 0004: round 1 drew auto-1 and says so, round 2 was broken off, which
#: does not tell who drew auto-2 after it began, round 3 drew none, and round 4 was broken off for good
#: long before auto-9.
BATCHES_OF_0004 = """
INSERT INTO batches (id, name, drawn_by, created_at) VALUES
    (1, 'auto-1', '{}', '2026-01-01T10:01'),
    (2, 'auto-7', '{}', '2026-01-01T11:00'),
    (3, 'auto-2', '{}', '2026-01-01T12:01'),
    (4, 'week-1', '{}', '2026-01-01T12:02'),
    (5, 'auto-3', '{}', '2026-01-01T14:01'),
    (6, 'auto-4', '{}', '2026-01-01T15:00'),
    (7, 'auto-0', '{}', '2026-01-01T09:00'),
    (8, 'auto-9', '{}', '2026-03-01T09:00');
INSERT INTO rounds (id, actor, started_at, ended_at, outcome, steps) VALUES
    (1, 'ddiseg', '2026-01-01T10:00', '2026-01-01T10:05', 'done',
     '[{"step": "pull", "said": "auto-7: 3 images", "failed": false},
       {"step": "draw", "said": "auto-1: 3 images (I-II 3), 1 by lot", "failed": false}]'),
    (2, 'ddiseg', '2026-01-01T12:00', NULL, NULL, '[{"step": "pull", "said": "x", "failed": false}]'),
    (3, 'ddiseg', '2026-01-01T14:00', '2026-01-01T14:05', 'done',
     '[{"step": "draw", "said": "not asked for (--draw)", "failed": false}]'),
    (4, 'ddiseg', '2026-01-01T16:00', NULL, NULL, '[]');
"""


def test_migrations__from_0004_a_batch_is_of_whom_the_record_says(of_0001: str) -> None:
    database = Database(of_0001)
    with database.engine.begin() as connection:
        command.upgrade(_alembic(connection), "0004")
    database.engine.dispose()
    with closing(sqlite3.connect(of_0001.removeprefix("sqlite:///"))) as connection:
        connection.executescript(BATCHES_OF_0004)
    catalogue = Catalogue.create(of_0001)
    assert {b.name: b.origin for b in catalogue.batches.all()} == {
        "auto-1": "round",
        "auto-7": "person",
        "auto-2": "person",
        "week-1": "person",
        "auto-3": "person",
        "auto-4": "person",
        "auto-0": "person",
        "auto-9": "person",
    }
    assert [row.settings for row in catalogue.rounds.last(5)] == [None] * 4
    assert catalogue.rounds.last_with_settings() is None
    catalogue.close()


#: Events of schema 0005 that held what has tables of its own since: the newest push decides.
EVENTS_OF_0005 = """
INSERT INTO events (id, at, kind, actor, detail) VALUES
    (101, '2026-01-01', 'evaluation', 'anna', '{"models": {"fedd-1": 1}, "truth": "old"}'),
    (102, '2026-01-02', 'evaluation', 'anna', '{"models": {"fedd-1": 2}, "truth": "new"}'),
    (103, '2026-01-03', 'sensitivity', 'anna', '{"model": "fedd-1", "control": "grey"}'),
    (104, '2026-01-04', 'push', 'anna', '{"n": 1, "owed": {"control": {"I-II": 0.9}}}'),
    (105, '2026-01-05', 'push', 'ben',
     '{"n": 2, "owed": {"control": {"I-II": 0.4, "V-VI": -0.25}, "review": {"I-II": 0.5}}}');
"""


def test_migrations__from_0005_events_are_read_over_and_back(of_0001: str) -> None:
    file = of_0001.removeprefix("sqlite:///")
    database = Database(of_0001)
    with database.engine.begin() as connection:
        command.upgrade(_alembic(connection), "0005")
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(EVENTS_OF_0005)
    catalogue = Catalogue.create(of_0001)
    evaluation, run = catalogue.evaluations.last(), catalogue.robustness.last()
    assert evaluation is not None
    assert (evaluation[0], evaluation[1].truth) == ("2026-01-02", "new")
    assert run is not None
    assert (run[0], run[1].control) == ("2026-01-03", "grey")
    carry = {"control": {"I-II": 0.4, "V-VI": -0.25}, "review": {"I-II": 0.5}}
    assert catalogue.tasks.carry() == carry
    project = catalogue.tasks.project("http://labels.example", Purpose.ANNOTATION)
    catalogue.tasks.plan(project.id, [], "ben", {}, {"control": {"I-II": -0.1}})
    catalogue.evaluations.add({"models": {"fedd-1": 3}, "classes": {}}, [], "ben")
    assert catalogue.tasks.carry() == {"control": {"I-II": -0.1}}
    catalogue.close()
    with database.engine.begin() as connection:
        command.downgrade(_alembic(connection), "0005")
    with database.read() as session:
        rows = session.execute(text("SELECT detail FROM events WHERE id > 100 ORDER BY id"))
        details = [json.loads(detail) for detail in rows.scalars()]
    database.engine.dispose()
    assert details[0] == {"models": {"fedd-1": 1}, "truth": "old"}
    assert details[4]["owed"] == carry, "as it was written"
    assert details[5] == {"n": 0, "owed": {"control": {"I-II": -0.1}}}
    assert details[6] == {"models": {"fedd-1": 3}, "classes": {}}


@pytest.mark.slow
def test_migrations__jobs_of_0006_are_taken_over_and_go_on_counting(shared_url: str) -> None:
    catalogue = Catalogue.open(shared_url)
    with catalogue.leases.hold(SERVE) as lease:
        for kind in (JobKind.REFRESH, JobKind.PULL):
            catalogue.jobs.request(kind)
        catalogue.jobs.take(lease.owner)
    catalogue.close()
    database = Database(shared_url)
    with database._writing.begin() as connection:
        command.downgrade(_alembic(connection), "0006")
    inspector = inspect(database.engine)
    assert not inspector.has_table("leases")
    assert "owner" not in {column["name"] for column in inspector.get_columns("jobs")}
    with database.read() as session:
        found = session.execute(text("SELECT id, kind, started_at IS NULL FROM jobs ORDER BY id"))
        assert found.all() == [(1, "refresh", False), (2, "pull", True)]
    database.engine.dispose()
    again = Catalogue.create(shared_url)
    assert not again.jobs.request(JobKind.PULL), "one waits, as before"
    assert again.jobs.take_over() == 1
    assert [(job.id, job.kind) for job in again.jobs.last(5)] == [
        (3, "refresh"),
        (2, "pull"),
        (1, "refresh"),
    ]
    again.close()


@pytest.mark.slow
def test_migrations__down_to_nothing_and_up_again(shared_url: str) -> None:
    database = Database(shared_url)
    with database._writing.begin() as connection:
        command.downgrade(_alembic(connection), "base")
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    database.engine.dispose()
    again = Catalogue.create(shared_url)
    assert again.images.counts() == {}
    again.close()


@pytest.mark.both_databases
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE model_versions SET kind = 'other'",
        "UPDATE malignancy_estimates SET probability = 1.5",
        "UPDATE sides SET side = 'both'",
        "UPDATE rounds SET outcome = 'perhaps'",
        "UPDATE jobs SET kind = 'other'",
        "UPDATE batches SET origin = 'somebody'",
    ],
)
def test_checks__refuse_what_can_not_be(full: Catalogue, url: str, statement: str) -> None:
    database = Database(url)
    with pytest.raises(IntegrityError, match=r"(?i)check constraint"), database.write() as session:
        session.execute(text(statement))
    database.engine.dispose()


@pytest.mark.both_databases
def test_create__again_keeps_all_rows(full: Catalogue, url: str) -> None:
    before = full.events.count()
    again = Catalogue.create(url)
    assert again.events.count() == before
    assert again.images.find("000001").state == "accepted"
    again.close()


@pytest.mark.parametrize("open_it", [Catalogue.open, Catalogue.create])
def test_newer_schema__refused_and_untouched(
    full: Catalogue, url: str, open_it: Callable[[str], Catalogue], refusal: Refusal
) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with refusal(WorkspaceError):
        open_it(url)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("SELECT * FROM alembic_version").fetchall() == [("9999",)]


def test_sqlite__wal_foreign_keys_and_busy_timeout(catalogue: Catalogue, url: str) -> None:
    database = Database(url)
    with database.read() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert session.scalar(text("PRAGMA foreign_keys")) == 1
        assert session.scalar(text("PRAGMA busy_timeout")) == BUSY_TIMEOUT * 1000
    database.engine.dispose()


def test_create__database_of_another_program(tmp_path: Path, refusal: Refusal) -> None:
    file = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE task (id INTEGER)")
    with refusal(WorkspaceError):
        Catalogue.create(f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("task",)]


@pytest.mark.both_databases
def test_write__nothing_is_stored_when_it_fails(catalogue: Catalogue, url: str) -> None:
    database = Database(url)
    statement = text("INSERT INTO datasets (name, created_at) VALUES ('x', 'now')")

    def stopped_half_way() -> None:
        with database.write() as session:
            session.execute(statement)
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stopped_half_way()
    assert catalogue.images.datasets() == []
    database.engine.dispose()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nonsense", "catalogue URL nonsense can't be used: give sqlite"),
        ("nosuchdb://host/name", r"nosuchdb://host/name can't be used"),
        ("sqlite:////no/such/folder/x.sqlite", "unable to open database file; check that the fold"),
        ("sqlite:////dev/null/x.sqlite", "unable to open database file; check that the folder"),
    ],
)
def test_create__bad_url(given: str, said: str) -> None:
    with pytest.raises(WorkspaceError, match=said):
        Catalogue.create(given)


def test_create__driver_of_postgresql_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(WorkspaceError, match=r"pip install 'ddiseg\[postgres\]'"):
        Catalogue.create("postgresql+psycopg://host/name")


def test_create__password_is_not_shown() -> None:
    with pytest.raises(WorkspaceError) as caught:
        Catalogue.create("nosuchdb://me:secret@host/name")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"not a database, just text" * 100, b"SQLite format 3\x00" * 99]
)
def test_open__file_is_damaged(tmp_path: Path, content: bytes, refusal: Refusal) -> None:
    path = tmp_path / "x.sqlite"
    path.write_bytes(content)
    with refusal(WorkspaceError):
        Catalogue.open(f"sqlite:///{path}")
    assert path.read_bytes() == content


def test_write__locked_by_another(
    catalogue: Catalogue, url: str, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    monkeypatch.setattr("ddiseg.catalogue.connections.BUSY_TIMEOUT", 0)
    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    with closing(other):
        other.execute("BEGIN IMMEDIATE")
        blocked = Catalogue.open(url)
        with refusal(WorkspaceError):
            blocked.images.dataset("clinic")
        assert blocked.images.datasets() == []  # reading goes on meanwhile
        other.execute("ROLLBACK")
        blocked.images.dataset("clinic")
        blocked.close()


def test_read__all_connections_in_use(
    catalogue: Catalogue, url: str, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    one = partial(create_engine, pool_size=1, max_overflow=0, pool_timeout=0.01)
    monkeypatch.setattr("ddiseg.catalogue.connections.create_engine", one)
    database = Database(url)
    with (
        database.engine.connect(),
        refusal(WorkspaceError),
        database.read() as session,
    ):
        session.scalar(text("SELECT 1"))
    database.engine.dispose()


WRITER = """
import hashlib, sys
from ddiseg.catalogue import Catalogue, NewImage, NewModelVersion
url, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
catalogue = Catalogue.create(url)
dataset = catalogue.images.dataset("clinic")
digest = lambda text: hashlib.sha256(text.encode()).hexdigest()
added = 0
for n in range(first, last):
    new = NewImage(f"{n}.png", digest(f"f{n}"), 1, n, digest(f"i{n}"), digest(f"p{n}")[:16], 8, 6)
    [outcome] = catalogue.images.add(dataset.id, [new], f"writer {first}")
    added += outcome.outcome == "added"
    if n % 20 == 0:
        catalogue.models.add(NewModelVersion("f", "b", "h", {}, [], {}, "1.0"), "writer")
print(added)
"""


@pytest.fixture
def writers(url: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes that make the same catalogue at once and add images, half of them the same."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, url, first, last], stdout=subprocess.PIPE, text=True
        )
        for first, last in (("0", "60"), ("30", "90"))
    ]
    yield running
    for process in running:
        process.kill()
        process.wait()


@pytest.mark.process
def test_two_processes_at_once(writers: list[subprocess.Popen[str]], url: str) -> None:
    added = [int(process.communicate(timeout=120)[0]) for process in writers]
    assert [process.returncode for process in writers] == [0, 0]
    catalogue = Catalogue.open(url)
    assert sum(added) == len(catalogue.images.select()) == 90
    assert catalogue.events.contradictions() == []
    names = [model.name for model in catalogue.models.all()]
    assert names == [f"fedd-{n}" for n in range(1, 7)]
    catalogue.close()


@pytest.mark.process
def test_connecting__to_a_new_file_many_at_once(tmp_path: Path) -> None:
    def connect(url: str, start: threading.Barrier) -> str:
        database = Database(url)
        start.wait()
        with database.engine.connect() as connection:
            mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        database.engine.dispose()
        return str(mode)

    with ThreadPoolExecutor(4) as pool:
        for n in range(50):
            start = threading.Barrier(4)
            modes = pool.map(connect, [f"sqlite:///{tmp_path / f'{n}.sqlite'}"] * 4, [start] * 4)
            assert list(modes) == ["wal"] * 4


@pytest.mark.both_databases
def test_foreign_keys__an_image_with_masks_can_not_be_deleted(full: Catalogue, url: str) -> None:
    database = Database(url)
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"), database.write() as session:
        session.execute(text("DELETE FROM images WHERE id = 1"))
    database.engine.dispose()


def test_revisions__as_alembic_finds_them() -> None:
    script = ScriptDirectory.from_config(_alembic())
    assert _revisions() == tuple(sorted(each.revision for each in script.walk_revisions()))
    assert _revisions()[-1] == script.get_current_head()
