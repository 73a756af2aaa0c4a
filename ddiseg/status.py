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
            in_labelling=sum(n for (_, state), n in counts.items() if state == State.IN_LABELLING),
            accepted=len(accepted),
            subsets=len(subsets),
            model=model.name if model else None,
            unlearned=sum(mask.content_hash not in learned for mask in accepted.values()),
            unpainted=len(open_images - painted),
            open_images=len(open_images),
        ),
    )


def _next_step(
    *,
    images: int,
    submitted: int,
    in_labelling: int,
    accepted: int,
    subsets: int,
    model: str | None,
    unlearned: int,
    unpainted: int,
    open_images: int,
) -> str:
    if not images:
        return "import photographs: ddiseg import PATH"
    if submitted:
        return f"have a second person review the {submitted} submitted masks: ddiseg review push"
    back = f"bring back what people did with the {in_labelling} images they have: ddiseg label pull"
    if in_labelling and not accepted:
        return back
    if not accepted and not subsets:
        return "draw the images to label first: ddiseg subset draw NAME --per-tone 10"
    if not accepted:
        return (
            "give them to annotators: ddiseg label push --subset NAME; or bring in reviewed masks: "
            "ddiseg masks import PATH --annotator WHO --reviewer SECOND"
        )
    if model is None:
        return f"train probes on the {accepted} accepted masks: ddiseg refresh"
    if unlearned:
        return f"{unlearned} accepted masks are new to {model}: ddiseg refresh"
    if unpainted:
        return f"{unpainted} images are not painted by {model} yet: ddiseg prelabel"
    if in_labelling:
        return back
    if open_images:
        return f"give the {open_images} painted images to annotators: ddiseg label push"
    return "all is done; look at it or release it: ddiseg report, ddiseg export"
