"""That the real server still answers as the recording says that the fake one is held to."""

from __future__ import annotations

import json

from tests.fake_label_studio.conversation import RECORDING, converse
from tests.live.conftest import Studio


def test_conversation__a_real_server_answers_as_recorded(studio: Studio) -> None:
    heard = converse(studio.url, studio.accounts["admin"].token)
    for answered, recorded in zip(heard, json.loads(RECORDING.read_text()), strict=True):
        assert answered == recorded
