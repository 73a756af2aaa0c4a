"""Initial weights of a baseline: ImageNet's, a file's, or random."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor, nn

from fedd.errors import WeightsError
from fedd.weights.files import check_fit


class Start(Enum):
    """Initial weights of a training, unless a file is given."""

    IMAGENET = "imagenet"  #: fetched by the library that has the network
    SCRATCH = "from-scratch"  #: random


#: torchvision's older DenseNet files have `norm.1` for the network's `norm1`.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def fill(
    net: nn.Module, tensors: Mapping[str, Tensor], optional: tuple[str, ...], name: str, path: Path
) -> None:
    """Load `tensors` into `net`; keys that begin with one of `optional` may be missing or not fit.

    Raises WeightsError if the other tensors of the file `path` are not exactly those of the network,
    which the message calls `name`.
    """
    expected = net.state_dict()
    shapes = {key: tensor.shape for key, tensor in expected.items()}
    named = {_OLD_DENSENET.sub(r"\1\2", key): tensor for key, tensor in tensors.items()}
    given = {
        key: tensor
        for key, tensor in named.items()
        if not key.startswith(optional) or shapes.get(key) == tensor.shape
    }
    own = {
        key: tensor
        for key, tensor in expected.items()
        # Files older than torch 0.4.1 lack the batch norms' counter.
        if key.startswith(optional) or key.endswith("num_batches_tracked")
    }
    check_fit(shapes, own | given, name, path)
    net.load_state_dict(own | given)


@contextmanager
def fetching(name: str, scratch: str = "--from-scratch") -> Iterator[None]:
    """Turn a failed download of the ImageNet weights of `name` into a WeightsError.

    `scratch` are the options for random weights instead.
    """
    try:
        yield
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"the ImageNet weights of {name} could not be fetched ({reason}): try again online, "
            f"give a file with --weights, or {scratch}"
        ) from error


@contextmanager
def reading(path: Path, network: str) -> Iterator[None]:
    """Turn what goes wrong while a stored network is built from its file into a WeightsError."""
    try:
        yield
    except KeyError as error:
        raise WeightsError(
            f"{path} holds no {network} of this version: it lacks {error}"
        ) from error
    except (TypeError, ValueError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path} holds no {network} of this version: {first}") from error


class ImageNetInput(nn.Module):
    """Converts images in [-1, 1] to the normalisation of networks trained on ImageNet."""

    def forward(self, images: Tensor) -> Tensor:
        mean = images.new_tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
        std = images.new_tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
        return ((images + 1) / 2 - mean) / std
