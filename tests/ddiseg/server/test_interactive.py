from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from annotation_protocol import ProtocolError, load_protocol
from ddiseg.catalogue import Arm
from ddiseg.errors import InputError
from ddiseg.labelstudio.task_payload import preannotated_mask
from ddiseg.masks import brush_rle
from ddiseg.server import interactive
from ddiseg.server.interactive import read_clicks
from ddiseg.server.predictions import UNKNOWN, WITHHELD
from ddiseg.workspace.workspace import Workspace
from fedd.clicks import Click
from tests.ddiseg.server.conftest import Served
from tests.ddiseg.server.desk import SIZE, Desk, asked
from tests.fedd.conftest import spot

Serve = Callable[[Workspace], Served]


def _click(x: float, y: float, label: str = "lesion", **more: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.3, "labels": [label], "keypointlabels": [label]}
    return {"type": "keypointlabels", "from_name": "click", "value": value, **more}


def _context(*entries: Any) -> dict[str, Any]:
    return {"result": list(entries)}


def _inside(region: dict[str, Any]) -> np.ndarray[Any, Any]:
    size = region["original_height"], region["original_width"]
    return brush_rle.decode(region["value"]["rle"], size) >= brush_rle.ALPHA_THRESHOLD


def _centre(number: int) -> tuple[float, float]:
    """x and y of the middle of a spot, percent."""
    rows, columns = np.nonzero(spot(number, (SIZE, SIZE))[1] == 1)
    return 100 * (columns.mean() + 0.5) / SIZE, 100 * (rows.mean() + 0.5) / SIZE


def test_read_clicks__pixels_of_the_photograph() -> None:
    context = _context(_click(0, 0), _click(50, 25, is_positive=False), _click(100, 100))
    label, found = read_clicks(context, load_protocol(), (200, 400))
    assert label == "lesion"
    assert found == [Click(0, 0), Click(200, 50, positive=False), Click(399, 199)]


def test_read_clicks__of_the_last_one_s_class_only() -> None:
    context = _context(_click(10, 10, "skin"), {"type": "brushlabels"}, _click(20, 20, "ruler"))
    label, found = read_clicks(context, load_protocol(), (100, 100))
    assert (label, found) == ("ruler", [Click(20, 20)])


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"result": None},
        {"result": 5},
        _context(),
        _context(5),
        _context({"type": "brushlabels"}),
        _context({"type": "keypointlabels"}),
        _context(_click(101, 0)),
        _context(_click(0, -1)),
        _context(_click(float("nan"), 0)),
        _context({"type": "keypointlabels", "value": {"x": 1, "y": 1, "keypointlabels": []}}),
    ],
    ids=str,
)
def test_read_clicks__odd_ones(context: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="click"):
        read_clicks(context, load_protocol(), (100, 100))


def test_read_clicks__of_no_class_of_ours() -> None:
    with pytest.raises(ProtocolError, match="freckle"):
        read_clicks(_context(_click(1, 1, "freckle")), load_protocol(), (100, 100))


@pytest.mark.training
def test_click__region_of_its_class_at_the_size_of_the_copy(trained: Desk, serve: Serve) -> None:
    image = trained.workspace.catalogue.images.select()[4]
    (task,) = trained.give([image], size=2 * SIZE)
    context = _context(_click(*_centre(4)))
    (result,) = serve(trained.workspace).predict(asked(task), context=context)["results"]
    (region,) = result["result"]
    assert region["value"]["brushlabels"] == ["lesion"]
    assert (region["from_name"], region["to_name"], region["origin"]) == ("mask", "image", "manual")
    assert preannotated_mask([region["id"]]) is None
    truth = np.kron(spot(4, (SIZE, SIZE))[1] == 1, np.ones((2, 2), bool))
    inside = _inside(region)
    assert (inside & truth).sum() / (inside | truth).sum() > 0.5


@pytest.mark.training
def test_click__again_is_answered_from_memory(
    trained: Desk, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = trained.workspace.catalogue.images.select()[4]
    (task,) = trained.give([image])
    served = serve(trained.workspace)
    looked: list[int] = []
    real = interactive.prepare_clicks

    def counted(*args: Any) -> Any:
        looked.append(1)
        return real(*args)

    monkeypatch.setattr(interactive, "prepare_clicks", counted)
    x, y = _centre(4)
    regions = []
    for entries in ([_click(x, y)], [_click(x, y), _click(2, 2, is_positive=False)]):
        answer = served.predict(asked(task), context=_context(*entries))
        regions.append(answer["results"][0]["result"][0])
    assert looked == [1]
    assert regions[0]["id"] != regions[1]["id"]
    assert not _inside(regions[1])[0, 0]
    assert served.metric('ddiseg_predictions_total{how="clicked"}') == 2


def test_seen__forgets_what_was_not_asked_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kept:
        nbytes = 40

    seen, a, b, c = interactive._ActivationCache(), Kept(), Kept(), Kept()
    monkeypatch.setattr(interactive, "MAX_BYTES", 100)
    seen.put((1, 1), a)  # type: ignore[arg-type]
    seen.put((1, 2), b)  # type: ignore[arg-type]
    assert seen.get((1, 1)) is a
    seen.put((1, 3), c)  # type: ignore[arg-type]
    assert [seen.get((1, n)) for n in (1, 2, 3)] == [a, None, c]
    monkeypatch.setattr(interactive, "MAX_IMAGES", 1)
    seen.put((2, 1), b)  # type: ignore[arg-type]
    assert [seen.get(key) for key in ((1, 1), (1, 3), (2, 1))] == [None, None, b]


def test_control_arm__gets_no_help_from_the_model(trained: Desk, serve: Serve) -> None:
    image = trained.workspace.catalogue.images.select()[4]
    (task,) = trained.give([image], Arm.CONTROL)
    (result,) = serve(trained.workspace).predict(asked(task), context=_context(_click(50, 50)))[
        "results"
    ]
    assert (result["result"], result["reason"]) == ([], WITHHELD)


@pytest.mark.training
@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([_click(50, 50, "freckle")], "freckle"),
        ([_click(150, 50)], "in percent"),
        ([_click(5, 5), _click(5, 5, is_positive=False)], "clicked as inside and as outside"),
    ],
)
def test_click__that_can_t_be_followed(
    trained: Desk, serve: Serve, entries: list[Any], reason: str
) -> None:
    (task,) = trained.give([trained.workspace.catalogue.images.select()[4]])
    (result,) = serve(trained.workspace).predict(asked(task), context=_context(*entries))["results"]
    assert result["result"] == []
    assert reason in result["reason"]


def test_no_model__says_what_to_do(desk: Desk, served: Served) -> None:
    (task,) = desk.give(desk.add_images(1))
    (result,) = served.predict(asked(task), context=_context(_click(50, 50)))["results"]
    assert "no model yet" in result["reason"]


@pytest.mark.training
def test_recorded_request__of_a_stranger_and_of_ours(
    trained: Desk, serve: Serve, recorded: dict[str, Any]
) -> None:
    (task,) = trained.give([trained.workspace.catalogue.images.select()[4]])
    served = serve(trained.workspace)
    body = json.loads(json.dumps(recorded["/predict interactive"]["body"]))
    (result,) = served.post("/predict", body).json()["results"]
    assert (result["result"], result["reason"]) == ([], UNKNOWN)
    body["tasks"][0] |= {"id": task.remote_id, "data": {"ddiseg": task.key}}
    (result,) = served.post("/predict", body).json()["results"]
    assert result["result"][0]["value"]["brushlabels"] == ["lesion"]
