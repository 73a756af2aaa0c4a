"""What is said of an answer, or of none."""

from __future__ import annotations

import json

import pytest

from ddiseg.labelstudio.errors import connection_error, response_error

URL = "http://labels.example"


@pytest.mark.parametrize(
    ("error", "why", "may_have_happened"),
    [
        (ConnectionRefusedError("[Errno 111] Connection refused"), "can't be reached", False),
        (OSError("[Errno -2] Name or service not known"), "can't be reached", False),
        (OSError("Failed to resolve 'labels.example'"), "can't be reached", False),
        (TimeoutError("timed out"), "does not answer in time", True),
        (OSError("Read timed out. (read timeout=300)"), "does not answer in time", True),
        (ConnectionResetError("[Errno 104] reset by peer"), "broke the connection off", True),
    ],
)
def test_line_fault__how_far_it_came(error: OSError, why: str, may_have_happened: bool) -> None:
    for sent in (True, False):
        line = str(connection_error(URL, "project 3", error, sent=sent))
        assert line.startswith(f"{URL} {why} (project 3): is it running? 'ddiseg label status'; ")
        assert ("It may have done what it was asked" in line) is (sent and may_have_happened)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"detail": "No Task matches\nthe given query."}, "No Task matches the given query."),
        (
            {"detail": "Validation error", "validation_errors": {"title": ["too long"]}},
            "{'title': ['too long']}",
        ),
        (["not so"], "['not so']"),
        ({"detail": "x" * 500}, "x" * 200),
    ],
)
def test_answer_fault__what_the_server_said_of_it(body: object, detail: str) -> None:
    line = str(response_error(URL, "task 7", 400, json.dumps(body)))
    assert line == f"{URL}: 400 for task 7: it refuses what was sent (it says: {detail})"


@pytest.mark.parametrize("body", ["", "not JSON", "{}", "null"])
def test_answer_fault__the_server_said_nothing(body: str) -> None:
    line = str(response_error(URL, "task 7", 413, body))
    assert line == f"{URL}: 413 for task 7: too much at once for the server or a proxy before it"
