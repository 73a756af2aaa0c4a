"""The catalogue: a database of images, masks, models and events; see `Catalogue`."""

from ddiseg.catalogue.annotations import REASON_MISSING, AnnotationPage, AnnotationVersion
from ddiseg.catalogue.catalogue import Catalogue
from ddiseg.catalogue.images import FROM_DIAGNOSIS, Details, KnownSource, NewImage, malignancy_kept
from ddiseg.catalogue.lifecycle import SETTLED, Action, State
from ddiseg.catalogue.malignancy import NewEstimate
from ddiseg.catalogue.masks import NewMask
from ddiseg.catalogue.model_versions import NewModelVersion
from ddiseg.catalogue.tables import (
    Arm,
    BatchOrigin,
    Dataset,
    Image,
    JobKind,
    ModelKind,
    Purpose,
    Split,
)
from ddiseg.catalogue.tasks import NewTask

__all__ = [
    "FROM_DIAGNOSIS",
    "REASON_MISSING",
    "SETTLED",
    "Action",
    "AnnotationPage",
    "AnnotationVersion",
    "Arm",
    "BatchOrigin",
    "Catalogue",
    "Dataset",
    "Details",
    "Image",
    "JobKind",
    "KnownSource",
    "ModelKind",
    "NewEstimate",
    "NewImage",
    "NewMask",
    "NewModelVersion",
    "NewTask",
    "Purpose",
    "Split",
    "State",
    "malignancy_kept",
]
