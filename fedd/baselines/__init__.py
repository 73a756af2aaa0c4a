"""Baselines that the paper compares FEDD with: UNets for masks, CNNs for malignancy.

The UNets are segmentation_models_pytorch's and the CNNs torchvision's, both of the extra `[baselines]`,
which is imported only when a network is built.
"""

from fedd.baselines.cnns import (
    MODELS,
    ClassificationBaseline,
    CNNSettings,
    Diagnosed,
    diagnosed,
    load_cnn,
    train_cnn,
)
from fedd.baselines.settings import Recipe
from fedd.baselines.unets import ENCODERS, SegmentationBaseline, UNetSettings, load_unet, train_unet
from fedd.baselines.weights import Start

__all__ = [
    "ENCODERS",
    "MODELS",
    "CNNSettings",
    "ClassificationBaseline",
    "Diagnosed",
    "Recipe",
    "SegmentationBaseline",
    "Start",
    "UNetSettings",
    "diagnosed",
    "load_cnn",
    "load_unet",
    "train_cnn",
    "train_unet",
]
