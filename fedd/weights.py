"""Where backbone weights come from: safe loading, hashes, the file that ships with the package.

A backbone file is safetensors; its header holds `kind`, `name` and the network's `config` (JSON).
OpenAI's `.pt` checkpoints are opened with `weights_only=True`, so no code in a file is ever run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedd.backbone import IMAGENET_256, DiffusionUNet, UNetConfig
from fedd.errors import WeightsError

BACKBONE_KIND = "fedd-backbone"

#: Names that `load_backbone` knows besides paths.
SHIPPED = "small"


def load_backbone(name_or_path: str = SHIPPED, config: UNetConfig | None = None) -> DiffusionUNet:
    """The backbone called `small`, which ships with the package, or the one in a file.

    A `.pt` file (OpenAI's layout) is read with `config`, by default that of the ImageNet 256x256
    model. Raises WeightsError where the file is missing, unreadable, unsafe or does not fit.
    """
    if name_or_path == SHIPPED:
        path = Path(str(resources.files("fedd") / "weights" / "small.safetensors"))
    else:
        path = Path(name_or_path)
    if not path.is_file():
        raise WeightsError(
            f"no backbone called {name_or_path}: give '{SHIPPED}' or the path of a weights file"
        )
    if path.suffix in (".pt", ".pth"):
        return _load_checkpoint(path, config or IMAGENET_256)
    tensors, header = read_safetensors(path, BACKBONE_KIND)
    stored = UNetConfig.from_dict(json.loads(header["config"]))
    return _build(header["name"], stored, tensors, path)


def save_backbone(
    path: Path,
    name: str,
    config: UNetConfig,
    tensors: Mapping[str, Tensor],
    extra: Mapping[str, str],
) -> None:
    """Write weights as fp16 safetensors, whole or not at all."""
    halves = {k: v.detach().to(torch.float16).contiguous() for k, v in tensors.items()}
    header = {"kind": BACKBONE_KIND, "name": name, "config": json.dumps(config.to_dict()), **extra}
    write_safetensors(path, halves, header)


def write_safetensors(path: Path, tensors: dict[str, Tensor], header: dict[str, str]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, temporary, header)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_safetensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file whose header says it is of `kind`."""
    try:
        with safe_open(path, "pt") as file:
            header: dict[str, str] = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} can't be read as safetensors: {error}") from error
    if header.get("kind") != kind:
        raise WeightsError(f"{path} holds {header.get('kind', 'something else')!r}, not {kind!r}")
    return tensors, header


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load_checkpoint(path: Path, config: UNetConfig) -> DiffusionUNet:
    import pickle

    try:
        tensors: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"{path} is not a checkpoint that is safe to open: {first}") from error
    if not isinstance(tensors, dict) or not all(isinstance(v, Tensor) for v in tensors.values()):
        raise WeightsError(
            f"{path} holds no plain state dict; expected OpenAI's guided-diffusion layout"
        )
    return _build(path.stem, config, tensors, path)


def _build(
    name: str, config: UNetConfig, tensors: Mapping[str, Tensor], path: Path
) -> DiffusionUNet:
    net = config.build()
    expected = net.state_dict()
    missing = sorted(set(expected) - set(tensors))
    unknown = sorted(set(tensors) - set(expected))
    misfits = sorted(
        k for k in set(expected) & set(tensors) if expected[k].shape != tensors[k].shape
    )
    if missing or unknown or misfits:
        parts = [
            f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for what, keys in (
                ("keys missing", missing),
                ("keys unknown", unknown),
                ("shapes differ", misfits),
            )
            if keys
        ]
        raise WeightsError(f"{path} does not fit the network {name}: {'; '.join(parts)}")
    net.load_state_dict({k: v.float() for k, v in tensors.items()})
    return DiffusionUNet(name, config, net, file_hash(path))
