"""One long conversation with a Label Studio, and what it answered: the fake's likeness, on trial.

`recording.json` is what the real 1.23.2 answered. To record another one (it makes a project and
deletes it; needs a server that serves no other purpose just then):

    python -m tests.fake_label_studio.conversation URL TOKEN > tests/fake_label_studio/recording.json
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

from tests.fake_label_studio.conversation_backends import talk_of_backends
from tests.fake_label_studio.talk import Talk, filters

#: The project that a conversation makes, and deletes at its end.
TITLE = "likeness of the fake server"

CONFIG = (
    '<View><Header value="$review_comment"/>'
    '<BrushLabels name="mask" toName="image"><Label value="lesion"/><Label value="skin"/></BrushLabels>'
    '<Choices name="skip_reason" toName="image" choice="single"><Choice value="blurry"/></Choices>'
    '<TextArea name="note" toName="image"/><Image name="image" value="$image"/></View>'
)

RECORDING = Path(__file__).with_name("recording.json")


def region(label: str = "lesion", number: str = "r1") -> dict[str, Any]:
    """One painted region of a picture of 4 x 4 pixels."""
    return {
        "id": number,
        "type": "brushlabels",
        "from_name": "mask",
        "to_name": "image",
        "original_width": 4,
        "original_height": 4,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": [0, 0, 0, 64, 1, 2, 3], "brushlabels": [label]},
    }


def converse(url: str, token: str) -> list[list[Any]]:
    """Talk about everything that sync code relies on; returns what was heard."""
    talk = Talk(url, token)
    for path in ("/health", "/api/version", "/api/current-user/whoami", "/api/users/"):
        talk.ask("GET", path)
    project = talk.ask("POST", "/api/projects/", {"title": TITLE, "label_config": CONFIG})["id"]
    try:
        _refusals(talk, project)
        numbers = _imports(talk, project)
        _uploads(talk, project)
        _lists(talk, project, numbers)
        _filters(talk, project, numbers)
        _annotations(talk, project, numbers)
        _predictions(talk, numbers)
        _changes(talk, project, numbers)
        _tabs(talk, project, numbers)
        talk_of_backends(talk, project)
        # Last: once it deleted a project, 1.23.2 forgets what it does for backends.
        _home(talk, project)
    finally:
        talk.ask("DELETE", f"/api/projects/{project}/")
    talk.ask("GET", f"/api/projects/{project}/")
    return talk.heard


def _refusals(talk: Talk, project: int) -> None:
    for token in ("Token wrong", "Bearer wrong", "nothing"):
        talk.ask("GET", "/api/projects/", authorization=token)
    talk.ask("POST", "/api/token/refresh/", {"refresh": "wrong"})
    talk.ask("POST", "/api/token/refresh/", {})
    for settings in ({"title": "x"}, {"title": "x" * 51}, {"label_config": "<View>"}, [1]):
        talk.ask("POST", "/api/projects/", settings)
    for path in ("/api/nothing", "/api/tasks/abc/", "/api/current-user/whoami/"):
        talk.ask("GET", path)
    for path in ("tasks", "annotations", "predictions", "projects", "dm/views"):
        talk.ask("GET", f"/api/{path}/999999999/")
    talk.ask("PUT", "/api/users/", {})
    talk.ask("GET", "/api/projects/", page=999)
    talk.ask("GET", "/api/projects/", ids="x")
    found = talk.ask("GET", "/api/projects/", ids=project, include="id,title")
    talk.hear("projects by id", [sorted(entry) for entry in found["results"]])
    talk.ask("GET", "/api/projects/", title=TITLE[3:].upper(), page_size=1)
    talk.ask("GET", f"/api/projects/{project}/")
    talk.ask("GET", "/api/storages/localfiles/", project=project)
    talk.ask("GET", "/api/storages/localfiles/", project=999999999)
    talk.ask("GET", "/api/storages/localfiles/")
    talk.ask("POST", "/api/storages/localfiles/", {"project": project, "title": "no path"})


def _imports(talk: Talk, project: int) -> list[int]:
    path = f"/api/projects/{project}/import"
    items = [
        {
            "data": {"image": f"{i}.png", "key": f"k{i}", "n": i, "who": "annotator-1" + "0" * i},
            "meta": {"i": i},
            "predictions": [
                {"model_version": "m1", "score": 0.5, "result": [region(), region("skin", "r2")]}
            ],
            "overlap": 7,
        }
        for i in range(5)
    ]
    numbers = list(talk.ask("POST", path, items, return_task_ids="true")["task_ids"])
    talk.hear("in order", sorted(numbers) == numbers)
    talk.ask("POST", path, {"image": "bare.png"})
    for fault in (
        [],
        [{"data": {"picture": "x"}}],
        [items[0], {"data": {"picture": "x"}}],
        [{"data": {"image": 1}}],
        [{"picture": "x"}],
        [1],
        [{"data": {"image": "x"}, "predictions": [{"score": 1}]}],
        [{"data": {"image": "x"}, "predictions": {}}],
    ):
        talk.ask("POST", path, fault)
    talk.ask("POST", "/api/projects/999999999/import", items)
    talk.ask("POST", path + "/", items)
    tasks = talk.ask("GET", "/api/tasks", project=project)["tasks"]
    talk.hear("tasks", [[t["inner_id"], t["overlap"], t["meta"]] for t in tasks])
    found = talk.ask("GET", f"/api/projects/{project}/")
    talk.hear("model version", found["model_version"])
    return numbers


def _uploads(talk: Talk, project: int) -> None:
    path = f"/api/projects/{project}/import"
    picture = b"\x89PNG\r\n\x1a\n--\r\n\r\n\x00"
    made = talk.ask("POST", path, files={"a b.png": picture}, commit_to_project="false")
    upload = talk.ask("GET", f"/api/import/file-upload/{made['file_upload_ids'][0]}")
    talk.hear("file", re.sub(r"\d+/[0-9a-f]{8}-", "", upload["file"]))
    served = talk.ask("GET", f"/data/{upload['file']}")
    talk.hear("served whole", served == picture)
    talk.ask("GET", f"/data/{upload['file']}", authorization="nothing")
    talk.ask("GET", f"/data/upload/{project}/nothing.png")
    talk.ask("GET", f"/api/import/file-upload/{made['file_upload_ids'][0]}/")
    talk.ask("POST", path, files={"a.exe": picture}, commit_to_project="false")


def _lists(talk: Talk, project: int, numbers: list[int]) -> None:
    pages: tuple[dict[str, Any], ...] = (
        {"page_size": 2},
        {"page_size": 2, "page": 3},
        {"page_size": 2, "page": 4},
        {"page": 0},
        {"page": "x"},
        {"page_size": 2, "fields": "all"},
        {"page_size": 2, "fields": "all", "include": "id,annotations,updated_at"},
        {"page_size": 2, "include": "id,annotations,updated_at"},
        {"page_size": 2, "fields": "all", "omit": "predictions,data,annotations.result"},
    )
    for params in pages:
        answer = talk.ask("GET", "/api/tasks", project=project, **params)
        shown = [t["id"] for t in answer.get("tasks", [])[:2]]
        talk.hear("page", [numbers.index(number) for number in shown if number in numbers])
        talk.hear("total", answer.get("total"))
    talk.ask("GET", "/api/tasks")
    talk.ask("GET", "/api/tasks", project=999999999)
    talk.ask("GET", "/api/tasks", view=999999999, project=project)
    talk.ask("GET", f"/api/tasks/{numbers[0]}/")
    talk.ask("GET", f"/api/tasks/{numbers[0]}/", omit="predictions")


def _filters(talk: Talk, project: int, numbers: list[int]) -> None:
    rows = talk.ask("GET", "/api/tasks", project=project)["tasks"]
    third = rows[2]["updated_at"]
    conditions: list[tuple[str, str, str, Any]] = [
        ("updated_at", "greater", "Datetime", third),
        ("updated_at", "greater_or_equal", "Datetime", third),
        ("updated_at", "less", "Datetime", third),
        ("updated_at", "equal", "Datetime", third),
        ("updated_at", "in", "Datetime", {"min": third, "max": rows[3]["updated_at"]}),
        ("updated_at", "greater", "String", third),
        ("updated_at", "greater", "Datetime", third[:19] + "Z"),
        ("updated_at", "greater", "Datetime", third.replace("Z", "+00:00")),
        ("updated_at", "greater", "Datetime", None),
        ("data.key", "in_list", "List", ["k1", "k3", "k9"]),
        ("data.key", "in_list", "List", []),
        ("data.key", "not_in_list", "List", ["k1"]),
        ("data.n", "in_list", "List", [1, 2]),
        ("data.n", "in_list", "List", ["1"]),
        ("data.key", "equal", "String", "k1"),
        ("data.key", "equal", "String", "K1"),
        ("data.n", "equal", "Number", "1"),
        ("data.n", "equal", "String", "1"),
        ("data.key", "not_equal", "String", "k1"),
        ("data.who", "not_contains", "String", "annotator-1"),
        ("data.who", "not_contains", "String", "ANNOTATOR-10"),
        ("data.who", "contains", "String", "00"),
        ("data.who", "empty", "String", "true"),
        ("data.nothing", "not_equal", "String", "k1"),
        ("id", "in_list", "List", [numbers[0], numbers[4], 0]),
        ("id", "in_list", "List", [str(numbers[0])]),
        ("id", "greater", "Number", numbers[2]),
        ("is_labeled", "equal", "Boolean", "false"),
        ("total_annotations", "greater", "Number", 0),
        ("nothing", "equal", "String", "x"),
    ]
    for column, operator, kind, value in conditions:
        condition = (column, operator, kind, value)
        query = {"filters": filters(condition), "ordering": ["tasks:id"]}
        _query(talk, project, numbers, f"{column} {operator} {kind}", query)
    two = [("data.key", "equal", "String", key) for key in ("k1", "k2")]
    for together in ("and", "or"):
        query = {"filters": filters(*two, together=together)}
        _query(talk, project, numbers, together, query)
    for order in ("tasks:id", "-tasks:id", "tasks:-updated_at", "data.key", "-tasks:data.n"):
        _query(talk, project, numbers, order, {"ordering": [order]})
    picked = {"all": False, "included": numbers[:2]}
    _query(talk, project, numbers, "selected", {"selectedItems": picked})
    _query(talk, project, numbers, "no conjunction", {"filters": {"items": []}})
    _query(talk, project, numbers, "unknown order", {"ordering": ["tasks:nothing"]})
    talk.ask("GET", "/api/tasks", project=project, query="{")


def _query(talk: Talk, project: int, numbers: list[int], label: str, query: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"query": json.dumps(query), "include": "id,updated_at"}
    answer = talk.ask("GET", "/api/tasks", project=project, **asked)
    found = [t["id"] for t in answer.get("tasks", [])]
    talk.hear(label, [numbers.index(n) if n in numbers else "other" for n in found])


def _annotations(talk: Talk, project: int, numbers: list[int]) -> None:
    path = f"/api/tasks/{numbers[0]}/annotations/"
    first = talk.ask("POST", path, {"result": [region()], "lead_time": 2.5})
    _state(talk, "submitted", numbers[0])
    talk.ask("POST", path, {"result": [region()], "was_cancelled": True})
    _state(talk, "skipped as well", numbers[0])
    talk.hear("without the skipped", len(talk.ask("GET", path)))
    talk.ask("POST", f"/api/tasks/{numbers[1]}/annotations/", {"result": [], "was_cancelled": True})
    _state(talk, "only skipped", numbers[1])
    talk.ask("POST", f"/api/tasks/{numbers[2]}/annotations/", {})
    _state(talk, "no result", numbers[2])
    faults: list[Any] = [{"result": {}}, {"result": "x"}, {"result": [], "completed_by": 999999999}]
    for fault in faults:
        talk.ask("POST", path, fault)
    once = {"result": [], "unique_id": str(uuid.uuid4())}
    talk.ask("POST", f"/api/tasks/{numbers[3]}/annotations/", once)
    talk.ask("POST", f"/api/tasks/{numbers[3]}/annotations/", once)
    talk.ask("POST", "/api/tasks/999999999/annotations/", {"result": []})
    one = f"/api/annotations/{first['id']}/"
    talk.ask("GET", one)
    before = talk.ask("GET", f"/api/tasks/{numbers[0]}/")
    changed = talk.ask("PATCH", one, {"result": [region("skin")]})
    after = talk.ask("GET", f"/api/tasks/{numbers[0]}/")
    talk.hear("annotation moved", changed["updated_at"] > first["updated_at"])
    talk.hear("then the task", after["updated_at"] > changed["updated_at"] > before["updated_at"])
    talk.ask("PATCH", one, {"lead_time": "x"})
    refused = talk.ask("GET", f"/api/tasks/{numbers[0]}/")
    talk.hear("a refused change moves it too", refused["updated_at"] > after["updated_at"])
    talk.ask("PATCH", one, {"was_cancelled": True})
    _state(talk, "skipped later", numbers[0])
    talk.ask("PATCH", one, {"was_cancelled": False})
    listed: dict[str, Any] = {"project": project, "fields": "all", "page_size": 1}
    talk.ask("GET", "/api/tasks", **listed)
    included = "id,annotations,result,completed_by,was_cancelled"
    talk.ask("GET", "/api/tasks", **listed, include=included)
    last = talk.ask("POST", f"/api/tasks/{numbers[4]}/annotations/", {"result": [region()]})
    before = talk.ask("GET", f"/api/tasks/{numbers[4]}/")
    talk.ask("DELETE", f"/api/annotations/{last['id']}/")
    talk.ask("DELETE", f"/api/annotations/{last['id']}/")
    after = talk.ask("GET", f"/api/tasks/{numbers[4]}/")
    talk.hear("deleting moves the task", after["updated_at"] > before["updated_at"])
    _state(talk, "deleted", numbers[4])
    found = talk.ask("GET", f"/api/projects/{project}/")
    talk.hear("counts", {k: v for k, v in found.items() if k.endswith("_number") or "queue" in k})


def _predictions(talk: Talk, numbers: list[int]) -> None:
    sent = {"task": numbers[4], "model_version": "m2", "score": 0.25, "result": [region("no such")]}
    made = talk.ask("POST", "/api/predictions/", sent)
    talk.hear("listed", len(talk.ask("GET", "/api/predictions/", task=numbers[4])))
    talk.ask("GET", "/api/predictions/", task=999999999)
    talk.ask("GET", f"/api/predictions/{made['id']}/")
    child = {"result": [], "parent_prediction": made["id"]}
    person = talk.ask("POST", f"/api/tasks/{numbers[4]}/annotations/", child)
    talk.hear("made from it", person["parent_prediction"] == made["id"])
    before = talk.ask("GET", f"/api/tasks/{numbers[4]}/")
    talk.ask("DELETE", f"/api/predictions/{made['id']}/")
    after = talk.ask("GET", f"/api/tasks/{numbers[4]}/")
    talk.hear("deleting moves the task", after["updated_at"] > before["updated_at"])
    orphan = talk.ask("GET", f"/api/annotations/{person['id']}/")
    talk.hear("forgotten", orphan["parent_prediction"])
    talk.hear("silently", orphan["updated_at"] == person["updated_at"])
    talk.ask("DELETE", f"/api/predictions/{made['id']}/")
    faults: list[Any] = [{"result": []}, {"task": numbers[4]}, {"task": 999999999, "result": []}]
    for fault in faults:
        talk.ask("POST", "/api/predictions/", fault)


def _changes(talk: Talk, project: int, numbers: list[int]) -> None:
    path = f"/api/tasks/{numbers[0]}/"
    for change in (
        {"data": {"other": 1}},
        {"overlap": 2},
        {"is_labeled": False},
        {"nothing": 1},
        {"data": None},
        {"overlap": "x"},
    ):
        talk.ask("PATCH", path, change)
        _state(talk, f"after {change}", numbers[0])
    talk.hear("data", talk.ask("GET", path)["data"])
    talk.ask("DELETE", f"/api/tasks/{numbers[3]}/")
    talk.ask("DELETE", f"/api/tasks/{numbers[3]}/")
    path = f"/api/projects/{project}/"
    for config in (
        CONFIG.replace('name="mask"', 'name="paint"'),
        CONFIG.replace('name="note"', 'name="remark"'),
        CONFIG.replace('<Label value="lesion"/>', "").replace('<Label value="skin"/>', ""),
        CONFIG.replace('<Label value="skin"/>', ""),
        CONFIG.replace('"image"', '"picture"'),
        "<View></View>",
        "<View>",
        f"{CONFIG}\n<!-- a comment after it -->\n",
        CONFIG,
    ):
        talk.ask("POST", path + "validate/", {"label_config": config})
        kept = talk.ask("PATCH", path, {"label_config": config}).get("label_config")
        same = [kept == config, kept == config.strip()]
        talk.hear("kept as it was sent, or but for blanks", same)
    for change in (
        {"model_version": "unknown"},
        {"model_version": ""},
        {"show_skip_button": "x"},
        {"nothing": 1},
        {"maximum_annotations": 3},
        {"maximum_annotations": 1},
    ):
        talk.ask("PATCH", path, change)
        tasks = talk.ask("GET", "/api/tasks", project=project)["tasks"]
        talk.hear(f"after {change}", [[t["overlap"], t["is_labeled"]] for t in tasks])


def _tabs(talk: Talk, project: int, numbers: list[int]) -> None:
    by_key = ("data.key", "equal", "String", "k2")
    chosen = filters(("data.who", "not_equal", "String", "x"), by_key)
    hidden = {"explore": ["tasks:data.who"], "labeling": ["tasks:data.who"]}
    data = {"title": "tab", "hiddenColumns": hidden, "filters": chosen, "ordering": ["tasks:id"]}
    tab = talk.ask("POST", "/api/dm/views/", {"project": project, "data": data})
    talk.hear("as it was sent", tab["data"] == data)
    talk.ask("POST", "/api/dm/views/", {"project": project, "data": {"title": "plain"}})
    talk.ask("POST", "/api/dm/views/", {"data": {}})
    talk.ask("POST", "/api/dm/views/", {"project": 999999999, "data": {}})
    wrong = {"conjunction": "and", "items": [{**chosen["items"][0], "filter": "who"}]}
    talk.ask("POST", "/api/dm/views/", {"project": project, "data": {"filters": wrong}})
    talk.ask("GET", "/api/dm/views/", project=project)
    talk.ask("GET", "/api/dm/views/", project=999999999)
    found = talk.ask("GET", "/api/tasks", view=tab["id"], include="id,data")["tasks"]
    talk.hear("in the tab", [numbers.index(t["id"]) for t in found])
    address: dict[str, Any] = {"id": "next_task", "project": project}
    stream = talk.ask("POST", "/api/dm/actions", {"filters": chosen}, **address)
    talk.hear("filtered stream", stream.get("queue"))
    talk.ask("POST", "/api/dm/actions", {}, **address, tabID=tab["id"])
    nobody = filters(("data.key", "equal", "String", "nobody"))
    talk.ask("POST", "/api/dm/actions", {"filters": nobody}, **address)
    talk.ask("POST", "/api/dm/actions", {}, project=project)
    talk.ask("POST", "/api/dm/actions", {}, project=project, id="nothing")
    path = f"/api/dm/views/{tab['id']}/"
    kept = talk.ask("PATCH", path, {"data": {"title": "renamed"}})
    renamed = {"title": "renamed", "filters": chosen, "ordering": ["tasks:id"]}
    talk.hear("keeps its filters", kept["data"] == renamed)
    other = filters(by_key)
    kept = talk.ask("PATCH", path, {"data": {**data, "title": "wider", "filters": other}})
    talk.hear("replaced whole", kept["data"] == {**data, "title": "wider", "filters": other})
    talk.ask("PATCH", path, {})
    talk.ask("DELETE", path)
    talk.ask("DELETE", path)


def _home(talk: Talk, project: int) -> None:
    """The order in which projects are listed: pinned ones, then the newest."""
    newer = talk.ask("POST", "/api/projects/", {"title": f"{TITLE}, newer"})["id"]
    try:
        for pinned in (None, "2026-01-02T03:04:05.678900Z", None):
            changed = talk.ask("PATCH", f"/api/projects/{project}/", {"pinned_at": pinned})
            talk.hear("pinned", changed["pinned_at"])
            found = talk.ask("GET", "/api/projects/", ids=f"{project},{newer}")["results"]
            talk.hear("newest first", [p["id"] == newer for p in found])
    finally:
        talk.ask("DELETE", f"/api/projects/{newer}/")


def _state(talk: Talk, label: str, number: int) -> None:
    task = talk.ask("GET", f"/api/tasks/{number}/")
    names = ("is_labeled", "overlap", "total_annotations", "cancelled_annotations", "avg_lead_time")
    talk.hear(label, [task[name] for name in names] + [task["completed_at"] is None])


if __name__ == "__main__":
    lines = (json.dumps(entry) for entry in converse(*sys.argv[1:]))
    sys.stdout.write("[\n" + ",\n".join(lines) + "\n]\n")
