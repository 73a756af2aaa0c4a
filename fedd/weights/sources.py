"""Backbones that are fetched rather than shipped: where they come from, and where they are kept."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from fedd.errors import WeightsError
from fedd.network.unet import UNetConfig
from fedd.weights.names import TABLE


@dataclass(frozen=True)
class BackboneSource:
    """A published checkpoint of guided-diffusion's layout."""

    name: str
    url: str
    sha256: str
    bytes: int | None  #: its size, where it is known
    blocks: tuple[int, ...]  #: decoder blocks to keep the network for, unless others are asked for
    config: UNetConfig

    def elsewhere(self, url: str | None = None, sha256: str | None = None) -> BackboneSource:
        """The same network from another place, or another file of the same network."""
        changed = replace(self, url=url or self.url, sha256=(sha256 or self.sha256).lower())
        return changed if changed.sha256 == self.sha256 else replace(changed, bytes=None)


def sources() -> dict[str, BackboneSource]:
    """All of them by name, as `fedd/weights/sources.toml` lists them."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return {
        name: BackboneSource(
            name,
            entry["url"],
            entry["sha256"],
            entry["bytes"],
            tuple(entry["blocks"]),
            UNetConfig.from_dict(entry["config"]),
        )
        for name, entry in table.items()
    }


def source(name: str) -> BackboneSource:
    """The one called `name`; raises WeightsError where there is none."""
    known = sources()
    if name not in known:
        raise WeightsError(f"no backbone to fetch is called {name}: there are {', '.join(known)}")
    return known[name]


def cache_folder() -> Path:
    """Where fetched backbones are kept: `backbones` in $DDISEG_CACHE, or in the user's cache."""
    cache = os.environ.get("DDISEG_CACHE")
    if not cache:
        user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache = str(Path(user_cache) / "ddiseg")
    return Path(cache).absolute() / "backbones"


def kept_path(name: str, folder: Path | None = None) -> Path:
    """Where a fetched backbone lies, or will."""
    return (folder or cache_folder()) / f"{name}.safetensors"
