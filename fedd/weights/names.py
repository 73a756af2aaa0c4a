"""Names of backbones, for code that must not need PyTorch."""

from __future__ import annotations

import hashlib
import tomllib
from functools import lru_cache
from importlib import resources
from pathlib import Path

#: The backbone that ships with the package.
SHIPPED = "small"

#: The backbones that can be fetched.
TABLE = Path(str(resources.files("fedd.weights") / "sources.toml"))


def is_named(name_or_path: str) -> bool:
    """Whether this is a backbone's name, which means the same on every machine, and not a path."""
    return name_or_path == SHIPPED or name_or_path in tomllib.loads(TABLE.read_text("utf-8"))


#: Name of a network with random weights.
UNTRAINED = "untrained"

#: What reports say of weights.
OPENAI, ROUNDED, NOT_OPENAI, NOT_VERIFIED = (
    "OpenAI's checkpoint",
    "OpenAI's checkpoint, rounded to float16",
    "not OpenAI's checkpoint",
    "not verified to be OpenAI's checkpoint: fetch it again",
)
OURS = "shipped with ddiseg"


def weights_origin(weights_hash: str, verified: bool = True) -> str:
    """Return whose weights these are, by their hash: a file's name and its network prove nothing.

    The layers that `fedd weights fetch` stores have the hash of the checkpoint that they are from. It
    was compared with the checkpoint's when that was fetched; somebody who writes such a file by hand
    can claim it.

    Args:
        verified: the stored layers are those that were fetched, as `DiffusionUNet.verified` says.
    """
    origin = _known_weights().get(weights_hash, NOT_OPENAI)
    return origin if verified or origin == NOT_OPENAI else NOT_VERIFIED


def described_weights(name: str, weights_hash: str, verified: bool = True) -> str:
    """Return a backbone for a report: its name, the start of its hash, and whose weights they are."""
    origin = "random weights" if name == UNTRAINED else weights_origin(weights_hash, verified)
    return f"{name} ({weights_hash[:12]}), {origin}"


def titled_weights(name: str, weights_hash: str, verified: bool = True) -> str:
    """Return a backbone's name for a figure, with a remark where its weights are not those one expects."""
    origin = weights_origin(weights_hash, verified)
    unexpected = name != UNTRAINED and origin in (NOT_OPENAI, NOT_VERIFIED)
    return f"{name}, {origin}" if unexpected else name


def half_hash(sha256: str) -> str:
    """Return the hash that identifies the weights of a checkpoint rounded to float16."""
    return hashlib.sha256(f"{sha256} as float16".encode()).hexdigest()


@lru_cache
def _known_weights() -> dict[str, str]:
    """Return the origin of weights by their hash."""
    known: dict[str, str] = {}
    for entry in tomllib.loads(TABLE.read_text("utf-8")).values():
        known |= {entry["sha256"]: OPENAI, half_hash(entry["sha256"]): ROUNDED}
    shipped = resources.files("fedd.weights") / f"{SHIPPED}.safetensors"
    with Path(str(shipped)).open("rb") as file:
        known[hashlib.file_digest(file, "sha256").hexdigest()] = OURS
    return known
