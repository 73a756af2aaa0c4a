"""A catalogue on a PostgreSQL server: what people are told, and what a dying connection costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from ddiseg.catalogue import Catalogue, NewModelVersion
from ddiseg.catalogue.database import Database
from ddiseg.catalogue.faults import ConnectionLostError, UnknownOutcomeError
from ddiseg.errors import DdisegError, WorkspaceError
from ddiseg.outcomes import Outcome
from tests.ddiseg.rows import digest, new_image, new_mask
from tests.postgres import GUARDED, PASSWORD, Server

pytestmark = pytest.mark.process


@pytest.fixture
def catalogue(postgres_url: str) -> Iterator[Catalogue]:
    """A catalogue on PostgreSQL with images 1 to 8."""
    opened = Catalogue.open(postgres_url)
    dataset = opened.images.dataset("clinic")
    opened.images.add(dataset.id, [new_image(n) for n in range(1, 9)], "tester")
    yield opened
    opened.close()


def end_connections(catalogue: Catalogue) -> None:
    """End the other connections to a catalogue's database, as a failover does."""
    with suppress(DBAPIError), catalogue._database.engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = "
                "current_database() AND pid <> pg_backend_pid()"
            )
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"host": "127.0.0.1", "port": 1, "query": {}}, "check that the database runs"),
        ({"database": "nowhere"}, "create it on the server"),
        ({"username": "nobody"}, "create it on the server"),
        ({"username": GUARDED, "password": "wr0ng"}, "~/.pgpass"),
        ({"query": {"host": "/no/such/folder"}}, "check that the database runs"),
        ({"query": {"service": "nosuch"}}, "service"),
        ({"host": "localhost", "port": 1, "query": {}}, "check that the database runs"),
        ({"host": "no.such.host.invalid", "query": {}}, "correct the host"),
    ],
)
def test_open__can_not_be_reached(guarded_url: str, change: dict[str, object], words: str) -> None:
    url = make_url(guarded_url).set(username="postgres")
    with pytest.raises(WorkspaceError) as caught:
        Catalogue.open(url.set(**change))  # type: ignore[arg-type]
    said = str(caught.value)
    assert said.startswith("catalogue postgresql+psycopg://")
    assert words in said
    assert "\n" not in said
    assert "wr0ng" not in said


def test_create__no_permission(guarded_url: str, postgres_url: str) -> None:
    url = make_url(postgres_url).set(username=GUARDED, password=PASSWORD)
    with pytest.raises(WorkspaceError, match=r"permission denied.*OWNER TO"):
        Catalogue.create(url)


def test_open__newer_schema(catalogue: Catalogue, postgres_url: str) -> None:
    with catalogue._database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for work in (Catalogue.open, Catalogue.create):
        with pytest.raises(WorkspaceError, match=r"schema 9999, which is newer .*pip install -U"):
            work(postgres_url)


def test_open__no_connection_is_left(new_role: Callable[[int], str], postgres_url: str) -> None:
    url = make_url(postgres_url).set(username=new_role(0))
    with pytest.raises(WorkspaceError, match=r"too many connections.*max_connections"):
        Catalogue.open(url)


def test_write__on_a_standby(catalogue: Catalogue) -> None:
    @event.listens_for(catalogue._database._writing, "begin")
    def _read_only(connection: object) -> None:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")  # type: ignore[attr-defined]

    with pytest.raises(WorkspaceError, match="standby"):
        catalogue.images.dataset("other")


def test_pooled_connections__ended_while_nobody_used_them(catalogue: Catalogue) -> None:
    other = Catalogue(Database(catalogue._database.engine.url))
    end_connections(other)
    assert len(catalogue.images.select()) == 8
    assert catalogue.images.skip(1, "blurry", None, "anna") is Outcome.ADDED
    other.close()


@pytest.mark.parametrize("statement", ["SELECT images", "INSERT INTO skips", "UPDATE images"])
def test_connection_dies_in_a_transaction__it_is_repeated(
    catalogue: Catalogue, statement: str
) -> None:
    other = Catalogue(Database(catalogue._database.engine.url))
    hits = []

    @event.listens_for(catalogue._database.engine, "before_cursor_execute")
    def _end(_connection: object, _cursor: object, sent: str, *_: object) -> None:
        if sent.startswith(statement) and not hits:
            hits.append(sent)
            end_connections(other)

    assert catalogue.images.skip(1, "blurry", None, "anna") is Outcome.ADDED
    assert hits
    assert len(catalogue.images.skips()) == 1
    assert catalogue.events.contradictions() == []
    other.close()


def test_connection_dies_for_good__one_line(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddiseg.catalogue.database._PAUSES", (0, 0, 0))
    other = Catalogue(Database(catalogue._database.engine.url))
    tries = []

    @event.listens_for(catalogue._database.engine, "before_cursor_execute")
    def _end(_connection: object, _cursor: object, sent: str, *_: object) -> None:
        if sent.startswith("INSERT INTO skips"):
            tries.append(sent)
            end_connections(other)

    with pytest.raises(ConnectionLostError, match=r"terminating connection.*check that"):
        catalogue.images.skip(1, "blurry", None, "anna")
    assert len(tries) == 4
    assert catalogue.images.skips() == []
    other.close()


@pytest.mark.parametrize("stored", [True, False])
def test_connection_dies_with_the_commit__not_repeated_and_safe_to_run_again(
    catalogue: Catalogue, stored: bool
) -> None:
    other, calls = Catalogue(Database(catalogue._database.engine.url)), []

    @event.listens_for(catalogue._database._writing_images, "commit")
    def _end(connection: object) -> None:
        if not calls:
            calls.append(1)
            if stored:  # the answer is lost on its way
                driver = connection.connection.dbapi_connection  # type: ignore[attr-defined]
                driver.commit()
                driver.close()
            end_connections(other)

    new = [new_mask(1, "anna")]
    with pytest.raises(UnknownOutcomeError, match="run the same command again"):
        catalogue.masks.submit(new)
    assert len(catalogue.masks.in_review()) == stored
    [outcome] = catalogue.masks.submit(new)
    assert outcome.outcome is (Outcome.UNCHANGED if stored else Outcome.ADDED)
    assert len(catalogue.masks.of_image(1)) == 1
    assert catalogue.events.contradictions() == []
    other.close()


def test_import__server_restarts_in_the_middle(own_server: Server) -> None:
    catalogue = Catalogue.create(own_server.new_database())
    dataset = catalogue.images.dataset("clinic")
    batches = [[new_image(n) for n in range(i, i + 5)] for i in range(1, 100, 5)]
    done: list[str] = []

    def add() -> None:
        for batch in batches:
            outcomes = None
            while outcomes is None:
                with suppress(UnknownOutcomeError):  # as a person does: again
                    outcomes = catalogue.images.add(dataset.id, batch, "tester")
            done.extend(o.name for o in outcomes)

    thread = threading.Thread(target=add)
    thread.start()
    while len(done) < 20:
        time.sleep(0.005)
    own_server.restart()
    thread.join(60)
    assert len(done) == 100
    assert len(catalogue.images.select()) == 100
    assert catalogue.events.contradictions() == []
    catalogue.close()


# Locks of images.


def together(*work: Callable[[], object]) -> list[object]:
    """Run functions at once; returns what each returned or raised."""
    ready = threading.Barrier(len(work))

    def run(each: Callable[[], object]) -> object:
        ready.wait()
        try:
            return each()
        except DdisegError as error:
            return error

    with ThreadPoolExecutor(len(work)) as threads:
        return list(threads.map(run, work))


def test_writers_of_different_images__side_by_side(catalogue: Catalogue) -> None:
    with catalogue._database.write([1]):
        [outcome] = catalogue.masks.submit([new_mask(2, "anna")])
    assert outcome.outcome is Outcome.ADDED


def test_writer_alone__waits_for_writers_of_images(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddiseg.catalogue.connections.BUSY_TIMEOUT", 0.05)
    for ours, theirs in (([1], None), (None, [1]), ([1], [2, 1]), (None, None)):
        with (
            catalogue._database.write(ours),
            pytest.raises(WorkspaceError, match="another ddiseg is writing"),
            catalogue._database.write(theirs),
        ):
            pytest.fail("both relied on the same rows")


def test_two_reviewers_of_one_mask__one_verdict(catalogue: Catalogue) -> None:
    for image in range(1, 9):
        catalogue.masks.submit([new_mask(image, "anna")])
        [mask] = catalogue.masks.of_image(image)
        review = partial(catalogue.masks.review, mask.id)
        ended = together(partial(review, "ben", "accept"), partial(review, "cleo", "reject"))
        assert sorted(e is None for e in ended) == [False, True]
        assert len(catalogue.masks.reviews([mask.id])) == 1
    assert catalogue.events.contradictions() == []


def test_skip_against_accept__one_of_them(catalogue: Catalogue) -> None:
    for image in range(1, 9):
        catalogue.masks.submit([new_mask(image, "anna")])
        [mask] = catalogue.masks.of_image(image)
        together(
            partial(catalogue.masks.review, mask.id, "ben", "accept"),
            partial(catalogue.images.skip, image, "blurry", None, "cleo"),
        )
    skipped = {skip.image_id for skip in catalogue.images.skips()}
    assert skipped | set(catalogue.masks.accepted()) == set(range(1, 9))
    assert not skipped & set(catalogue.masks.accepted())
    assert catalogue.events.contradictions() == []


def test_two_prelabels_of_the_same_images__each_once_and_no_deadlock(
    catalogue: Catalogue, model_id: int
) -> None:
    batch = [new_mask(n, None, model_version_id=model_id, uncertainty=0.1) for n in range(1, 9)]
    ended = together(
        lambda: catalogue.masks.add_predictions(batch),
        lambda: catalogue.masks.add_predictions(batch[::-1]),
        lambda: catalogue.masks.submit([new_mask(n, "anna") for n in (8, 1, 5)]),
    )
    added = [o for outcomes in ended[:2] for o in outcomes if o is Outcome.ADDED]  # type: ignore[attr-defined]
    assert len(added) == 8
    assert len(catalogue.masks.all()) == 11
    assert catalogue.events.contradictions() == []


@pytest.fixture
def model_id(catalogue: Catalogue) -> int:
    new = NewModelVersion("f" * 64, "unet", "b" * 64, {}, [], {}, "1.0")
    return catalogue.models.add(new, "tester").id


def test_same_photograph_from_two_importers__one_image(catalogue: Catalogue) -> None:
    dataset = catalogue.images.datasets()[0]
    batch = [new_image(n) for n in range(20, 40)]
    add = partial(catalogue.images.add, dataset.id)
    first, second = together(lambda: add(batch, "anna"), lambda: add(batch[::-1], "ben"))
    outcomes = [o.outcome for o in (*first, *second)]  # type: ignore[misc]
    assert outcomes.count(Outcome.ADDED) == outcomes.count(Outcome.UNCHANGED) == 20
    assert len(catalogue.images.select()) == 28


#: What one person does: an action, an image and the pixels of a mask.
DONE = st.lists(
    st.tuples(
        st.sampled_from(["submit", "accept", "reject", "skip", "reopen", "predict"]),
        st.integers(1, 3),
        st.sampled_from("abc"),
    ),
    max_size=10,
)


@pytest.mark.property
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(DONE, min_size=3, max_size=3))
def test_three_people_at_once_in_any_order__nothing_contradicts(
    catalogue: Catalogue, model_id: int, work: list[list[tuple[str, int, str]]]
) -> None:
    def one(person: str, action: str, image: int, pixels: str) -> None:
        masks = catalogue.masks
        if action == "submit":
            masks.submit([replace(new_mask(image, person), content_hash=digest(pixels))])
        elif action in ("accept", "reject"):
            if waiting := masks.in_review().get(image):
                masks.review(waiting.id, person, action)
        elif action == "skip":
            catalogue.images.skip(image, "blurry", None, person)
        elif action == "reopen":
            catalogue.images.reopen(image, person)
        else:
            masks.add_predictions([new_mask(image, None, model_version_id=model_id)])

    def all_of(person: str, steps: list[tuple[str, int, str]]) -> None:
        for step in steps:
            try:
                one(person, *step)
            except ConnectionLostError:
                raise
            except DdisegError:
                pass  # as the life cycle refuses it

    before = {mask.id for mask in catalogue.masks.all()}
    ended = together(*(partial(all_of, f"person {n}", steps) for n, steps in enumerate(work)))
    assert ended == [None] * 3
    masks = {mask.id: mask for mask in catalogue.masks.all()}
    assert before <= set(masks)
    assert catalogue.events.contradictions() == []
    for review in catalogue.masks.reviews(list(masks)):
        assert review.reviewer != masks[review.mask_id].annotator
