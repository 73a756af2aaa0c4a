"""Pulls that meet changes, clocks, faults and one another: nothing is lost, nothing is doubled."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from ddiseg.catalogue import AnnotationPage, Arm, NewTask, Purpose
from ddiseg.catalogue.database import Database
from ddiseg.catalogue.tables import Image
from ddiseg.errors import ServerError
from ddiseg.labelstudio import pull as pulling
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.http import as_json
from ddiseg.labelstudio.pull import Pulled, pull
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.labelstudio.studio import (
    ADDED,
    HEIGHT,
    LESION,
    REFUSED,
    REVIEWER,
    SECOND,
    SMALLER,
    UNCHANGED,
    WIDTH,
    Studio,
    box,
    endings,
    told,
)
from tests.fake_label_studio import (
    Fault,
    cut,
    done_then_cut,
    garbage,
    html,
    meanwhile,
    slow,
    status,
    truncated,
)
from tests.wording import Refusal

INK = box(slice(2, 4), slice(2, 5))


# Pages and clocks


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "PAGE", 2)


@pytest.mark.slow
@pytest.mark.parametrize("at_one_moment", [False, True])
def test_pages__a_task_that_changes_meanwhile_hides_no_other(
    studio: Studio, small_pages: None, at_one_moment: bool
) -> None:
    """Also where one statement of the server's changed more tasks than a page holds."""
    studio.add_images(7)
    studio.push()
    tasks = [studio.server.tasks[number] for number in range(1, 8)]
    for task in tasks:
        studio.submit(task.id, LESION)
    for request in range(6):
        for number in range(1, 8):
            studio.server.edit(number, result=SMALLER if request % 2 else LESION)
        for task in tasks[:-1] if at_one_moment else ():
            task.updated_at = tasks[-2].updated_at
        sprung: list[int] = []

        def change(sprung: list[int] = sprung) -> None:
            sprung.append(studio.server.edit(1))

        studio.server.misbehave("GET", "/api/tasks", meanwhile(change), skip=request)
        studio.pull()
        assert sprung
        studio.check(all_pulled=True)
    assert studio.states() == {"submitted": 7}


@pytest.mark.slow
def test_pages__borders(studio: Studio, small_pages: None) -> None:
    images = studio.add_images(5)
    studio.push()
    for task in range(1, 6):
        studio.submit(task, LESION)
    for number in range(1, 6):
        studio.server.set_clock(datetime(2030, 1, number, tzinfo=UTC))
        for annotation in range(1, number + 1):
            studio.server.edit(annotation)
        studio.pull()
        studio.check(all_pulled=True)
    assert {studio.state(image) for image in images} == {"submitted"}


@pytest.mark.slow
def test_incremental__reads_what_changed_and_no_more(studio: Studio, images: list[Image]) -> None:
    studio.server.set_clock(datetime(2030, 1, 1, tzinfo=UTC))
    studio.submit_unchanged(1)
    studio.pull()
    studio.server.set_clock(datetime(2030, 1, 1, 2, tzinfo=UTC))
    studio.submit_unchanged(2)
    before = len(studio.server.requests)
    assert told(studio.pull()) == [("2.png", ADDED)]
    asked = [r.params for r in studio.server.requests[before:] if r.path == "/api/tasks"]
    assert "2029-12-31T23:59:" in asked[0]["query"] or "2030-01-01T" in asked[0]["query"]
    assert [params["fields"] for params in asked] == ["all", "all"]
    assert "result" not in asked[0]["include"]
    studio.server.set_clock(datetime(2030, 1, 1, 4, tzinfo=UTC))
    before = len(studio.server.requests)
    assert endings(studio.pull()) == []
    asked = [r.params for r in studio.server.requests[before:] if r.path == "/api/tasks"]
    assert len(asked) == 1


@pytest.mark.slow
def test_incremental__a_change_that_became_visible_late(
    studio: Studio, images: list[Image]
) -> None:
    """A transaction that took long carries an earlier time than one that was pulled already."""
    studio.server.set_clock(datetime(2030, 1, 1, 0, 0, 40, tzinfo=UTC))
    studio.submit_unchanged(2)
    studio.pull()
    studio.server.set_clock(datetime(2030, 1, 1, 0, 0, 10, tzinfo=UTC))
    studio.submit_unchanged(1)
    studio.server.set_clock(datetime(2030, 1, 1, 0, 1, tzinfo=UTC))
    assert told(studio.pull()) == [("1.png", ADDED)]
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_clock__set_back_has_everything_read(studio: Studio, images: list[Image]) -> None:
    studio.server.set_clock(datetime(2030, 1, 1, 12, tzinfo=UTC))
    studio.submit_unchanged(1)
    assert not studio.pull().full
    studio.server.set_clock(datetime(2030, 1, 1, 10, tzinfo=UTC))
    studio.submit_unchanged(2)
    done = studio.pull()
    assert done.full
    assert told(done) == [("2.png", ADDED)]
    studio.check(all_pulled=True)


@pytest.mark.slow
@pytest.mark.parametrize("year", [2001, 2099])
def test_clock__only_the_server_s_counts(studio: Studio, year: int) -> None:
    """It is decades away from this machine's."""
    studio.server.set_clock(datetime(year, 1, 1, tzinfo=UTC))
    studio.add_images(2)
    studio.push()
    for task in (1, 2):
        studio.submit(task, LESION)
        done = studio.pull()
        assert endings(done) == [ADDED]
        assert not done.full
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_clock__server_that_does_not_tell(studio: Studio, images: list[Image]) -> None:
    studio.submit_unchanged(1)
    studio.pull()

    def without_date(exchange: Any) -> None:
        exchange.date_time_string = lambda timestamp=None: ""
        exchange.send(exchange.answer())

    studio.server.misbehave("GET", "/health", without_date)
    studio.submit_unchanged(2)
    done = studio.pull()
    assert endings(done) == [ADDED]
    assert not done.full


@pytest.mark.slow
def test_time__without_a_fraction(studio: Studio, images: list[Image]) -> None:
    """Django leaves it out where the microsecond is 0."""
    studio.server.set_clock(datetime(2030, 1, 1, 12, tzinfo=UTC))
    studio.submit_unchanged(1)
    studio.server.tasks[1].updated_at = datetime(2030, 1, 1, 12, tzinfo=UTC)
    studio.pull()
    studio.submit_unchanged(2)
    assert endings(studio.pull()) == [ADDED]
    studio.check(all_pulled=True)


# Interrupted


def work(studio: Studio) -> None:
    """Four people's deeds on the three tasks."""
    studio.submit_unchanged(1)
    studio.submit(1, LESION, SECOND)
    studio.skip(2)
    studio.submit(3, [])


def finish(studio: Studio, images: Sequence[Image]) -> None:
    """The same command again: each deed is there once."""
    studio.server.behave()
    studio.pull()
    assert studio.states() == {"submitted": 1, "skipped": 1, "in_labelling": 1}
    assert studio.versions() == [(1, "mask"), (2, "mask"), (3, "skip"), (4, "refused")]
    assert [len(studio.drawn(image)) for image in images] == [2, 0, 0]
    assert len(studio.catalogue.images.skips()) == 1
    events = [
        event.kind for image in images for event in studio.catalogue.events.of_image(image.id)
    ]
    assert (events.count("submit"), events.count("skip")) == (1, 1)
    studio.check(all_pulled=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "full"),
    [(cut(), False), (cut(), True), (truncated(), False), (garbage(), True)],
    ids=["cut", "cut, full", "truncated", "garbage, full"],
)
def test_pull__cut_at_each_request_then_again(
    studio: Studio, images: list[Image], small_pages: None, fault: Fault, full: bool
) -> None:
    work(studio)
    assert studio.interrupt(lambda: studio.pull(full=full), fault) > 5
    finish(studio, images)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [cut(), done_then_cut()], ids=["cut", "done, then cut"])
def test_pull__cut_while_it_takes_a_comment_away(
    studio: Studio, images: list[Image], fault: Fault
) -> None:
    number = studio.submit(1, LESION)
    studio.pull()
    studio.catalogue.masks.review(studio.in_review(images[0]).id, REVIEWER, "reject", "no")
    studio.push()
    studio.server.edit(number, result=SMALLER)
    studio.server.misbehave("PATCH", "/api/tasks/*", fault)
    with pytest.raises(ServerError):
        studio.pull()
    assert studio.state(images[0]) == "submitted"
    assert endings(studio.pull()) == []
    assert studio.server.tasks[1].data["review_comment"] == ""
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_pull__refused_then_again(studio: Studio, images: list[Image]) -> None:
    work(studio)
    refusals = [status(code) for code in (401, 403, 404, 500, 503)]
    for fault in (*refusals, html(), garbage(), status(200, "{}")):
        studio.server.misbehave("GET", "/api/tasks", fault, times=None)
        with pytest.raises(ServerError) as raised:
            studio.pull(full=True)
        assert "\n" not in str(raised.value)
        studio.server.behave()
        assert studio.rows("annotations") == []
        assert studio.states() == {"in_labelling": 3}
    finish(studio, images)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [status(500), status(429), cut()], ids=["500", "429", "cut"])
def test_pull__a_passing_fault_is_not_noticed(
    studio: Studio, images: list[Image], fault: Fault
) -> None:
    work(studio)
    studio.server.misbehave("GET", "/api/tasks", fault, times=2)
    finish(studio, images)


@pytest.mark.slow
def test_pull__server_too_slow_then_again(
    studio: Studio, images: list[Image], impatient: None, refusal: Refusal
) -> None:
    work(studio)
    studio.server.misbehave("GET", "/api/tasks", slow(60), times=None)
    with refusal(ServerError):
        studio.pull()
    finish(studio, images)


@pytest.mark.slow
def test_pull__server_down_then_up(studio: Studio, images: list[Image]) -> None:
    work(studio)
    studio.server.stop()
    with pytest.raises(ServerError, match="can't be reached"):
        studio.pull()
    studio.server.start()
    finish(studio, images)


@pytest.mark.slow
def test_pull__another_major_version(studio: Studio, images: list[Image], refusal: Refusal) -> None:
    work(studio)
    studio.server.version = "2.1.0"
    with refusal(ServerError):
        studio.pull()
    assert studio.rows("annotations") == []
    studio.server.version = "1.30.0"
    finish(studio, images)


@pytest.mark.slow
def test_pull__catalogue_fails_in_the_middle(
    studio: Studio, images: list[Image], small_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the process is killed: a page is stored whole, watermark included, or not at all."""
    work(studio)
    receive, pages = type(studio.catalogue.tasks).receive, []

    def receive_one(self: Any, project_id: int, page: Any) -> Any:
        if pages:
            raise KeyboardInterrupt
        pages.append(page)
        return receive(self, project_id, page)

    monkeypatch.setattr(type(studio.catalogue.tasks), "receive", receive_one)
    with pytest.raises(KeyboardInterrupt):
        studio.pull()
    assert 0 < len(studio.versions()) < 4
    studio.check()
    monkeypatch.undo()
    finish(studio, images)


# At once


def pull_too(studio: Studio) -> Pulled:
    """Somebody else pulls into the same workspace."""
    other = Workspace.open(studio.workspace.root)
    done = pull(other, studio.connection, Purpose.ANNOTATION, "other manager")
    other.catalogue.close()
    return done


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/health", "/api/users/", "/api/tasks", "/api/tasks/later"])
def test_two_pulls__one_inside_the_other(studio: Studio, images: list[Image], path: str) -> None:
    work(studio)
    seconds: list[Pulled] = []
    studio.server.misbehave(
        "GET",
        path.removesuffix("/later"),
        meanwhile(lambda: seconds.append(pull_too(studio))),
        skip=int(path.endswith("/later")),
    )
    first = studio.pull()
    assert sorted(endings(seconds[0])) == [ADDED, ADDED, ADDED, REFUSED]
    assert set(endings(first)) <= {UNCHANGED}
    finish(studio, images)


@pytest.mark.slow
def test_two_pulls__side_by_side(studio: Studio, images: list[Image]) -> None:
    work(studio)
    done: list[Pulled] = []
    both = threading.Barrier(3, timeout=60)
    studio.server.misbehave("GET", "/api/users/", meanwhile(both.wait), times=2)
    threads = [
        threading.Thread(target=lambda: done.append(pull_too(studio)), name=f"pull {n}")
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    both.wait()
    for thread in threads:
        thread.join()
    found = sorted(outcome for each in done for outcome in endings(each))
    assert [f for f in found if f != UNCHANGED] == [ADDED, ADDED, ADDED, REFUSED]
    finish(studio, images)


@pytest.mark.slow
def test_pull__while_images_are_pushed(studio: Studio, images: list[Image]) -> None:
    work(studio)
    more: list[Image] = []

    def push_more() -> None:
        more.extend(studio.add_images(2))
        studio.push(more)
        studio.submit(studio.task(more[0]), LESION)

    studio.server.misbehave("GET", "/api/tasks", meanwhile(push_more))
    studio.pull()
    studio.pull()
    assert studio.state(more[0]) == "submitted"
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_pull__adopts_what_an_interrupted_push_sent(studio: Studio) -> None:
    [image] = studio.add_images()
    studio.push([])
    studio.server.misbehave("POST", "/api/projects/*/import", done_then_cut())
    with pytest.raises(ServerError):
        studio.push()
    studio.submit(1, LESION)
    assert told(studio.pull()) == [("1.png", ADDED)]
    assert studio.state(image) == "submitted"
    studio.check(all_pulled=True)


@pytest.mark.slow
def test_pull__adopted_task_that_was_annotated_long_before_the_newest_change(
    studio: Studio, images: list[Image]
) -> None:
    """Its annotation went by unknown, while the watermark went on."""
    start = datetime(2030, 1, 1, tzinfo=UTC)
    studio.server.set_clock(start)
    [image] = studio.add_images()
    studio.push()
    number = studio.task(image)
    [task] = [t for t in studio.tasks() if t.image_id == image.id]
    studio.catalogue.tasks.update_task(task.id, remote_id=None)  # the answer is still on its way
    studio.submit(number, LESION)
    studio.server.set_clock(start + timedelta(hours=1))
    studio.submit_unchanged(1)
    studio.catalogue.tasks.receive(
        studio.project(), AnnotationPage([], {}, "2030-01-01T01:00:00.000000Z")
    )
    studio.pull()
    assert studio.state(image) == "submitted"
    studio.check(all_pulled=True)


# Many


def add_many_images(studio: Studio, n: int) -> None:
    """New images without a file. Through the catalogue it takes longer than all that is tested."""
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n})"
    database: Database = studio.catalogue.tasks._database
    with database.write() as session:
        for statement in (
            "INSERT INTO images (id, dataset_id, name, content_hash, perceptual_hash, width, height,"
            f" tone, state, created_at) {numbers} SELECT i, 1, i || '.png', printf('%016x%048x', i, i),"
            " printf('%016x', i), 8, 6, 'unknown', 'new', '' FROM n",
            "INSERT INTO events (at, kind, actor, image_id, state_after, detail)"
            f" {numbers} SELECT '', 'import', 'manager', i, 'new', '{{}}' FROM n",
        ):
            session.execute(text(statement))


@pytest.mark.slow
def test_pull__thousands_of_tasks(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has them, though its responses were lost; forty are annotated."""
    monkeypatch.setattr(pulling, "PAGE", 200)
    n = 2_000
    add_many_images(studio, n)
    studio.push([])
    batch = [
        NewTask(image.content_hash[:16], image.id, None, Arm.BARE, WIDTH, HEIGHT)
        for image in studio.catalogue.images.select()
    ]
    studio.catalogue.tasks.plan(studio.project(), batch, "manager", {})
    with Client(studio.connection) as client:
        client.plain.import_tasks(
            1,
            [
                as_json({"data": {"image": "x", "ddiseg": new.key, "review_comment": ""}})
                for new in batch
            ],
        )
    annotated = range(1, n + 1, n // 40)
    for task in annotated:
        studio.submit(task, LESION)
    before = len(studio.server.requests)
    done = studio.pull()
    assert done.full
    assert endings(done) == [ADDED] * len(annotated)
    assert len(studio.server.requests) - before < 50, "a few per page of tasks or of keys"
    assert studio.states() == {"submitted": len(annotated), "in_labelling": n - len(annotated)}
    before = len(studio.server.requests)
    assert endings(studio.pull()) == []
    assert len(studio.server.requests) - before < 20
    assert len(studio.server.tasks) == n
    studio.check(all_pulled=True)
