from __future__ import annotations

import builtins
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ddiseg.catalogue import Arm, JobKind, Purpose
from ddiseg.model.predict import Predictor
from ddiseg.outcomes import FileOutcome, Outcome
from ddiseg.server import predictions
from ddiseg.server.predictions import BEGUN, BUDGET, QUEUED, UNKNOWN, WITHHELD
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.server.conftest import Served, until
from tests.ddiseg.server.desk import SIZE, Desk, asked, painted, predict_request

pytestmark = pytest.mark.both_databases

Serve = Callable[[Workspace], Served]


def _reasons(answer: dict[str, Any]) -> list[str]:
    return [entry["reason"] for entry in answer["unanswered"]]


@pytest.mark.training
def test_stored__regions_of_the_mask_at_the_size_of_the_copy(desk: Desk, served: Served) -> None:
    images = desk.add_images(2)
    mask = desk.predict(images, lesion=10 * SIZE)[0]
    tasks = desk.give(images, Arm.PREDICTED, mask, size=SIZE // 2)
    answer = served.predict(*map(asked, tasks))
    first, second = answer["results"]
    assert painted(first["result"]).shape == (SIZE // 2, SIZE // 2)
    assert (painted(first["result"])[:5] == 1).all()
    assert (painted(first["result"])[5:] == 4).all()
    assert first["result"][0]["id"].startswith(mask.content_hash[:16])
    assert first["model_version"] == second["model_version"] == "ddiseg"
    assert 0 < first["score"] < 1
    assert answer["unanswered"] == []


@pytest.mark.training
def test_stored__in_the_order_of_the_request(desk: Desk, served: Served) -> None:
    images = desk.add_images(3)
    for number, image in enumerate(images):
        desk.predict([image], lesion=10 * (number + 1))
    tasks = desk.give(images)
    request = predict_request(*(asked(tasks[i]) for i in (2, 0, 1)))
    results = served.post("/predict", request).json()["results"]
    assert [(painted(r["result"]) == 1).sum() for r in results] == [30, 10, 20]


@pytest.mark.training
def test_bare__becomes_painted_in_the_catalogue(desk: Desk, served: Served) -> None:
    task, mask = desk.given(Arm.BARE)
    served.post("/predict", predict_request(asked(task)))
    now = desk.task(task.remote_id or 0)
    assert (now.arm, now.mask_id) == (Arm.PREDICTED, mask.id)


@pytest.mark.training
@pytest.mark.parametrize("counted", ["total_annotations", "cancelled_annotations"])
def test_bare_and_begun__stays_as_it_was(desk: Desk, served: Served, counted: str) -> None:
    task, _ = desk.given(Arm.BARE)
    answer = served.predict(asked(task, **{counted: 1}))
    assert answer["results"] == [[]]
    assert _reasons(answer) == [BEGUN]
    assert desk.task(task.remote_id or 0).arm == Arm.BARE


@pytest.mark.training
def test_bare_and_handed_in__stays_as_it_was(desk: Desk, served: Served) -> None:
    images = desk.add_images(1)
    (task,) = desk.give(images)
    desk.predict(images)
    desk.accept(images[0], 0)
    answer = served.predict(asked(task))
    assert _reasons(answer) == [BEGUN]
    assert desk.task(task.remote_id or 0).arm == Arm.BARE


@pytest.mark.training
@pytest.mark.parametrize(("begun", "shown"), [(1, 10), (0, 20)], ids=["begun", "not begun"])
def test_predicted__shows_the_newest_unless_somebody_began(
    desk: Desk, served: Served, begun: int, shown: int
) -> None:
    images = desk.add_images(1)
    (old,) = desk.predict(images, lesion=10)
    (task,) = desk.give(images, Arm.PREDICTED, old)
    (new,) = desk.predict(images, lesion=20)
    answer = served.predict(asked(task, total_annotations=begun))
    assert (painted(answer["results"][0]["result"]) == 1).sum() == shown
    assert desk.task(task.remote_id or 0).mask_id == (old.id if begun else new.id)


@pytest.mark.training
def test_rework__shows_the_persons_mask(desk: Desk, served: Served) -> None:
    images = desk.add_images(1)
    desk.accept(images[0], 0)
    person = desk.workspace.catalogue.masks.accepted()[images[0].id]
    desk.workspace.catalogue.images.reopen(images[0].id, "manager")
    (task,) = desk.give(images, Arm.PREDICTED, person)
    desk.predict(images)
    answer = served.predict(asked(task))
    region = answer["results"][0]["result"][0]
    assert region["id"].startswith(person.content_hash[:16])


@pytest.mark.training
def test_control_arm__is_withheld(desk: Desk, served: Served) -> None:
    task, _ = desk.given(Arm.CONTROL)
    answer = served.predict(asked(task))
    assert answer["results"] == [[]]
    assert _reasons(answer) == [WITHHELD]
    assert desk.task(task.remote_id or 0).arm == Arm.CONTROL


def test_unknown_tasks__do_not_fail_the_others(desk: Desk, served: Served) -> None:
    images = desk.add_images(2)
    (mask, _) = desk.predict(images)
    stranger, known = desk.give(images, Arm.PREDICTED, mask)
    changes: list[dict[str, Any]] = [
        *({"id": number} for number in (999, known.remote_id, "101", 2**70, True, None)),
        *({"project": number} for number in (8, "3", 3.5)),
        *({"data": data} for data in ({}, ["ddiseg"], None, {"ddiseg": 7}, {"ddiseg": "f" * 16})),
    ]
    strangers = [asked(stranger, **change) for change in changes]
    answer = served.post("/predict", predict_request(*strangers, asked(known))).json()
    assert answer["results"][:-1] == [[]] * len(changes)
    assert answer["results"][-1]["result"]
    assert _reasons(answer) == [UNKNOWN] * len(changes)


@pytest.mark.training
def test_wrong_project__of_the_request(desk: Desk, served: Served) -> None:
    task, _ = desk.given()
    request = predict_request(asked(task, project=None))
    assert served.post("/predict", request).json()["results"][0]["result"]
    for project in ("8.1795406531", "", "three", "3" * 50, None):
        answer = served.post("/predict", {**request, "project": project}).json()
        assert _reasons(answer) == [UNKNOWN]


@pytest.mark.training
def test_review_project__shows_people_s_masks_only(desk: Desk, served: Served) -> None:
    images = desk.add_images(1)
    (mask,) = desk.predict(images)
    (task,) = desk.give(images, Arm.PREDICTED, mask, Purpose.REVIEW)
    answer = served.predict(asked(task, project=4))
    assert _reasons(answer) == [UNKNOWN]


def test_task_deleted_on_the_server__is_unknown(desk: Desk, served: Served) -> None:
    task, _ = desk.given(Arm.BARE)
    desk.workspace.catalogue.tasks.mark_deleted([task.id], "manager")
    answer = served.predict(asked(task))
    assert _reasons(answer) == [UNKNOWN]


@pytest.mark.training
def test_paths_and_addresses_in_a_task__are_never_opened(
    desk: Desk, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, _ = desk.given()
    opened: list[str] = []
    real = builtins.open

    def watching(file: Any, *args: Any, **kwargs: Any) -> Any:
        opened.append(str(file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", watching)
    monkeypatch.setattr(io, "open", watching)  # of pathlib
    for address in ("../../../../etc/passwd", "file:///etc/passwd", "http://127.0.0.1:1/x.png"):
        for key in (task.key, address):
            request = predict_request(asked(task, data={"image": address, "ddiseg": key}))
            assert served.post("/predict", request).status_code == 200
    assert opened  # the mask's file at least
    assert [path for path in opened if "passwd" in path or "x.png" in path] == []


@pytest.mark.training
def test_mask_missing_from_the_store__says_so(desk: Desk, served: Served) -> None:
    task, mask = desk.given(Arm.BARE)
    path = desk.workspace.store.path(Kind.MASK, mask.content_hash)
    Path(path).unlink()
    answer = served.predict(asked(task))
    assert answer["results"] == [[]]
    assert "the stored file is missing" in _reasons(answer)[0]
    assert desk.task(task.remote_id or 0).arm == Arm.BARE


def test_no_model__says_what_to_do(desk: Desk, served: Served) -> None:
    (task,) = desk.give(desk.add_images(1))
    answer = served.predict(asked(task))
    assert "no model yet" in _reasons(answer)[0]
    assert desk.workspace.catalogue.jobs.waiting() == 0


@pytest.mark.training
def test_missing__is_computed_and_catalogued(trained: Desk, serve: Serve) -> None:
    images = list(trained.workspace.catalogue.images.select())[4:]
    tasks = trained.give(images)
    served = serve(trained.workspace)
    answer = served.predict(*map(asked, tasks))
    stored = trained.workspace.catalogue.masks.newest_predictions()
    for image, result in zip(images, answer["results"], strict=True):
        expected = trained.workspace.mask(stored[image.id])
        assert (painted(result["result"]) == expected).all()
    assert served.metric('ddiseg_predictions_total{how="computed"}') == 2
    assert served.predict(*map(asked, tasks)) == answer
    assert served.metric('ddiseg_predictions_total{how="stored"}') == 2


@pytest.mark.training
def test_missing__beyond_the_budget_is_queued_and_then_painted(
    trained: Desk, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = list(trained.workspace.catalogue.images.select())[4:]
    tasks = trained.give(images)
    served = serve(trained.workspace)
    monkeypatch.setattr("ddiseg.server.app.BUDGET", 0.0)
    answer = served.predict(*map(asked, tasks))
    assert answer["results"] == [[], []]
    assert _reasons(answer) == [QUEUED] * 2
    until(lambda: len(trained.workspace.catalogue.masks.newest_predictions()) == 2)
    until(lambda: served.metric('ddiseg_jobs_total{kind="paint",outcome="done"}') == 1)
    answer = served.predict(*map(asked, tasks))
    assert all(result["result"] for result in answer["results"])


@pytest.mark.training
def test_missing__its_photograph_too(trained: Desk, serve: Serve) -> None:
    images = list(trained.workspace.catalogue.images.select())[4:]
    tasks = trained.give(images)
    store = trained.workspace.store
    Path(store.path(Kind.IMAGE, images[0].content_hash)).unlink()
    served = serve(trained.workspace)
    answer = served.predict(*map(asked, tasks))
    assert answer["results"][0] == []
    assert answer["results"][1]["result"]
    assert "the stored file is missing" in _reasons(answer)[0]


class _SlowPredictor:
    """Predicts nothing; each image takes a hundredth of a second of a clock that it moves itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parts: list[int] = []
        self.now = 0.0
        monkeypatch.setattr(predictions, "time", SimpleNamespace(monotonic=lambda: self.now))

    def predict(self, images: list[Any]) -> list[FileOutcome]:
        self.parts.append(len(images))
        self.now += 0.01 * len(images)
        return [FileOutcome(image.name, Outcome.ADDED) for image in images]


@pytest.mark.parametrize(
    ("budget", "parts"),
    [(0.005, [1]), (0.035, [1, 2]), (0.105, [1, 2, 4, 3]), (10, [1, 2, 4, 8, 16, 32, 37])],
)
def test_predict_until__takes_no_more_than_there_is_time_for(
    monkeypatch: pytest.MonkeyPatch, desk: Desk, budget: float, parts: list[int]
) -> None:
    predictor = _SlowPredictor(monkeypatch)
    images = [SimpleNamespace(id=n, name=f"{n}.png") for n in range(100)]
    predictions._predict_until(predictor, images, budget)  # type: ignore[arg-type]
    assert predictor.parts == parts


class _Refusing:
    """Can't open the photographs of the images that it has a reason for, by id."""

    def __init__(self, reasons: dict[int, str]) -> None:
        self.reasons, self.asked_for = reasons, list[int]()

    def predict(self, images: list[Any]) -> list[FileOutcome]:
        self.asked_for += [image.id for image in images]
        return [
            FileOutcome(i.name, Outcome.REFUSED, self.reasons[i.id])
            if i.id in self.reasons
            else FileOutcome(i.name, Outcome.ADDED)
            for i in images
        ]


def test_predict_until__why_goes_to_its_image_where_two_have_one_name() -> None:
    names = {1: "a.png", 2: "b.png", 3: "x.png", 4: "x.png", 5: "x.png", 6: "c.png"}
    images = [SimpleNamespace(id=number, name=name) for number, name in names.items()]
    predictor = _Refusing({3: "is missing", 4: "is damaged"})
    why = predictions._predict_until(predictor, images, time.monotonic() + 100)  # type: ignore[arg-type]
    assert why == predictor.reasons
    assert sorted(predictor.asked_for) == list(names)


@pytest.mark.training
def test_model_busy__is_told_in_time(
    trained: Desk, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = trained.give(list(trained.workspace.catalogue.images.select())[4:])
    served = serve(trained.workspace)
    monkeypatch.setattr("ddiseg.server.app.BUDGET", 0.5)
    with served.backend.model.predictor():
        answer = served.predict(*map(asked, tasks))
    assert "busy" in _reasons(answer)[0]


@pytest.mark.training
def test_thousands_of_tasks__are_answered_piece_by_piece(desk: Desk, served: Served) -> None:
    task, _ = desk.given()
    tasks = [predictions.RequestedTask(**asked(task)) for _ in range(2_000)]
    findings, left = served.backend.predictions.find(
        "3.1", tasks, deadline=time.monotonic() + BUDGET
    )
    assert not left
    one = len(json.dumps(served.predict(asked(task))))
    pieces = served.backend.predictions.answer(tasks[:200], findings[:200])
    longest, whole = 0, b""
    for piece in pieces:
        longest, whole = max(longest, len(piece)), whole + piece
    assert len(json.loads(whole)["results"]) == 200
    assert longest < 20 * one


def test_too_many_tasks__are_refused(served: Served) -> None:
    body = b'{"tasks": [' + b"{}," * 20_000 + b"{}]}"
    answer = served.send("/predict", body)
    assert answer.status_code == 400
    assert "tasks" in answer.json()["detail"]


@pytest.mark.training
def test_many_unknown_tasks__in_one_call(served: Served) -> None:
    body = json.dumps({"tasks": [{"id": n} for n in range(6_000)]}, separators=(",", ":")).encode()
    answer = served.send("/predict", body)
    assert answer.json()["results"] == [[]] * 6_000


def test_garbage__is_refused(served: Served) -> None:
    for body in (b"", b"{", b"[]", b'{"tasks": 5}', b'{"tasks": [5]}', b"\xff", b"[" * 10_000):
        answer = served.send("/predict", body)
        assert answer.status_code == 400
        assert "not as expected" in answer.json()["detail"]


def test_recorded_request__of_a_stranger(served: Served, recorded: dict[str, Any]) -> None:
    answer = served.post("/predict", recorded["/predict"]["body"])
    assert answer.status_code == 200
    assert answer.json()["results"] == [[]]


def test_recorded_request__of_ours(desk: Desk, served: Served, recorded: dict[str, Any]) -> None:
    task, mask = desk.given()
    body = json.loads(json.dumps(recorded["/predict"]["body"]))
    body["tasks"][0] |= {"id": task.remote_id, "project": 3}
    body["tasks"][0]["data"]["ddiseg"] = task.key
    (result,) = served.post("/predict", body).json()["results"]
    assert (painted(result["result"]) == desk.workspace.mask(mask)).all()


def test_model_cache__is_loaded_once_a_version(
    trained: Desk, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    real = Predictor.load.__func__  # type: ignore[attr-defined]

    def load(cls: Any, workspace: Workspace, **options: Any) -> Predictor:
        predictor: Predictor = real(cls, workspace, **options)
        loaded.append(predictor.version.name)
        return predictor

    monkeypatch.setattr(Predictor, "load", classmethod(load))
    model = serve(trained.workspace).backend.model
    for _ in range(2):
        with model.predictor() as predictor:
            assert predictor.version.name == "fedd-1"
    assert loaded == ["fedd-1"]


def test_job_kinds__are_all_done_by_somebody(served: Served) -> None:
    assert set(served.backend.worker._do) == set(JobKind)
