"""Import the packages of the extra `[baselines]`, or say what to install.

torchvision's compiled operators load only with the torch that they were built for, such as not with
torch's CPU build where pip took torchvision from PyPI. No network here uses them, so torchvision is used
without them.

`python -m fedd.baselines` prints the answer in one line; `make` runs it after every installation.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from fedd.errors import MissingPackageError

#: Where PyTorch keeps builds of a variant, such as cpu or cu126.
_INDEX = "https://download.pytorch.org/whl"


#: Part of torch's message where an operator's library was not loaded.
_MISSING_OPERATOR = "operator torchvision::"

#: Keeps the definitions of operators alive, which end with their library.
_defined: list[Any] = []


@contextmanager
def needing_baselines() -> Iterator[None]:
    """Turn a missing or broken package of the extra into how to install it.

    Raises:
        MissingPackageError: a package is missing, or torchvision can't be imported with this torch.
    """
    try:
        define_missing_operators()
        yield
    except ImportError as error:
        raise MissingPackageError(
            f"baselines need {error.name}: pip install 'ddiseg[baselines]'"
        ) from error
    except RuntimeError as error:
        if _MISSING_OPERATOR not in str(error):
            raise
        raise MissingPackageError(_mismatch(version("torch"), version("torchvision"))) from error


def define_missing_operators() -> None:
    """Make `import torchvision` work without its compiled operators; changes nothing if it works."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return  # said where it is needed
    except RuntimeError as error:
        if _MISSING_OPERATOR not in str(error) or _defined:
            return
        import torch

        library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _defined.append(library)


def baselines_problem() -> str:
    """Return why the baselines can't be run here and what to install, or "" if they can."""
    try:
        with needing_baselines():
            import segmentation_models_pytorch  # noqa: F401
            import torchvision  # noqa: F401
    except MissingPackageError as error:
        return str(error)
    return ""


def _mismatch(torch: str, torchvision: str) -> str:
    """Name the command that installs both from one index: that of torch's build."""
    pins, variant = torchvision.partition("+")[0], torch.partition("+")[2]
    index = f" --index-url {_INDEX}/{variant}" if variant else ""
    return (
        f"torchvision {torchvision} was built for another torch than {torch}: "
        f"{sys.executable} -m pip install --force-reinstall --no-deps torch=={torch.partition('+')[0]} "
        f"torchvision=={pins}{index}"
    )
