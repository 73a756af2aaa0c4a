"""ddiseg: from clinical photographs to a fair, reviewed, released segmentation dataset."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """Return the version; finding it takes a while, which a command that doesn't need it is spared."""
    if name == "__version__":
        from importlib.metadata import version

        return version("ddiseg")
    raise AttributeError(name)
