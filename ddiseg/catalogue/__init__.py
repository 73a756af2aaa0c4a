"""What is known about the images; see `ddiseg.catalogue.catalogue.Catalogue`."""

from ddiseg.catalogue.arrivals import REASON_MISSING, Page, Purpose, Received
from ddiseg.catalogue.catalogue import Catalogue
from ddiseg.catalogue.images import FROM_DIAGNOSIS, Details, KnownSource, NewImage, malignancy_kept
from ddiseg.catalogue.labelling import Arm, NewTask, Work
from ddiseg.catalogue.lifecycle import Action, State
from ddiseg.catalogue.malignancy import NewEstimate
from ddiseg.catalogue.masks import NewMask
from ddiseg.catalogue.model_versions import NewModelVersion
from ddiseg.catalogue.models import BatchOrigin, Dataset, Image, JobKind, ModelKind, Side

__all__ = [
    "FROM_DIAGNOSIS",
    "REASON_MISSING",
    "Action",
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
    "Page",
    "Purpose",
    "Received",
    "Side",
    "State",
    "Work",
    "malignancy_kept",
]
