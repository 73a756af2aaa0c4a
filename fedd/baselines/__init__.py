"""The networks that the paper compares FEDD against: UNets for masks, CNNs for malignancy.

The UNets are segmentation_models_pytorch's and the CNNs torchvision's, both of the extra
`[baselines]`, which is imported only when a network is built.
"""

from fedd.baselines.classifiers import (
    MODELS,
    ClassificationBaseline,
    ClassifierSettings,
    Diagnosed,
    load_classifier,
    train_classifier,
)
from fedd.baselines.unets import (
    ENCODERS,
    SegmentationBaseline,
    UNetSettings,
    load_unet,
    train_unet,
)
from fedd.baselines.weights import Start

__all__ = [
    "ENCODERS",
    "MODELS",
    "ClassificationBaseline",
    "ClassifierSettings",
    "Diagnosed",
    "SegmentationBaseline",
    "Start",
    "UNetSettings",
    "load_classifier",
    "load_unet",
    "train_classifier",
    "train_unet",
]
