"""Fetching a published checkpoint, and storing the part of it that is needed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from annotation_protocol.files import locked
from fedd.errors import UnreadableError, WeightsError
from fedd.weights.download import Progress, check_hash, check_room, download
from fedd.weights.files import (
    check_fit,
    expected_shapes,
    read_safetensors,
    read_state_dict,
    save_backbone,
    tensors_hash,
)
from fedd.weights.names import half_hash
from fedd.weights.sources import BackboneSource, kept_path

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchedBackbone:
    """A fetched backbone; `bytes_before` is None if it had been fetched before."""

    path: Path
    last_block: int
    bytes_before: int | None
    bytes_after: int


def fetch(
    source: BackboneSource,
    folder: Path | None = None,
    file: Path | None = None,
    blocks: Sequence[int] = (),
    half: bool = False,
    progress: Progress = lambda done, whole: None,
) -> FetchedBackbone:
    """Fetch the layers of `source` up to the last of `blocks` and store them as safetensors.

    The checkpoint comes from `file` if given, else from its URL; either must have its SHA-256. A
    backbone that is already stored as far as needed, undamaged, is left unchanged. Weights are stored in float32
    as published, so that results compare with the paper's, or with `half` in float16, which rounds each
    weight by up to 0.05% and halves the size. Probes trained on one are refused by the other; the
    number of stored layers makes no difference.

    Raises WeightsError if the checkpoint can't be fetched, is another file, or does not fit.
    """
    last_block = max(blocks or source.blocks)
    if not 0 <= last_block < source.config.decoder_blocks:
        raise WeightsError(
            f"{source.name} has decoder blocks 0 to {source.config.decoder_blocks - 1}, not {last_block}"
        )
    path = kept_path(source.name, folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(f"{path.parent} can't be created: {error.strerror}") from error
    identity = _weights_hash(source, half)
    shapes = expected_shapes(source.config, last_block)
    after = sum(shape.numel() for shape in shapes.values()) * (2 if half else 4)
    waiting = "another process fetches the same backbone: waiting for it"
    with locked(path.with_name(f".{path.name}.lock"), waiting, wait=logger.info):
        stored = _stored_block(path, identity)
        if stored is not None and stored >= last_block:
            return FetchedBackbone(path, stored, None, path.stat().st_size)
        original = file or _downloaded(source, path, after, progress)
        if file is not None:
            _check_file(file, source)
            check_room(path.parent, after)
        logger.info("checking the network and keeping it to decoder block %d", last_block)
        try:
            tensors = read_state_dict(original)
            check_fit(expected_shapes(source.config), tensors, source.name, original)
        except WeightsError:
            if file is None:
                original.unlink()  # it would fit no better the next time
            raise
        before = original.stat().st_size
        header = {"last_block": str(last_block), "weights_hash": identity}
        dtype = torch.float16 if half else torch.float32
        needed = {key: tensors[key] for key in shapes}
        save_backbone(path, source.name, source.config, needed, header, dtype)
        if file is None:
            original.unlink()
    return FetchedBackbone(path, last_block, before, path.stat().st_size)


def _downloaded(source: BackboneSource, path: Path, room_after: int, progress: Progress) -> Path:
    """Return the published checkpoint, downloaded next to `path` unless only its conversion failed."""
    original = path.with_name(f".{source.name}-{source.sha256[:12]}.pt")
    if not original.exists():
        logger.info("fetching %s", source.url)
        download(source.url, original, source.sha256, room_after, progress, source.bytes)
    return original


def _check_file(file: Path, source: BackboneSource) -> None:
    if not file.is_file():
        raise WeightsError(f"there is no weights file {file}")
    check_hash(file, source.sha256, str(file))


def _weights_hash(source: BackboneSource, half: bool) -> str:
    """Return the hash that identifies the weights, whatever number of layers is stored."""
    return half_hash(source.sha256) if half else source.sha256


def _stored_block(path: Path, weights_hash: str) -> int | None:
    """Return the last decoder block of the stored network; None if it is to be fetched (again)."""
    try:
        tensors, header = read_safetensors(path)
    except (WeightsError, UnreadableError):
        return None  # missing, or damaged and to be replaced
    if header.get("weights_hash") != weights_hash:
        return None
    if header.get("tensors_hash") != tensors_hash(tensors):
        return None  # damaged, or fetched by a version that stored no hash of the tensors
    return int(header["last_block"])
