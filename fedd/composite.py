"""Several backbones as one: each image passes once through each of them, at that part's own size.

The blocks of the parts are numbered through: after those of the first part come those of the second.
In `small+lite0`, `small` has the blocks 0 to 7 and EfficientNet-Lite0's 0 to 4 are 8 to 12.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fedd.backbone import Backbone, LocalBackbone, check_images
from fedd.network.architecture import Architecture
from fedd.weights.names import composite_hash


@dataclass(frozen=True)
class CompositeConfig:
    """The architectures of a composite's parts; an `Architecture` itself."""

    parts: tuple[Architecture, ...]

    @property
    def image_size(self) -> int:
        return max(part.image_size for part in self.parts)

    @property
    def decoder_blocks(self) -> int:
        return sum(part.decoder_blocks for part in self.parts)

    @property
    def largest_map_bytes(self) -> int:
        """Bytes of one image's largest feature map: the parts run one after the other."""
        return max(part.largest_map_bytes for part in self.parts)

    @property
    def offsets(self) -> tuple[int, ...]:
        """The number of each part's block 0."""
        counts = [part.decoder_blocks for part in self.parts]
        return tuple(sum(counts[:index]) for index in range(len(counts)))

    def own_blocks(self, blocks: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Yield the index of each part that has some of `blocks`, and these as the part numbers them."""
        for index, (part, first) in enumerate(zip(self.parts, self.offsets, strict=True)):
            own = [b - first for b in blocks if first <= b < first + part.decoder_blocks]
            if own:
                yield index, own

    def trace(self, blocks: Sequence[int]) -> dict[int, Tensor]:
        """Return the activations of one image as tensors without values, as `Architecture.trace`."""
        found: dict[int, Tensor] = {}
        for index, own in self.own_blocks(blocks):
            traced = self.parts[index].trace(own)
            found |= {block + self.offsets[index]: a for block, a in traced.items()}
        return found


class CompositeBackbone:
    """Backbones of different kinds that read the same image; a `fedd.backbone.LocalBackbone` itself.

    The image has the size of the largest part; the others get it resized, with antialiasing. A part
    that no requested block belongs to is not run. Threads may share it, as they may its parts.
    """

    def __init__(self, parts: Sequence[LocalBackbone]) -> None:
        if len(parts) < 2:
            raise ValueError(f"a composite has two parts or more, not {len(parts)}")
        self.parts = tuple(parts)
        self.name = "+".join(part.name for part in parts)
        self.hash = composite_hash([part.hash for part in parts])
        self.config = CompositeConfig(tuple(part.config for part in parts))
        self.image_size = self.config.image_size
        self.verified = all(part.verified for part in parts)
        self.precision = parts[0].precision
        self.blocks = self._numbered([part.blocks for part in parts])
        self.last_blocks = self._numbered([part.last_blocks for part in parts])

    @property
    def device(self) -> torch.device:
        return self.parts[0].device

    @property
    def devices(self) -> list[torch.device]:
        return self.parts[0].devices

    @property
    def side_by_side(self) -> int:
        """Images that may pass at once, on threads of a CPU: as many as every part allows."""
        return min(part.side_by_side for part in self.parts)

    def to(self, device: str, precision: str = "float32") -> CompositeBackbone:
        """Return the composite with all parts on a device, in a precision, as `DiffusionUNet.to` does."""
        moved = [part.to(device, precision) for part in self.parts]
        if all(new is old for new, old in zip(moved, self.parts, strict=True)):
            return self
        return CompositeBackbone(moved)

    def expect(self, images: int) -> None:
        """Tell that a job of so many images begins, as `DiffusionUNet.expect` does."""
        for part in self.parts:
            part.expect(images)

    @torch.inference_mode()
    def activations(
        self, images: Tensor, timestep: int, blocks: Sequence[int], noise: int = 0
    ) -> dict[int, Tensor]:
        """Return activations of `blocks`, in their order, as the parts' `activations` do.

        Raises as they do, and ValueError for a block that does not exist.
        """
        if unknown := sorted(set(blocks) - set(range(self.config.decoder_blocks))):
            last = self.config.decoder_blocks - 1
            raise ValueError(f"{self.name} has blocks 0 to {last}, not {unknown}")
        check_images(self, images)
        found: dict[int, Tensor] = {}
        for index, own in self.config.own_blocks(blocks):
            part, first = self.parts[index], self.config.offsets[index]
            of_part = part.activations(resized(images, part.image_size), timestep, own, noise)
            found |= {block + first: a for block, a in of_part.items()}
        return {block: found[block] for block in blocks}

    def _numbered(self, of_parts: Sequence[Sequence[int]]) -> tuple[int, ...]:
        """Return the parts' own block numbers as the composite numbers them."""
        pairs = zip(self.config.offsets, of_parts, strict=True)
        return tuple(first + block for first, blocks in pairs for block in blocks)


def parts_of(backbone: Backbone) -> tuple[Backbone, ...]:
    """Return the parts of a composite; of another backbone, itself."""
    return backbone.parts if isinstance(backbone, CompositeBackbone) else (backbone,)


def resized(images: Tensor, size: int) -> Tensor:
    """Return images (N, 3, S, S) in [-1, 1] at another size, antialiased, again of 256 levels.

    The levels are whole numbers, as in a photograph that was prepared at that size: a UNet's noise is
    seeded by them, and must not depend on how a device rounds.
    """
    if images.shape[-1] == size:
        return images
    levels = ((images + 1) * 127.5).round().to(torch.uint8).cpu()
    smaller = F.interpolate(levels, (size, size), mode="bicubic", antialias=True)
    return (smaller.float() / 127.5 - 1).to(images.device)
