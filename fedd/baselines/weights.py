"""Which weights a baseline starts from: ImageNet's, a file's, or none."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fedd.errors import WeightsError
from fedd.weights.files import check_fit


class Start(Enum):
    """Where the weights before training come from, where no file is named."""

    IMAGENET = "imagenet"  #: fetched by the library that has the network
    SCRATCH = "from-scratch"  #: random


#: torchvision's older DenseNet files say `norm.1` where the network says `norm1`.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def fill(
    net: nn.Module, tensors: Mapping[str, Tensor], optional: tuple[str, ...], name: str, path: Path
) -> None:
    """Load `tensors` into `net`; of keys that begin with one of `optional`, those that fit.

    Raises WeightsError, which calls the network `name`, where the others of the file `path` are not
    exactly the network's.
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
        # A batch norm counts its batches only since torch 0.4.1; older files lack the counter.
        if key.startswith(optional) or key.endswith("num_batches_tracked")
    }
    check_fit(shapes, own | given, name, path)
    net.load_state_dict(own | given)


@contextmanager
def fetching(name: str) -> Iterator[None]:
    """Turns a failed download of the ImageNet weights of `name` into what to do instead."""
    try:
        yield
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"the ImageNet weights of {name} could not be fetched ({reason}): try again online, "
            "give a file with --weights, or say --from-scratch"
        ) from error


def stored_kind(path: Path) -> str:
    """What a safetensors file says that it holds; raises WeightsError where it is none."""
    try:
        with safe_open(path, "pt") as file:
            return str((file.metadata() or {}).get("kind", "something else"))
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} can't be read as safetensors: {error}") from error


class ImageNetInput(nn.Module):
    """Images in [-1, 1] as the networks trained on ImageNet saw them."""

    def forward(self, images: Tensor) -> Tensor:
        mean = images.new_tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
        std = images.new_tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
        return ((images + 1) / 2 - mean) / std
