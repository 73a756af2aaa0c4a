"""Backbones that are fetched rather than shipped: their sources and the folder they are stored in."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

from fedd.errors import WeightsError
from fedd.network.unet import UNetConfig
from fedd.weights.cache_folder import user_cache
from fedd.weights.names import TABLE


@dataclass(frozen=True)
class BackboneSource:
    """A published checkpoint of guided-diffusion's layout."""

    name: str
    url: str
    sha256: str
    bytes: int | None  #: its size, if known
    blocks: tuple[int, ...]  #: decoder blocks that are stored by default
    config: UNetConfig

    def elsewhere(self, url: str | None = None, sha256: str | None = None) -> BackboneSource:
        """Return the same network from another URL, or another file of the same network."""
        changed = replace(self, url=url or self.url, sha256=(sha256 or self.sha256).lower())
        return changed if changed.sha256 == self.sha256 else replace(changed, bytes=None)


def sources() -> dict[str, BackboneSource]:
    """Return the sources in `fedd/weights/sources.toml` by name."""
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
    """Return the source of a backbone; raises WeightsError if there is none."""
    known = sources()
    if name not in known:
        raise WeightsError(f"no backbone to fetch is called {name}: there are {', '.join(known)}")
    return known[name]


def cache_folder() -> Path:
    """Return the folder of fetched backbones: `backbones` in $DDISEG_CACHE or the user's cache."""
    return user_cache() / "backbones"


def kept_path(name: str, folder: Path | None = None) -> Path:
    """Return the path of a fetched backbone."""
    return (folder or cache_folder()) / f"{name}.safetensors"
