"""A published checkpoint -> the part of the network that is needed, kept where fedd finds it by name."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from fedd.errors import WeightsError
from fedd.weights.download import Progress, check_hash, check_room, download
from fedd.weights.files import check_fit, expected_shapes, read_state_dict, save_backbone
from fedd.weights.sources import BackboneSource, kept_path


@dataclass(frozen=True)
class Fetched:
    """A backbone that was fetched; `bytes_before` is None where it was there already."""

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
    say: Callable[[str], None] = lambda line: None,
) -> Fetched:
    """Keep the layers of `source` up to the last of `blocks` as safetensors; by default its own blocks.

    From `file` where given, else from its URL; either must have its SHA-256. What is there already, as
    far as it is asked for, is left as it is. Float32 as published, so that figures compare with the
    paper's; `half` stores float16, rounding each weight by up to 0.05%, at half the size. Probes
    trained on one are refused by the other, but how far the network was kept makes no difference.

    Raises WeightsError where the checkpoint can't be had, is another file, or does not fit.
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
        raise WeightsError(f"{path.parent} can't be made: {error.strerror}") from error
    identity = _weights_hash(source, half)
    shapes = expected_shapes(source.config, last_block)
    after = sum(shape.numel() for shape in shapes.values()) * (2 if half else 4)
    with _alone(path, say):
        kept = _kept_to(path, identity)
        if kept is not None and kept >= last_block:
            return Fetched(path, kept, None, path.stat().st_size)
        original = file or _downloaded(source, path, after, progress, say)
        if file is not None:
            _check_file(file, source)
            check_room(path.parent, after)
        say(f"checking the network and keeping it to decoder block {last_block}")
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
    return Fetched(path, last_block, before, path.stat().st_size)


def _downloaded(
    source: BackboneSource,
    path: Path,
    room_after: int,
    progress: Progress,
    say: Callable[[str], None],
) -> Path:
    """The checkpoint as published, beside `path`; there already where only its conversion failed."""
    original = path.with_name(f".{source.name}-{source.sha256[:12]}.pt")
    if not original.exists():
        say(f"fetching {source.url}")
        download(source.url, original, source.sha256, room_after, progress, source.bytes)
    return original


def _check_file(file: Path, source: BackboneSource) -> None:
    if not file.is_file():
        raise WeightsError(f"there is no weights file {file}")
    check_hash(file, source.sha256, str(file))


def _weights_hash(source: BackboneSource, half: bool) -> str:
    """What probes know the backbone by: the same however far it was kept."""
    if not half:
        return source.sha256
    return hashlib.sha256(f"{source.sha256} as float16".encode()).hexdigest()


def _kept_to(path: Path, weights_hash: str) -> int | None:
    """Last decoder block of the network that lies there; None where none or another one does."""
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError):
        return None  # damaged: it is replaced
    if header.get("weights_hash") != weights_hash:
        return None
    return int(header["last_block"])


@contextmanager
def _alone(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Let one process at a time fetch to `path`; the others wait and find it there."""
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(lock, "rb+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process fetches the same backbone: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
