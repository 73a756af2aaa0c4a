"""Pushes that go wrong: the same command again, and every image is there once."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from ddiseg.catalogue.tables import Image
from ddiseg.errors import InputError, ServerError
from ddiseg.labelstudio import push, upload
from ddiseg.labelstudio.client import Client
from ddiseg.labelstudio.http import as_json
from ddiseg.labelstudio.push import PushOptions
from ddiseg.workspace.store import Kind
from ddiseg.workspace.verify import verify
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.labelstudio.studio import (
    ADDED,
    HEIGHT,
    LESION,
    REFUSED,
    SECOND,
    UNCHANGED,
    WIDTH,
    Studio,
    endings,
    notes,
    photograph,
    told,
)
from tests.fake_label_studio import (
    FakeLabelStudio,
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
from tests.logs import logged
from tests.wording import Refusal

IMPORT = "/api/projects/*/import"


# Missing and changed photographs


@pytest.mark.training
def test_photograph__missing_ones_are_refused_and_sent_by_the_next_push(studio: Studio) -> None:
    images = studio.add_images(3)
    path = Path(studio.workspace.store.path(Kind.IMAGE, images[1].content_hash))
    data = path.read_bytes()
    path.unlink()
    done = studio.push()
    assert sorted(told(done)) == [("1.png", ADDED), ("2.png", REFUSED), ("3.png", ADDED)]
    [note] = notes(done)
    assert note.startswith("2.png: the stored file is missing")
    assert studio.states() == {"in_labelling": 2, "new": 1}
    path.write_bytes(data)
    assert sorted(told(studio.push())) == [
        ("1.png", UNCHANGED),
        ("2.png", ADDED),
        ("3.png", UNCHANGED),
    ]
    assert studio.states() == {"in_labelling": 3}
    studio.check()


@pytest.mark.training
def test_photograph__replaced_on_disk(studio: Studio, tmp_path: Path) -> None:
    """What was pushed is pulled; what was not pushed yet is refused; verify names both."""
    pushed = studio.add_images(in_place=tmp_path / "pushed.png")[0]
    studio.push()
    waiting = studio.add_images(in_place=tmp_path / "waiting.png")[0]
    for name in ("pushed.png", "waiting.png"):
        Pillow.new("RGB", (WIDTH, HEIGHT), "red").save(tmp_path / name)
    studio.submit(studio.task(pushed), LESION)
    done = studio.push()
    assert told(done) == [("2.png", REFUSED), ("1.png", UNCHANGED)]
    assert notes(done) == [
        f"2.png: {tmp_path / 'waiting.png'} was changed after it was imported --in-place"
    ]
    assert told(studio.pull()) == [("1.png", ADDED)]
    assert studio.state(pushed) == "submitted"
    assert studio.state(waiting) == "new"
    problems = [problem.line for problem in verify(studio.workspace).problems]
    assert [line.split(":")[0] for line in problems] == ["1.png", "2.png"]
    studio.check(all_pulled=True)


def test_photograph__empty_copy_left_by_a_full_disk_is_written_again(studio: Studio) -> None:
    image = studio.add_images()[0]
    assert studio.connection.media is not None
    (studio.connection.media / "images").mkdir(parents=True)
    name = f"{image.content_hash[:32]}-8x6.png"
    (studio.connection.media / "images" / name).touch()
    studio.push()
    [copy] = studio.copies()
    assert copy.stat().st_size > 0


# A team's server


@pytest.mark.training
def test_team__pictures_are_uploaded_once(team: Studio) -> None:
    images = team.add_images(3)
    team.predict(images)
    team.server.misbehave("POST", IMPORT, cut(), skip=3)
    with pytest.raises(ServerError):
        team.push()
    assert (len(team.server.uploads), len(team.server.tasks)) == (3, 0)
    assert sorted(told(team.push())) == [(f"{n}.png", ADDED) for n in (1, 2, 3)]
    assert len(team.server.uploads) == 3
    for image in images:
        shown = team.server.tasks[team.task(image)].data["image"]
        [upload] = [u for u in team.server.uploads.values() if f"/data/{u.file}" == shown]
        with Pillow.open(io.BytesIO(upload.content)) as picture:
            np.testing.assert_array_equal(np.asarray(picture), photograph(image.id))
    assert endings(team.push()) == [UNCHANGED] * 3
    assert len(team.server.uploads) == 3
    team.check()


@pytest.mark.training
def test_team__with_a_personal_access_token(team: Studio) -> None:
    [image] = team.add_images()
    team.connection = replace(team.connection, token=team.server.pat)
    team.push()
    team.submit(team.task(image), LESION)
    team.pull()
    assert team.state(image) == "submitted"
    assert team.server.count("POST", "/api/token/refresh/") == 2
    team.check(all_pulled=True)


# Interrupted


def plan(studio: Studio) -> list[Image]:
    """Five images, of which the first three have a prediction."""
    images = studio.add_images(5)
    studio.predict(images[:3])
    return images


def finish(studio: Studio, images: Sequence[Image]) -> None:
    """The same command again: every image is there, once, painted as it should be."""
    studio.server.behave()
    done = studio.push(images)
    assert sorted(o.name for o in done.outcomes) == [f"{n}.png" for n in range(1, 6)]
    assert REFUSED not in endings(done)
    assert len(studio.server.tasks) == 5
    assert studio.states() == {"in_labelling": 5}
    for number, image in enumerate(images):
        painted = studio.painted(studio.task(image))
        assert (painted is not None) == (number < 3)
    studio.check()
    assert endings(studio.push(images)) == [UNCHANGED] * 5


@pytest.mark.training
@pytest.mark.parametrize(
    "fault",
    [cut(), done_then_cut(), truncated(), garbage()],
    ids=["cut", "done, then cut", "truncated", "garbage"],
)
def test_push__cut_at_each_batch_then_again(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr(upload, "BATCH", 1)
    images = plan(studio)
    for skip in (0, 1, 1):  # what got through before is not sent again
        studio.server.misbehave("POST", IMPORT, fault, skip=skip)
        with pytest.raises(ServerError) as raised:
            studio.push()
        assert "run the same command again" in str(raised.value)
        studio.check()
        studio.server.behave()
    finish(studio, images)


@pytest.mark.training
@pytest.mark.parametrize("fault", [cut(), done_then_cut()], ids=["cut", "done, then cut"])
def test_push__cut_at_each_request_then_again(studio: Studio, fault: Fault) -> None:
    images = plan(studio)
    assert studio.interrupt(lambda: studio.push(images, readers=2), fault) > 5
    assert {task.overlap for task in studio.server.tasks.values()} == {2}
    finish(studio, images)


@pytest.mark.training
def test_push__refused_import_then_again(studio: Studio) -> None:
    images = plan(studio)
    refusals = [status(code) for code in (401, 403, 404, 413, 500, 503)]
    for sent, fault in enumerate((*refusals, html()), 1):
        studio.server.misbehave("POST", IMPORT, fault)
        with pytest.raises(ServerError):
            studio.push()
        assert studio.server.count("POST", IMPORT) == sent
        assert not studio.server.tasks
        assert studio.states() == {"prelabelled": 3, "new": 2}
    finish(studio, images)


@pytest.mark.training
def test_push__server_busy(studio: Studio, naps: list[float]) -> None:
    images = plan(studio)
    busy = status(429, headers={"Retry-After": "2"})
    studio.server.misbehave("POST", IMPORT, busy, times=3)
    studio.push()
    assert naps == [2, 2, 2]
    finish(studio, images)


@pytest.mark.training
def test_push__server_too_slow(studio: Studio, impatient: None, refusal: Refusal) -> None:
    images = plan(studio)
    studio.server.misbehave("POST", IMPORT, slow(60))
    with refusal(ServerError) as raised:
        studio.push()
    assert "the next run looks before it sends" in str(raised.value)
    assert studio.server.count("POST", IMPORT) == 1
    assert len(studio.server.tasks) == 5
    finish(studio, images)
    assert studio.server.count("POST", IMPORT) == 1


@pytest.mark.training
def test_push__server_down_then_up(studio: Studio) -> None:
    images = plan(studio)
    studio.server.stop()
    with pytest.raises(ServerError, match="can't be reached") as raised:
        studio.push()
    assert studio.server.url in str(raised.value)
    studio.server.start()
    finish(studio, images)


@pytest.mark.training
def test_push__another_major_version_touches_nothing(studio: Studio, refusal: Refusal) -> None:
    images = plan(studio)
    studio.server.version = "2.0.0"
    with refusal(ServerError):
        studio.push()
    assert [r.method for r in studio.server.requests] == ["GET"]
    assert studio.rows("tasks") == []
    studio.server.version = "1.23.2"
    finish(studio, images)


@pytest.mark.training
def test_push__wrong_url(studio: Studio, refusal: Refusal) -> None:
    images = plan(studio)
    right = studio.connection
    studio.connection = replace(right, url=f"{right.url}/labels", embedded=False)
    with refusal(ServerError):
        studio.push()
    assert studio.rows("tasks") == []
    studio.connection = right
    finish(studio, images)


@pytest.mark.training
def test_push__server_makes_fewer_tasks_than_it_was_sent(studio: Studio, refusal: Refusal) -> None:
    images = plan(studio)
    few = '{"task_ids": [1, 2], "prediction_count": 2}'
    studio.server.misbehave("POST", IMPORT, status(201, few))
    with refusal(ServerError):
        studio.push()
    assert studio.tasks() == []
    finish(studio, images)


def strip_predictions(server: FakeLabelStudio) -> None:
    for task in server.tasks.values():
        for prediction in task.predictions:
            del server.predictions[prediction.id]
        task.predictions.clear()


@pytest.mark.training
def test_push__killed_between_tasks_and_their_predictions(studio: Studio) -> None:
    images = plan(studio)
    studio.server.misbehave("POST", IMPORT, done_then_cut())
    with pytest.raises(ServerError):
        studio.push()
    strip_predictions(studio.server)
    assert studio.interrupt(studio.push, cut()) > 5
    finish(studio, images)


@pytest.mark.training
def test_push__server_says_that_it_painted_fewer(studio: Studio) -> None:
    images = plan(studio)

    def unpainted(exchange: Any) -> None:
        answer = exchange.answer()
        strip_predictions(studio.server)
        body = answer.body.replace(b'"prediction_count":3', b'"prediction_count":0')
        assert body != answer.body
        exchange.send(replace(answer, body=body))

    studio.server.misbehave("POST", IMPORT, unpainted)
    studio.push()
    finish(studio, images)


# Twice


def double(studio: Studio, number: int) -> int:
    """The same task once more, as another client's import makes it."""
    task = studio.server.tasks[number]
    with Client(studio.connection) as client:
        [made], _ = client.plain.import_tasks(task.project.id, [as_json({"data": dict(task.data)})])
    return made


def forget(studio: Studio) -> None:
    """The catalogue is as it was before the server answered."""
    for task in studio.tasks():
        studio.catalogue.tasks.update_task(task.id, remote_id=None)


@pytest.mark.training
@pytest.mark.parametrize("begun", ["first", "second", "neither"])
def test_doubled_task__the_one_that_people_began_stays(studio: Studio, begun: str) -> None:
    images = studio.add_images()
    studio.predict(images)
    studio.push()
    second = double(studio, 1)
    if begun != "neither":
        studio.submit(1 if begun == "first" else second, LESION)
    forget(studio)
    studio.push()
    assert list(studio.server.tasks) == [second if begun == "second" else 1]
    assert studio.painted(studio.task(images[0])) is not None
    studio.check()


@pytest.mark.training
def test_doubled_task__people_worked_on_both(studio: Studio) -> None:
    images = studio.add_images()
    studio.push()
    second = double(studio, 1)
    studio.submit(1, LESION)
    studio.submit(second, LESION, SECOND)
    forget(studio)
    for attempt in (studio.push, studio.pull):
        with pytest.raises(InputError) as raised:
            attempt()
        links = f"{studio.link(1)} and {studio.link(second)}"
        assert str(raised.value) == (
            f"{links} are the same image and people worked on both: delete one of them"
        )
    studio.server.delete_task(second)
    studio.pull()
    assert studio.state(images[0]) == "submitted"
    studio.check(all_pulled=True)


@pytest.mark.training
def test_two_pushes_at_once__one_task_an_image(studio: Studio) -> None:
    images = plan(studio)
    waits = threading.Event()
    second: list[push.Pushed] = []

    def push_too() -> None:
        other = Workspace.open(studio.workspace.root)
        chosen = other.catalogue.images.select()
        second.append(push.push(other, studio.connection, chosen, PushOptions(), "other manager"))
        other.catalogue.close()

    def begin_another() -> None:
        thread.start()
        assert waits.wait(timeout=60), "the second does not wait for the first"

    thread = threading.Thread(target=push_too)
    studio.server.misbehave("POST", IMPORT, meanwhile(begin_another))
    with logged(lambda line: "another push" in line and waits.set()):
        first = studio.push()
        thread.join()
    assert endings(first) == [ADDED] * 5
    assert endings(second[0]) == [UNCHANGED] * 5
    assert studio.server.count("POST", IMPORT) == 1
    finish(studio, images)


# Secrets


@pytest.mark.training
def test_token__is_nowhere(team: Studio, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    tokens = [team.server.token, team.server.pat]
    for token in tokens:
        team.connection = replace(team.connection, token=token)
        assert token not in repr(team.connection)
        [image] = team.add_images()
        team.server.misbehave("POST", IMPORT, done_then_cut())
        with pytest.raises(ServerError) as raised:
            team.push([image])
        assert token not in str(raised.value)
        team.push([image])
        team.submit(team.task(image), LESION)
        team.pull()
    team.workspace.catalogue.close()
    files = [path for path in team.workspace.root.rglob("*") if path.is_file()]
    assert any(path.name == "catalogue.sqlite" for path in files)
    for token in tokens:
        assert [path for path in files if token.encode() in path.read_bytes()] == []
        assert token not in caplog.text
