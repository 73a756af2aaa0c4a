"""Weights files: safe reading and writing, hashes, and the backbones by name or path.

A backbone file is safetensors; its header holds `kind`, `name` and the network's `config` (JSON).
OpenAI's `.pt` checkpoints are opened with `weights_only=True`, so no code in a file is ever run.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedd.backbone import IMAGENET_256, DiffusionUNet, LocalBackbone, UNetConfig
from fedd.composite import CompositeBackbone
from fedd.encoders import read_encoder
from fedd.errors import UnreadableError, WeightsError
from fedd.files import file_hash, write_file
from fedd.weights.names import DEFAULT, ENCODERS, JOIN, SHIPPED, part_names, single_names
from fedd.weights.sources import kept_path, sources
from fedd.weights.wheels import wheel_file

BACKBONE_KIND = "fedd-backbone"

#: Keys named in a message before "...".
KEYS_NAMED = 3


def load_backbone(name_or_path: str = DEFAULT, config: UNetConfig | None = None) -> LocalBackbone:
    """Load a backbone: `small`, `lite0`, a fetched one by name, one from a file, or several with "+".

    A `.pt` file (OpenAI's layout) is read with `config`, by default that of the ImageNet 256x256
    model.

    Raises:
        WeightsError: there is no such backbone, or its file is missing, unreadable, unsafe, damaged or
            does not fit.
        MissingPackageError: a package that holds a part is not installed.
    """
    return load_files(backbone_files(name_or_path), config)


@dataclass(frozen=True)
class WeightsFile:
    """The weights file of a backbone, or of a part of one."""

    part: str  #: its name, or the path that was given
    path: Path


def backbone_files(name_or_path: str) -> list[WeightsFile]:
    """Return the weights file of a backbone, of a composite one for each part; raises as `load_backbone`."""
    return [WeightsFile(part, backbone_path(part)) for part in checked_parts(name_or_path)]


def load_files(files: Sequence[WeightsFile], config: UNetConfig | None = None) -> LocalBackbone:
    """Load a backbone from the files of its parts, wherever they are; raises as `load_backbone`."""
    loaded: list[LocalBackbone] = [
        read_encoder(file.part, file.path)
        if file.part in ENCODERS
        else read_unet(file.path, config)
        for file in files
    ]
    return loaded[0] if len(loaded) == 1 else CompositeBackbone(loaded)


def load_unet(name_or_path: str, config: UNetConfig | None = None) -> DiffusionUNet:
    """Load a UNet as `load_backbone` does; raises WeightsError for a backbone of another kind."""
    names = checked_parts(name_or_path)
    if len(names) > 1 or names[0] in ENCODERS:
        raise WeightsError(
            f"{name_or_path} is no UNet: give '{SHIPPED}', the name of a fetched backbone or the path of a "
            "weights file"
        )
    return read_unet(backbone_path(name_or_path), config)


def read_unet(path: Path, config: UNetConfig | None = None) -> DiffusionUNet:
    """Load a UNet from a file; raises as `load_backbone`."""
    if path.suffix in (".pt", ".pth"):
        tensors = read_state_dict(path)
        return _build(path.stem, config or IMAGENET_256, tensors, path, file_hash(path))
    tensors, header = read_safetensors(path, BACKBONE_KIND)
    stored = UNetConfig.from_dict(json.loads(header["config"]))
    last_block = int(header["last_block"]) if "last_block" in header else None
    claimed = header.get("weights_hash")
    if claimed is None:
        return _build(header["name"], stored, tensors, path, file_hash(path), last_block)
    if header.get("tensors_hash", "") not in ("", tensors_hash(tensors)):
        raise WeightsError(
            f"{path} is damaged, its weights are not those that were stored: delete it and fetch it "
            f"again with 'fedd weights fetch {header['name']}'"
        )
    net = _build(header["name"], stored, tensors, path, claimed, last_block)
    net.verified = bool(header.get("tensors_hash"))
    return net


def backbone_path(name_or_path: str) -> Path:
    """Return the file of a backbone that is no composite; raises as `load_backbone`."""
    if name_or_path == SHIPPED:
        return Path(str(resources.files("fedd.weights") / "small.safetensors"))
    if name_or_path in ENCODERS:
        return wheel_file(name_or_path)
    if name_or_path in sources():
        path = kept_path(name_or_path)
        if not path.is_file():
            raise WeightsError(
                f"the backbone {name_or_path} is not on this machine: run "
                f"'fedd weights fetch {name_or_path}', offline with --from FILE"
            )
        return path
    path = Path(name_or_path)
    if not path.is_file():
        names = ", ".join(f"'{name}'" for name in single_names())
        raise WeightsError(
            f"no backbone called {name_or_path}: give {names}, several joined by {JOIN} such as "
            f"'{DEFAULT}', or the path of a weights file"
        )
    return path


def checked_parts(name_or_path: str) -> tuple[str, ...]:
    """Return the names or paths of a backbone's parts.

    Raises WeightsError where a part is empty, or the same as another.
    """
    names = part_names(name_or_path)
    if "" in names:
        raise WeightsError(
            f"the backbone {name_or_path!r} has an empty part: join names by {JOIN}, such as '{DEFAULT}'"
        )
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise WeightsError(
            f"the backbone {name_or_path} has {twice[0]} twice: its activations would only be repeated; "
            f"name each part once, such as '{DEFAULT}'"
        )
    return names


def save_backbone(
    path: Path,
    name: str,
    config: UNetConfig,
    tensors: Mapping[str, Tensor],
    extra: Mapping[str, str],
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write weights as safetensors, atomically; raises OutputError if that fails.

    `extra` may hold `last_block`, if only the layers up to a decoder block are stored, and
    `weights_hash`, the hash that probes record, by default that of the file. With that, the hash of
    the tensors is stored too, so that damage is noticed.
    """
    stored = {k: v.detach().to(dtype).contiguous() for k, v in tensors.items()}
    header = {"kind": BACKBONE_KIND, "name": name, "config": json.dumps(config.to_dict()), **extra}
    if "weights_hash" in extra:
        header["tensors_hash"] = tensors_hash(stored)
    write_safetensors(path, stored, header)


def write_safetensors(
    path: Path, tensors: dict[str, Tensor], header: dict[str, str], *, durable: bool = True
) -> None:
    """Write tensors and a header, atomically; raises OutputError if that fails."""

    def write(temporary: Path) -> None:
        try:
            save_file(tensors, temporary, header)
        except SafetensorError as error:
            raise OSError(str(error)) from error

    write_file(path, write, durable=durable)


def read_safetensors(
    path: Path, kind: str | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and header of a safetensors file; raises WeightsError if it is not of `kind`."""
    try:
        with safe_open(path, "pt") as file:
            header: dict[str, str] = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise WeightsError(f"{path} can't be read as safetensors: {error}") from error
    except OSError as error:
        raise UnreadableError(f"{path} can't be read: {error.strerror or error}") from error
    if kind is not None and header.get("kind") != kind:
        raise WeightsError(f"{path} holds {header.get('kind', 'something else')!r}, not {kind!r}")
    return tensors, header


def read_header(path: Path) -> dict[str, str]:
    """Return the header of a safetensors file; raises WeightsError if it is none."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} can't be read as safetensors: {error}") from error


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, shapes, types and values, whatever the order."""
    found = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].contiguous()
        found.update(json.dumps([key, list(tensor.shape), str(tensor.dtype)]).encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of another project's `.pt` or `.safetensors` file, read as they are used.

    No code in the file is run. Raises WeightsError if it can't be read, is unsafe to open or holds
    something else.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path}")
    if _is_web_page(path):
        raise WeightsError(
            f"{path} is a web page, not a checkpoint that is safe to open: fetch the file itself"
        )
    if path.suffix == ".safetensors":
        return read_safetensors(path)[0]
    if _starts_with(path, b"\x89HDF"):
        raise WeightsError(
            f"{path} is an HDF5 file, such as Keras writes, not a checkpoint of PyTorch: give the network's "
            "state_dict() as .pth or .safetensors"
        )
    try:
        # Only torch's newer layout, a zip archive, can stay on the disk.
        tensors: Any = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    # A damaged file makes pickle, zipfile and torch raise almost anything.
    # Their text is not passed on: torch's recommends to open the file without weights_only.
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise UnreadableError(f"{path} can't be read: {error.strerror}") from error
        raise WeightsError(
            f"{path} is not a checkpoint that is safe to open: it is damaged, or holds more than tensors. "
            "Fetch it again, or save the network's state_dict() alone"
        ) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in tensors.items()
    ):
        raise WeightsError(
            f"{path} holds no plain state dict, a name and a tensor each: save the network's "
            "state_dict() alone, or give a .safetensors file"
        )
    return tensors


def expected_shapes(config: UNetConfig, last_block: int | None = None) -> dict[str, torch.Size]:
    """Return key and shape of every tensor of a network, or of its layers up to a decoder block."""
    with torch.device("meta"):
        return {k: v.shape for k, v in config.build(last_block).state_dict().items()}


def check_fit(
    expected: Mapping[str, torch.Size], tensors: Mapping[str, Tensor], name: str, path: Path
) -> None:
    """Raise WeightsError, with keys and shapes, if `tensors` are not those of the network."""
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


def _build(
    name: str,
    config: UNetConfig,
    tensors: Mapping[str, Tensor],
    path: Path,
    weights_hash: str,
    last_block: int | None = None,
) -> DiffusionUNet:
    check_fit(expected_shapes(config, last_block), tensors, name, path)
    # On "meta" no memory is allocated for weights that would only be replaced.
    with torch.device("meta"):
        net = config.build(last_block)
    net.load_state_dict({k: v.float() for k, v in tensors.items()}, assign=True)
    return DiffusionUNet(name, config, net, weights_hash)


def _is_web_page(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _starts_with(path: Path, signature: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(signature)) == signature
