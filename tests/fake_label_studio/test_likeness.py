"""That the fake is a likeness: a real server's answers, recorded, are its own."""

from __future__ import annotations

import json
import os

import pytest

from tests.fake_label_studio import FakeLabelStudio
from tests.fake_label_studio.conversation import RECORDING, converse


def test_conversation__the_fake_answers_as_the_real_server_did() -> None:
    with FakeLabelStudio() as server:
        heard = converse(server.url, server.token)
    for answered, recorded in zip(heard, json.loads(RECORDING.read_text()), strict=True):
        assert answered == recorded


@pytest.mark.skipif(
    not {"LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY"} <= os.environ.keys(),
    reason="LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY name no server",
)
def test_conversation__a_real_server_answers_as_recorded() -> None:
    heard = converse(os.environ["LABEL_STUDIO_URL"], os.environ["LABEL_STUDIO_API_KEY"])
    for answered, recorded in zip(heard, json.loads(RECORDING.read_text()), strict=True):
        assert answered == recorded
