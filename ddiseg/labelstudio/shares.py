"""Which images a share of them is: by tone, and by seed."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from ddiseg.catalogue.models import Image


def draw_share(
    images: Sequence[Image],
    percent: float,
    seed: int,
    what: str,
    drawn_before: Collection[int] = (),
) -> set[int]:
    """Ids of `percent` of the images, the same share of every tone, by seed.

    Each tone gets its share rounded down; what is left goes to the tones with the largest rests.
    Images that were drawn before are drawn first: a draw from what is left adds no more of them.
    """
    by_tone: dict[str, list[Image]] = {}
    for image in sorted(images, key=lambda i: i.content_hash):  # no row number decides
        by_tone.setdefault(image.tone, []).append(image)
    exact = {tone: len(of) * percent / 100 for tone, of in by_tone.items()}
    quota = {tone: int(share) for tone, share in exact.items()}
    rest = round(sum(exact.values())) - sum(quota.values())
    for tone in sorted(exact, key=lambda t: (quota[t] - exact[t], t))[:rest]:
        quota[tone] += 1
    drawn: set[int] = set()
    for tone, of in by_tone.items():
        order = random.Random(f"{what} {seed} {tone}").sample(of, len(of))
        order.sort(key=lambda image: image.id not in drawn_before)
        drawn.update(image.id for image in order[: quota[tone]])
    return drawn
