"""Draw batches: what to label next, a quota a tone, within a tone by strategy.

Of a patient and of near-duplicates a batch has at most one image. A fixed share is drawn by lot:
those images test the model without bias, and are recorded as such.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddiseg.catalogue import BatchOrigin, Catalogue
from ddiseg.catalogue.batches import Member, NewMember
from ddiseg.catalogue.tables import ModelVersion
from ddiseg.errors import InputError, NotFoundError
from ddiseg.sampling.pool import BatchPool
from ddiseg.sampling.quotas import move_towards, share_out
from ddiseg.sampling.strategies import Candidates, Pick, Strategy, in_effect, pick
from ddiseg.sampling.subsets import UNKNOWN, check_name
from ddiseg.sampling.worst_tone import Worst, worst_tone

_PRELABEL = "run 'ddiseg prelabel' first"
_NO_MODEL = "there is no model yet"

#: Why MIXED was something simpler in a tone, where there is a model.
_INSTEAD = {
    Strategy.RANDOM: f"there are no predictions: {_PRELABEL}",
    Strategy.UNCERTAINTY: "no descriptors are stored: they come with the next model version",
    Strategy.DIVERSITY: f"the model in use has predicted nothing: {_PRELABEL}",
}


@dataclass(frozen=True)
class BatchRequest:
    """What to draw.

    Raises InputError for a size or a share that can't be.
    """

    size: int
    strategy: Strategy = Strategy.MIXED
    towards_worst: bool = False  #: more of the tone whose lesion IoU has the lowest lower bound
    random_share: float = 20  #: percent
    seed: int = 0
    tones: tuple[str, ...] = ()  #: empty: all that there are, see `tones_to_draw`

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"--size {self.size}: give the number of images, from 1 up")
        if not 0 <= self.random_share <= 100:
            raise InputError(f"--random-share {self.random_share:g}: give a percentage, 0 to 100")


@dataclass(frozen=True)
class DrawnBatch:
    """A batch as it is stored after a draw."""

    members: list[Member]
    new: bool  #: False where it had been drawn before, by the same request
    notes: list[str]  #: what was left out or done otherwise, and why
    lacking: list[str]  #: tones that could not be filled

    @property
    def by_tone(self) -> dict[str, int]:
        """Number of images by tone."""
        return dict(Counter(member.image.tone for member in self.members))

    @classmethod
    def read(
        cls, catalogue: Catalogue, name: str, drawn_by: Mapping[str, Any], *, new: bool
    ) -> DrawnBatch:
        """What the catalogue holds under `name`."""
        return cls(
            catalogue.batches.members(name), new, list(drawn_by["notes"]), list(drawn_by["lacking"])
        )


def draw_batch(
    catalogue: Catalogue,
    name: str,
    request: BatchRequest,
    actor: str,
    *,
    strict: bool = False,
    origin: BatchOrigin = BatchOrigin.PERSON,
) -> DrawnBatch:
    """Draw and store the batch `name`; its images that are new are queued.

    The same name and request again are unchanged. `origin` says who will give it to people.

    Raises:
        InputError: an unusable name or one that stands for another request; nothing to draw, or
            nothing to judge it by; if `strict`, a tone that can't be filled.
    """
    check_name(name, "a batch")
    asked = json.loads(json.dumps(asdict(request)))  # as the catalogue gives it back
    there = next((b for b in catalogue.batches.all() if b.name == name), None)
    if there is not None:
        before = there.drawn_by
        if there.origin != origin:
            raise InputError(
                f"batch '{name}' exists and was drawn by a {there.origin}: draw under another name"
            )
        if before["request"] != asked:
            raise InputError(
                f"batch '{name}' exists and was drawn by another request ('ddiseg batch show "
                f"{name}' tells which): draw under another name"
            )
        _check_filled(before["lacking"], strict)
        return DrawnBatch.read(catalogue, name, before, new=False)
    draw = _Draw(catalogue, request)
    draw.fill()
    drawn_by = {
        "request": asked,
        "model": draw.version.name if draw.version else None,
        "worst": asdict(draw.worst) if draw.worst else None,
        "so_far": draw.so_far,
        "notes": draw.notes(),
        "lacking": draw.lacking(),
    }
    _check_filled(drawn_by["lacking"], strict)
    members = draw.members()
    if not members:
        raise InputError(f"no image can be drawn for '{name}': {draw.why_empty()}")
    catalogue.batches.store(name, members, drawn_by, actor, origin)
    return DrawnBatch.read(catalogue, name, drawn_by, new=True)


def _check_filled(lacking: list[str], strict: bool) -> None:
    if strict and lacking:
        raise InputError("--strict: a batch that lacks images; " + "; ".join(lacking))


class _Draw:
    """One draw, as far as it has come."""

    def __init__(self, catalogue: Catalogue, request: BatchRequest) -> None:
        self.request = request
        self.version = _version_in_use(catalogue)
        self._pool = BatchPool.read(
            catalogue,
            self.version,
            request.tones,
            request.size,
            request.seed,
            described=request.strategy in (Strategy.DIVERSITY, Strategy.MIXED),
        )
        tones = list(self._pool.candidates)
        self.worst: Worst | None = None
        if request.towards_worst:
            # How well images without a tone are served says nothing of any skin.
            known = [t for t in tones if t != UNKNOWN or t in request.tones] or tones
            self.worst = worst_tone(catalogue, self.version, known)
        self._labelled = {self._group(position) for position in self._pool.labelled}
        self._batch: set[str] = set()  #: groups of the images picked
        self._picked: dict[str, list[tuple[int, Pick]]] = {tone: [] for tone in tones}
        self._related = 0  #: picked though related to what is labelled
        self._wanted = self._quotas(request.size, dict.fromkeys(tones, request.size))
        self._check_known()

    def fill(self) -> None:
        """Pick images; what a tone can't fill goes to the others."""
        room = {tone: len(positions) for tone, positions in self._pool.candidates.items()}
        slots = self._quotas(self.request.size, room)
        by_lot = round(self.request.random_share / 100 * self.request.size)
        at_random = share_out(by_lot, slots, self.request.seed, self._pool.by_lot)
        while any(slots.values()):
            for tone, more in slots.items():
                aim = len(self._picked[tone]) + more
                self._fill_tone(tone, aim, at_random.get(tone, 0))
                # What is left of a tone that falls short is related to what is picked.
                short = len(self._picked[tone]) < aim
                room[tone] = 0 if short else room[tone] - more
            missing = self.request.size - sum(map(len, self._picked.values()))
            # By lot is drawn before all else, or it would not be out of all images.
            slots, at_random = self._quotas(missing, room), {}

    def members(self) -> list[NewMember]:
        return [
            NewMember(self._pool.rows[position].id, each.random, each.reason)
            for picks in self._picked.values()
            for position, each in picks
        ]

    def notes(self) -> list[str]:
        """What was left out or done otherwise, and why."""
        notes = [*self._pool.notes, *self._not_judged()]
        if self._related:
            notes.append(
                f"{self._related} are of a patient, or near-duplicates of an image, that is "
                "labelled or in an open batch: there were no others"
            )
        if self.worst is not None:
            notes.append(str(self.worst))
        return notes

    def why_empty(self) -> str:
        """Where the images are when none may be drawn, and what to do about it."""
        return self._pool.why_empty()

    def lacking(self) -> list[str]:
        """Tones with fewer images than they should have, where there are images enough."""
        return [
            f"{tone}: {len(picks)} of the {self._wanted[tone]} wanted"
            for tone, picks in self._picked.items()
            if len(picks) < self._wanted[tone]
        ]

    @property
    def so_far(self) -> dict[str, dict[str, int]]:
        """Images by tone that earlier batches drew: they decide who gets odd slots."""
        return {"drawn": self._pool.drawn, "by_lot": self._pool.by_lot}

    def _quotas(self, size: int, room: Mapping[str, int]) -> dict[str, int]:
        """`size` more slots by tone."""
        so_far = {tone: n + len(self._picked[tone]) for tone, n in self._pool.drawn.items()}
        shares = share_out(size, room, self.request.seed, so_far)
        return move_towards(self.worst.tone, shares, room) if self.worst else shares

    def _fill_tone(self, tone: str, slots: int, at_random: int) -> None:
        pool, picks = self._pool, self._picked[tone]
        positions = pool.candidates[tone]
        descriptors = pool.descriptors[positions]
        for strategy, aim in ((Strategy.RANDOM, at_random), (self.request.strategy, slots)):
            for apart in (True, False):  # relatives of what is labelled only for want of others
                missing = aim - len(picks)
                if missing <= 0:
                    break
                near = [*pool.labelled_of(tone), *(position for position, _ in picks)]
                centres = pool.descriptors[near]
                candidates = Candidates(
                    pool.uncertainties[positions],
                    descriptors,
                    centres[np.isfinite(centres).all(axis=1)],
                )
                found = pick(strategy, candidates, missing, self._take(positions, apart))
                picks += [(int(positions[each.index]), each) for each in found]
                self._related += 0 if apart else len(found)

    def _take(self, positions: NDArray[np.intp], apart: bool) -> Callable[[int], bool]:
        def take(index: int) -> bool:
            group = self._group(positions[index])
            if group in self._batch or (apart and group in self._labelled):
                return False
            self._batch.add(group)
            return True

        return take

    def _group(self, position: int) -> str:
        return self._pool.groups[self._pool.rows[position].id]

    def _check_known(self) -> None:
        """Raises InputError where the strategy knows nothing of any image."""
        strategy, pool = self.request.strategy, self._pool
        everyone = np.concatenate([np.empty(0, np.intp), *pool.candidates.values()])
        known = {
            Strategy.UNCERTAINTY: np.isfinite(pool.uncertainties[everyone]),
            Strategy.DIVERSITY: np.isfinite(pool.descriptors[everyone, 0]),
        }.get(strategy)
        if known is not None and everyone.size and not known.any():
            none = (
                f"the model in use has predicted none of these images: {_PRELABEL}, or"
                if self.version
                else f"{_NO_MODEL}:"
            )
            raise InputError(f"--strategy {strategy}: {none} draw with --strategy random")

    def _not_judged(self) -> list[str]:
        """Tones in which MIXED was something simpler, and images that nothing is known of."""
        notes, unpainted, every = [], 0, 0
        for tone, positions in self._pool.candidates.items():
            painted = np.isfinite(self._pool.uncertainties[positions])
            described = np.isfinite(self._pool.descriptors[positions, 0])
            every += len(positions)
            unpainted += int((~painted).sum())
            used = in_effect(self.request.strategy, painted, described)
            if used is not self.request.strategy and self._picked[tone]:
                why = _INSTEAD[used] if self.version else _NO_MODEL
                notes.append(f"{tone}: {used} instead of mixed, since {why}")
        judged_by_model = self.request.strategy in (Strategy.UNCERTAINTY, Strategy.MIXED)
        if judged_by_model and 0 < unpainted < every:
            notes.append(
                f"{unpainted} of {every} images that may be drawn are not painted by the model in "
                f"use and come last: {_PRELABEL}"
            )
        return notes


def _version_in_use(catalogue: Catalogue) -> ModelVersion | None:
    try:
        return catalogue.models.current()
    except NotFoundError:
        return None
