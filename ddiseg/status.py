"""Where a workspace stands, and what to do next."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ddiseg.catalogue import Catalogue, State
from ddiseg.catalogue.models import Dataset, ModelVersion
from ddiseg.errors import NotFoundError


@dataclass(frozen=True)
class Status:
    """Counts of one moment."""

    counts: dict[tuple[str, str], int]  #: images by (tone, state)
    datasets: list[tuple[Dataset, int]]  #: with the number of their images
    model: ModelVersion | None  #: the one in use
    accepted: int  #: accepted masks
    skips: dict[str, int]  #: skipped images by reason
    subsets: dict[str, dict[str, int]]  #: images by subset and tone
    next_step: str

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def status(catalogue: Catalogue) -> Status:
    """Count what the catalogue holds; reads only."""
    images = catalogue.images.select()
    by_dataset = Counter(image.dataset_id for image in images)
    counts = catalogue.images.counts()
    accepted = catalogue.masks.accepted()
    try:
        model = catalogue.models.current()
    except NotFoundError:
        model = None
    open_images = {i.id for i in images if i.state not in (State.ACCEPTED, State.SKIPPED)}
    painted = catalogue.masks.predicted_by(model.id) if model else set()
    learned = set(model.training_masks) if model else set()
    subsets = catalogue.subsets.sizes()
    return Status(
        counts=counts,
        datasets=[(d, by_dataset[d.id]) for d in catalogue.images.datasets()],
        model=model,
        accepted=len(accepted),
        skips=dict(Counter(skip.reason for skip in catalogue.images.skips())),
        subsets=subsets,
        next_step=_next_step(
            images=len(images),
            submitted=sum(n for (_, state), n in counts.items() if state == State.SUBMITTED),
            accepted=len(accepted),
            subsets=len(subsets),
            model=model.name if model else None,
            unlearned=sum(mask.content_hash not in learned for mask in accepted.values()),
            unpainted=len(open_images - painted),
        ),
    )


def _next_step(
    *,
    images: int,
    submitted: int,
    accepted: int,
    subsets: int,
    model: str | None,
    unlearned: int,
    unpainted: int,
) -> str:
    if not images:
        return "import photographs: ddiseg import PATH"
    if submitted:
        return (
            f"let a second person review the {submitted} submitted masks, then: "
            "ddiseg masks import PATH --annotator WHO --reviewer SECOND"
        )
    if not accepted and not subsets:
        return "draw the images to label first: ddiseg subset draw NAME --per-tone 10"
    if not accepted:
        return "bring in reviewed masks: ddiseg masks import PATH --annotator WHO --reviewer SECOND"
    if model is None:
        return f"train probes on the {accepted} accepted masks: ddiseg refresh"
    if unlearned:
        return f"{unlearned} accepted masks are new to {model}: ddiseg refresh"
    if unpainted:
        return f"{unpainted} images are not painted by {model} yet: ddiseg prelabel"
    return "all is painted; look at it or release it: ddiseg report, ddiseg export"
