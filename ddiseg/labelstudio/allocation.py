"""Which images a share of them is: the same share of every tone, however images are pushed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor

from annotation_protocol.ranking import seeded_rank
from ddiseg.catalogue import Catalogue
from ddiseg.catalogue.tables import Image

#: Decimals of what is owed: so many that a share is exact, too few for what float adds to it.
_DECIMALS = 9


class StratifiedAllocation:
    """The draws of one push, which go on from where the push before it ended.

    A fifth of one image is none, and of the next one is none again: rounded push by push, small
    pushes would draw nobody, and what rounding leaves would always go to the same tone. So each push
    writes down what it still owes.
    """

    def __init__(self, owed: Mapping[str, Mapping[str, float]]) -> None:
        #: Images, by draw and tone, that the share lacks so far; negative where it is ahead. In
        #: every tone between -1 and 1.
        self.owed = {what: dict(by_tone) for what, by_tone in owed.items()}

    @classmethod
    def read(cls, catalogue: Catalogue) -> StratifiedAllocation:
        """What the newest push of this workspace, to annotators or to reviewers, left owed."""
        return cls(catalogue.tasks.carry())

    def draw(self, what: str, images: Sequence[Image], percent: float, seed: int) -> set[int]:
        """Ids of `percent` of the images, that none of the earlier draws of `what` was from.

        Over all draws together, each tone's number is less than one image off its exact share,
        whatever the percentage was in each. Within that, the total is as near as it can be, and the
        tones that are furthest behind come first. Within a tone, the seed decides.

        0 and 100 percent leave nothing to be drawn, and nothing owed.
        """
        if percent in (0, 100):
            return {image.id for image in images if percent}
        by_tone: dict[str, list[Image]] = {}
        for image in sorted(images, key=lambda i: seeded_rank(what, seed, i.content_hash)):
            by_tone.setdefault(image.tone, []).append(image)
        owed = self.owed.setdefault(what, {})
        for tone, of in by_tone.items():
            owed[tone] = round(owed.get(tone, 0) + len(of) * percent / 100, _DECIMALS)
        quotas = self._quotas(what, {tone: len(of) for tone, of in by_tone.items()}, seed)
        for tone, quota in quotas.items():
            owed[tone] = round(owed[tone] - quota, _DECIMALS)
        return {image.id for tone, of in by_tone.items() for image in of[: quotas[tone]]}

    def _quotas(self, what: str, there: Mapping[str, int], seed: int) -> dict[str, int]:
        """How many to draw of each tone that images are there of."""
        owed = self.owed[what]
        quotas = {tone: max(0, floor(owed[tone])) for tone in there}
        rests = {tone: round(owed[tone] - quotas[tone], _DECIMALS) for tone in there}
        missing = round(round(sum(owed.values()), _DECIMALS)) - sum(quotas.values())
        for tone in sorted(there, key=lambda t: (-rests[t], seeded_rank(what, seed, t))):
            if missing > 0 and rests[tone] > 0 and quotas[tone] < there[tone]:
                quotas[tone] += 1
                missing -= 1
        return quotas
