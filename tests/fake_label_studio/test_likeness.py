"""That the fake is a likeness: a real server's answers, recorded, are its own (tests/live has the real one)."""

from __future__ import annotations

import json

import pytest

from tests.fake_label_studio import FakeLabelStudio
from tests.fake_label_studio.conversation import RECORDING, converse


@pytest.mark.slow
def test_conversation__the_fake_answers_as_the_real_server_did() -> None:
    with FakeLabelStudio() as server:
        heard = converse(server.url, server.token)
    for answered, recorded in zip(heard, json.loads(RECORDING.read_text()), strict=True):
        assert answered == recorded
