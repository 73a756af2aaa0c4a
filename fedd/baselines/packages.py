"""Check whether the packages of the extra `[baselines]` work, and what to install if not.

`python -m fedd.baselines` prints the answer in one line; `make` runs it after every installation.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from fedd.errors import MissingPackageError

#: Where PyTorch keeps builds of a variant, such as cpu or cu126.
_INDEX = "https://download.pytorch.org/whl"


@contextmanager
def needing_baselines() -> Iterator[None]:
    """Turn a missing or broken package of the extra into how to install it.

    Raises:
        MissingPackageError: a package is missing, or torchvision was built for another torch.
    """
    try:
        yield
    except ImportError as error:
        raise MissingPackageError(
            f"baselines need {error.name}: pip install 'ddiseg[baselines]'"
        ) from error
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        raise MissingPackageError(_mismatch(version("torch"), version("torchvision"))) from error


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
