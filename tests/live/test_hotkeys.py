"""No key of the protocol is one of Label Studio's own, as its pinned release has them."""

from __future__ import annotations

import json
import re

from annotation_protocol.protocol import TOOL_HOTKEYS
from ddiseg.labelstudio.embedded.environment import environment_folder
from tests.live.conftest import Studio

SCRIPTS = "lib/*/site-packages/web/dist/apps/labelstudio/*.js"


def test_tool_hotkeys__are_those_of_the_pinned_release(studio: Studio) -> None:
    """Read out of the scripts that the browser loads; combinations such as ctrl+z do not matter."""
    scripts = sorted(environment_folder().glob(SCRIPTS))
    found = [re.search(r"JSON\.parse\('(\{\"audio:back\".*?\})'\)", s.read_text()) for s in scripts]
    (keymap,) = [json.loads(match[1]) for match in found if match]
    keys = {entry["key"].lower() for entry in keymap.values()}
    assert {key for key in keys if re.fullmatch("[a-z0-9]", key)} == TOOL_HOTKEYS
