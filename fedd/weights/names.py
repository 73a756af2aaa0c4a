"""Names of backbones, for code that must not need PyTorch."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

#: The backbone that ships with the package.
SHIPPED = "small"

#: The backbones that can be fetched.
TABLE = Path(str(resources.files("fedd.weights") / "sources.toml"))


def is_named(name_or_path: str) -> bool:
    """Whether this is a backbone's name, which means the same on every machine, and not a path."""
    return name_or_path == SHIPPED or name_or_path in tomllib.loads(TABLE.read_text("utf-8"))
