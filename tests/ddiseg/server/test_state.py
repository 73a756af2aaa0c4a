from __future__ import annotations

from typing import Any

import pytest

from tests.ddiseg.server.conftest import Served
from tests.ddiseg.server.desk import Desk

pytestmark = pytest.mark.both_databases


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/health", "/setup", "/versions"])
def test_recorded_request__is_answered_as_label_studio_expects(
    served: Served, recorded: dict[str, Any], path: str
) -> None:
    request = recorded[path]
    answer = served.client.request(
        request["method"], path, json=request["body"], auth=("ddiseg", "correct horse")
    )
    assert answer.status_code == 200
    expected = {
        "/health": {"status": "UP"},
        "/setup": {"model_version": "ddiseg"},
        "/versions": {"versions": ["ddiseg"]},
    }
    assert expected[path].items() <= answer.json().items()


def test_versions__names_the_models(desk: Desk, served: Served) -> None:
    images = desk.add_images(1)
    assert served.get("/versions").json()["models"] == []
    desk.predict(images)
    desk.predict(images)
    models = served.get("/versions").json()["models"]
    assert [(m["name"], m["in_use"]) for m in models] == [("fedd-1", False), ("fedd-2", True)]


def test_metrics__count_requests_by_path_and_status(served: Served) -> None:
    served.get("/versions")
    served.get("/versions")
    served.client.get("/versions")
    served.client.post("/webhook/secret-in-a-path", json={})
    served.get("/no/such/page")
    assert served.metric('ddiseg_requests_total{path="/versions",status="200"}') == 2
    assert served.metric('ddiseg_requests_total{path="/versions",status="401"}') == 1
    assert served.metric('ddiseg_requests_total{path="/webhook",status="401"}') == 1
    assert served.metric('ddiseg_requests_total{path="other",status="404"}') == 1
    assert served.metric('ddiseg_request_seconds_count{path="/versions"}') == 3
    assert "secret-in-a-path" not in served.get("/metrics").text


def test_metrics__the_model_in_use(desk: Desk, served: Served) -> None:
    images = desk.add_images(1)
    assert "ddiseg_model_in_use{" not in served.get("/metrics").text
    desk.predict(images)
    assert served.metric('ddiseg_model_in_use{version="fedd-1"}') == 1
    desk.predict(images)
    assert served.metric('ddiseg_model_in_use{version="fedd-2"}') == 1
    assert served.metric('ddiseg_model_in_use{version="fedd-1"}') == 0


def test_metrics__jobs(served: Served) -> None:
    assert served.metric("ddiseg_jobs_waiting") == 0
    assert "ddiseg_jobs_waiting" in served.get("/metrics").text
