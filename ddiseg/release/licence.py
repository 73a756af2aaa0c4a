"""What may be done with a release: a text for people, from what the datasets say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ddiseg.release.release import ReleaseItem

LICENCE_FILE = "LICENCE.txt"


def licence_text(items: Sequence[ReleaseItem], *, images: bool) -> str:
    """The licence and source of each dataset, and what that means for this release."""
    counts = Counter(i.dataset.id for i in items)
    datasets = sorted({i.dataset.id: i.dataset for i in items}.values(), key=lambda d: d.id)
    lines = ["Licences and sources", ""]
    for dataset in datasets:
        lines += [
            f"{dataset.name}: {counts[dataset.id]} images",
            f"  licence: {dataset.licence or 'not recorded; ask the source before you pass this on'}",
            f"  source:  {dataset.source or 'not recorded'}",
            "",
        ]
    lines.append(
        "The photographs in this folder stay under the licence of their dataset. The masks were drawn "
        "from them and may be used as that licence allows."
        if images
        else "This folder holds masks only. The photographs must be had from their source, under the "
        "licence of their dataset, and the masks may be used as that licence allows."
    )
    lines.append("Name the source of each dataset in whatever you publish.")
    predicted = sum(not i.accepted for i in items)
    if predicted:
        lines.append(
            f"{predicted} of the {len(items)} masks are predictions of a model that no person has "
            "reviewed. They are marked as not accepted, are research output, and are no diagnosis."
        )
    return "\n".join(lines) + "\n"
