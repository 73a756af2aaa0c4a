"""Whatever a request holds, the server answers it: no fault of its own, by schemathesis."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode

from ddiseg.catalogue import Arm
from ddiseg.server.app import create_app
from tests.ddiseg.server.conftest import MAX_BODY, Served
from tests.ddiseg.server.desk import Desk

#: POST /predict and so on: every route of the server.
ROUTES = [
    ("get", "/health"),
    ("get", "/versions"),
    ("get", "/metrics"),
    ("post", "/setup"),
    ("post", "/predict"),
    ("post", "/webhook"),
    ("post", "/webhook/{secret}"),
]


@pytest.fixture
def schema(desk: Desk, served: Served) -> Any:
    images = desk.add_images(1)
    desk.give(images, Arm.PREDICTED, desk.predict(images)[0])
    return create_app(served.backend, MAX_BODY).openapi()


@pytest.mark.slow
def test_routes__are_all_tried(schema: dict[str, Any]) -> None:
    there = {(method, path) for path, methods in schema["paths"].items() for method in methods}
    assert there == set(ROUTES)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("method", "path"), [r for r in ROUTES if r[0] == "post"])
def test_any_request__is_no_server_error(
    schema: dict[str, Any], served: Served, method: str, path: str, mode: GenerationMode
) -> None:
    operation = schemathesis.openapi.from_dict(schema)[path][method]

    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    @hypothesis.settings(
        max_examples=8,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    def check(case: Any) -> None:
        sent = case.as_transport_kwargs(base_url="http://testserver")
        del sent["cookies"]  # there are none
        if isinstance(sent.get("data"), bytes):  # what the client calls content
            sent["content"] = sent.pop("data")
        answer = served.client.request(**sent, auth=("ddiseg", "correct horse"))
        assert answer.status_code < 500

    check()
