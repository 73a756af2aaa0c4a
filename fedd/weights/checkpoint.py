"""State dicts of other people's files, opened without running any code that they hold."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fedd.errors import WeightsError
from fedd.network.unet import UNetConfig

#: Keys named in a message before it says how many more there are.
KEYS_NAMED = 3


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pt` or `.safetensors` file, read from the disk as they are used.

    Raises WeightsError where it can't be read, is not safe to open or holds something else.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}")
    if _is_web_page(path):
        raise WeightsError(
            f"{path} is a web page, not a checkpoint that is safe to open: fetch the file itself"
        )
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        # Only torch's newer layout, a zip archive, can stay on the disk.
        tensors: Any = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    # A damaged file makes pickle, zipfile and torch raise almost anything.
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"{path} is not a checkpoint that is safe to open: {first}") from error
    if not isinstance(tensors, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in tensors.items()
    ):
        raise WeightsError(
            f"{path} holds no plain state dict, a name and a tensor each: save the network's "
            "state_dict() alone, or give a .safetensors file"
        )
    return tensors


def expected_shapes(config: UNetConfig, last_block: int | None = None) -> dict[str, torch.Size]:
    """Key and shape of every tensor of a network, or of its part up to a decoder block."""
    with torch.device("meta"):
        return {k: v.shape for k, v in config.build(last_block).state_dict().items()}


def check_fit(
    expected: Mapping[str, torch.Size], tensors: Mapping[str, Tensor], name: str, path: Path
) -> None:
    """Raise WeightsError, naming keys and shapes, where `tensors` are not those of a network."""
    missing = [k for k in expected if k not in tensors]
    unknown = [k for k in tensors if k not in expected]
    misfits = [
        f"{k} is {tuple(tensors[k].shape)} and should be {tuple(shape)}"
        for k, shape in expected.items()
        if k in tensors and tensors[k].shape != shape
    ]
    parts = [
        f"{len(found)} {what} ({', '.join(sorted(found)[:KEYS_NAMED])}"
        f"{', ...' if len(found) > KEYS_NAMED else ''})"
        for what, found in (
            ("keys missing", missing),
            ("keys unknown", unknown),
            ("shapes differ", misfits),
        )
        if found
    ]
    if parts:
        raise WeightsError(f"{path} does not fit the network {name}: {'; '.join(parts)}")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} can't be read as safetensors: {error}") from error


def _is_web_page(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).lstrip().lower().startswith((b"<!doctype html", b"<html"))
