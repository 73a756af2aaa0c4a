"""What is known of a network without its weights: its sizes, and what an image costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Architecture(Protocol):
    """A network without its weights: a UNet's, an encoder's, or those of a composite."""

    @property
    def image_size(self) -> int:
        """Width and height in pixels of the network's input."""
        ...

    @property
    def decoder_blocks(self) -> int:
        """Number of blocks of the whole network; they are numbered from 0."""
        ...

    @property
    def largest_map_bytes(self) -> int:
        """Bytes of one image's largest feature map in float32."""
        ...

    def __hash__(self) -> int: ...

    def trace(self, blocks: Sequence[int]) -> dict[int, Tensor]:
        """Return the activations of one image as tensors without values (device "meta").

        Everything up to `blocks` is run, so that operations and shapes can be counted.
        """
        ...
