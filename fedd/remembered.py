"""What was measured once on this machine, in a small file of the user's cache folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from annotation_protocol.files import atomic_write


class Remembered:
    """Measurements by key in a JSON file.

    A file that can't be read counts as empty, and one that can't be written is left out: what it
    would hold is then measured anew. Two processes that write at once may lose one entry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the measurement of a key; None if there is none."""
        found = self._read().get(key)
        return found if isinstance(found, dict) else None

    def put(self, key: str, measured: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(self.path, json.dumps({**self._read(), key: dict(measured)}, indent=1))

    def _read(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self.path.read_text("utf-8"))
            return found if isinstance(found, dict) else {}
        return {}
