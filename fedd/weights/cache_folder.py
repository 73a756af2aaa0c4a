"""The folder of what this program fetches and measures once for all of a user's work."""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """Return $DDISEG_CACHE, or `ddiseg` in the user's cache folder."""
    cache = os.environ.get("DDISEG_CACHE")
    if not cache:
        user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache = str(Path(user) / "ddiseg")
    return Path(cache).absolute()
