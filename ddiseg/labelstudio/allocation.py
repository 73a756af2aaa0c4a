"""Stratified sampling of images: the same percentage of every tone, over all pushes together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor

from annotation_protocol.ranking import seeded_rank
from ddiseg.catalogue import Catalogue
from ddiseg.catalogue.tables import Image

#: Decimals of the carry: enough to be exact for percentages, few enough to drop float errors.
_DECIMALS = 9


class StratifiedAllocation:
    """The samples of one push, which continue those of the push before.

    A fifth of one image rounds to none, and so does a fifth of the next one: rounded push by push,
    small pushes would sample nothing, and the remainder would always go to the same tone. So each
    push records its remainders, the carry.
    """

    def __init__(self, carry: Mapping[str, Mapping[str, float]]) -> None:
        #: Images still to be sampled, by sample and tone; negative if too many were. Between -1
        #: and 1 in every tone.
        self.carry = {name: dict(by_tone) for name, by_tone in carry.items()}

    @classmethod
    def read(cls, catalogue: Catalogue) -> StratifiedAllocation:
        """Continue from the newest push of this workspace, to annotators or to reviewers."""
        return cls(catalogue.tasks.carry())

    def draw(self, name: str, images: Sequence[Image], percent: float, seed: int) -> set[int]:
        """Sample `percent` of images that were in no earlier sample of this name.

        Over all samples together, each tone is less than one image off its exact share, whatever
        the percentages were. Within that, the total is as close as possible, and the tones that are
        furthest behind come first. Within a tone, the seed decides.

        0 and 100 percent involve no chance and leave the carry as it is.

        Returns:
            The ids of the sampled images.
        """
        if percent in (0, 100):
            return {image.id for image in images if percent}
        by_tone: dict[str, list[Image]] = {}
        for image in sorted(images, key=lambda i: seeded_rank(name, seed, i.content_hash)):
            by_tone.setdefault(image.tone, []).append(image)
        carry = self.carry.setdefault(name, {})
        for tone, members in by_tone.items():
            carry[tone] = round(carry.get(tone, 0) + len(members) * percent / 100, _DECIMALS)
        quotas = self._quotas(name, {tone: len(members) for tone, members in by_tone.items()}, seed)
        for tone, quota in quotas.items():
            carry[tone] = round(carry[tone] - quota, _DECIMALS)
        return {i.id for tone, members in by_tone.items() for i in members[: quotas[tone]]}

    def _quotas(self, name: str, available: Mapping[str, int], seed: int) -> dict[str, int]:
        """Return how many images to sample of each tone in `available`."""
        carry = self.carry[name]
        quotas = {tone: max(0, floor(carry[tone])) for tone in available}
        rests = {tone: round(carry[tone] - quotas[tone], _DECIMALS) for tone in available}
        missing = round(round(sum(carry.values()), _DECIMALS)) - sum(quotas.values())
        for tone in sorted(available, key=lambda t: (-rests[t], seeded_rank(name, seed, t))):
            if missing > 0 and rests[tone] > 0 and quotas[tone] < available[tone]:
                quotas[tone] += 1
                missing -= 1
        return quotas
