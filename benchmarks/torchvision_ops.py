"""torchvision with a torch of another build, for benchmarks and tests only.

torchvision's compiled operators load only with the torch they were built for. None of the networks
here use them, but without two of them the package can't be imported at all.
"""

from __future__ import annotations

import torch

#: Keeps the definitions alive, which end with their library.
_defined: list[torch.library.Library] = []


def define_where_missing() -> None:
    """Make `import torchvision` work; changes nothing if it works already or is not installed."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _defined.append(library)
