"""Which descriptors can be compared: a name for what made them, the same whatever was trained since."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def embedding_space(backbone_hash: str, settings: Mapping[str, Any]) -> str:
    """64 hex digits of a backbone's hash and of what probes read of it.

    Args:
        settings: of the probes, as a model version keeps them (`ProbeSettings.to_dict`).
    """
    made_by = {"backbone": backbone_hash, "features": settings.get("features")}
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()
