"""A scripted Label Studio for tests, faithful to Community 1.23.2 where sync code could notice.

    with FakeLabelStudio() as server:
        annotator = server.add_user("annotator-1@example.org")
        server.misbehave("POST", "/api/projects/*/import", done_then_cut())
        ...
        server.annotate(task, annotator, result)

Each shape, status and oddity was compared with a real 1.23.2; the test that runs one conversation
against both does it again, wherever LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY name a server.
What the real one can do and this one can't fails loudly, at the latest when the server is left.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fake_label_studio.faults import (
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
from tests.fake_label_studio.listener import Request
from tests.fake_label_studio.server import FakeLabelStudio

__all__ = [
    "FakeLabelStudio",
    "Fault",
    "Request",
    "cut",
    "done_then_cut",
    "garbage",
    "html",
    "label_studio",
    "meanwhile",
    "slow",
    "status",
    "truncated",
]


@pytest.fixture
def label_studio() -> Iterator[FakeLabelStudio]:
    """A server with an administrator and nothing else."""
    with FakeLabelStudio() as server:
        yield server
