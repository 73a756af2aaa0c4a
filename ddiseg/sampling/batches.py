"""Batches: the images to label next, by a quota for each tone and a strategy within the tone.

A batch has at most one image of a group (patient, lesion, near-duplicates). A fixed share is drawn
at random and recorded as such: those images test the model without selection bias.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddiseg.catalogue import BatchOrigin, Catalogue
from ddiseg.catalogue.batches import Member, NewMember
from ddiseg.errors import InputError
from ddiseg.sampling.pool import BatchPool
from ddiseg.sampling.quotas import WorstTone, focus_on, share_out, worst_tone
from ddiseg.sampling.strategies import Candidates, Pick, Strategy, TryTake, effective_strategy, pick
from ddiseg.sampling.subsets import UNKNOWN, check_name

_PRELABEL = "run 'ddiseg prelabel' first"
_NO_MODEL = "there is no model yet"

#: Why a simpler strategy took the place of MIXED in a tone, where there is a model.
_INSTEAD = {
    Strategy.RANDOM: f"there are no predictions: {_PRELABEL}",
    Strategy.QUALITY: "no embeddings are stored: they come with the next model version",
    Strategy.DIVERSITY: f"the current model has predicted nothing: {_PRELABEL}",
}


@dataclass(frozen=True)
class BatchRequest:
    """What to draw.

    Raises:
        InputError: an impossible size or share.
    """

    size: int
    strategy: Strategy = Strategy.MIXED
    focus_worst: bool = False  #: more of the tone whose lesion IoU has the lowest lower bound
    random_share: float = 20  #: percent
    seed: int = 0
    tones: tuple[str, ...] = ()  #: empty: all tones of the catalogue, see `tones_to_draw`

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"--size {self.size}: give the number of images, from 1 up")
        if not 0 <= self.random_share <= 100:
            raise InputError(f"--random-share {self.random_share:g}: give a percentage, 0 to 100")

    def to_dict(self) -> dict[str, Any]:
        """Return the request as the catalogue stores it."""
        values = asdict(self)
        values["towards_worst"] = values.pop("focus_worst")
        return {**values, "tones": list(self.tones)}


@dataclass(frozen=True)
class DrawnBatch:
    """A batch as the catalogue stores it."""

    members: list[Member]
    new: bool  #: False where the same request had drawn it before
    notes: list[str]  #: what was left out or done differently, and why
    lacking: list[str]  #: tones with fewer images than their quota

    @property
    def by_tone(self) -> dict[str, int]:
        """Return the number of images by tone."""
        return dict(Counter(member.image.tone for member in self.members))

    @classmethod
    def read(
        cls, catalogue: Catalogue, name: str, drawn_by: Mapping[str, Any], *, new: bool
    ) -> DrawnBatch:
        """Return the batch that the catalogue holds under `name`."""
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
    """Draw and store the batch `name`; its new images become queued.

    The same name and request again change nothing.

    Args:
        strict: refuse a batch that lacks images of a tone.
        origin: whether a person or a round of the loop draws it.

    Raises:
        InputError: an unusable name, or the name of another request; nothing to draw, or no
            predictions for the strategy; with `strict`, a tone that can't be filled.
    """
    check_name(name, "a batch")
    stored = next((b for b in catalogue.batches.all() if b.name == name), None)
    if stored is not None:
        before = stored.drawn_by
        if stored.origin != origin:
            raise InputError(
                f"batch '{name}' exists and was drawn by a {stored.origin}: draw under another name"
            )
        if before["request"] != request.to_dict():
            raise InputError(
                f"batch '{name}' exists and was drawn by another request ('ddiseg batch show "
                f"{name}' tells which): draw under another name"
            )
        _check_filled(before["lacking"], strict)
        return DrawnBatch.read(catalogue, name, before, new=False)
    draw = _Draw(catalogue, request)
    draw.fill()
    drawn_by: dict[str, Any] = {
        "request": request.to_dict(),
        "model": draw.version.name if draw.version else None,
        "worst": draw.worst.to_json() if draw.worst else None,
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
        raise InputError("--strict: the batch lacks images; " + "; ".join(lacking))


class _Draw:
    """A draw in progress."""

    def __init__(self, catalogue: Catalogue, request: BatchRequest) -> None:
        self.request = request
        self.version = catalogue.models.current_or_none()
        self._pool = BatchPool.read(
            catalogue,
            self.version,
            request.tones,
            request.size,
            request.seed,
            with_embeddings=request.strategy in (Strategy.DIVERSITY, Strategy.MIXED),
        )
        tones = list(self._pool.candidates)
        self.worst: WorstTone | None = None
        if request.focus_worst:
            # The IoU of images without a tone says nothing about any skin.
            known = [t for t in tones if t != UNKNOWN or t in request.tones] or tones
            self.worst = worst_tone(catalogue, self.version, known)
        labelled = [np.empty(0, np.intp), *self._pool.labelled.values()]
        self._labelled = set(self._pool.groups[np.concatenate(labelled)].tolist())
        self._batch: set[int] = set()  #: groups of the images picked
        self._picked: dict[str, list[tuple[int, Pick]]] = {tone: [] for tone in tones}
        self._related = 0  #: picked though in the group of a labelled image
        self._wanted = self._quotas(request.size, dict.fromkeys(tones, request.size))
        self._check_known()

    def fill(self) -> None:
        """Pick images; slots that a tone can't fill go to the others."""
        room = {tone: len(positions) for tone, positions in self._pool.candidates.items()}
        slots = self._quotas(self.request.size, room)
        n_random = round(self.request.random_share / 100 * self.request.size)
        at_random = share_out(n_random, slots, self.request.seed, self._pool.at_random)
        while any(slots.values()):
            for tone, more in slots.items():
                aim = len(self._picked[tone]) + more
                self._fill_tone(tone, aim, at_random.get(tone, 0))
                # The rest of a tone that falls short is in groups that are picked already.
                short = len(self._picked[tone]) < aim
                room[tone] = 0 if short else room[tone] - more
            missing = self.request.size - sum(map(len, self._picked.values()))
            # The random share comes first, or it would not be a sample of all images.
            slots, at_random = self._quotas(missing, room), {}

    def members(self) -> list[NewMember]:
        return [
            NewMember(int(self._pool.ids[position]), each.random, each.reason)
            for picks in self._picked.values()
            for position, each in picks
        ]

    def notes(self) -> list[str]:
        """Return what was left out or done differently, and why."""
        notes = [*self._pool.notes, *self._strategy_notes()]
        if self._related:
            notes.append(
                f"{self._related} share a patient or lesion with, or are near-duplicates of, an image "
                "that is labelled or in an open batch: there were no others"
            )
        if self.worst is not None:
            notes.append(str(self.worst))
        return notes

    def why_empty(self) -> str:
        """Return why no image may be drawn, and what to do about it."""
        return self._pool.why_empty()

    def lacking(self) -> list[str]:
        """Return the tones with fewer images than their quota."""
        return [
            f"{tone}: {len(picks)} of the {self._wanted[tone]} wanted"
            for tone, picks in self._picked.items()
            if len(picks) < self._wanted[tone]
        ]

    @property
    def so_far(self) -> dict[str, dict[str, int]]:
        """Return the images by tone in earlier batches, which decide who gets odd slots."""
        return {"drawn": self._pool.sampled, "by_lot": self._pool.at_random}

    def _quotas(self, size: int, room: Mapping[str, int]) -> dict[str, int]:
        """Return `size` more slots by tone."""
        so_far = {tone: n + len(self._picked[tone]) for tone, n in self._pool.sampled.items()}
        shares = share_out(size, room, self.request.seed, so_far)
        return focus_on(self.worst.tone, shares, room) if self.worst else shares

    def _fill_tone(self, tone: str, slots: int, at_random: int) -> None:
        pool, picks = self._pool, self._picked[tone]
        positions = pool.candidates[tone]
        embeddings = pool.embeddings.at(positions)
        for strategy, aim in ((Strategy.RANDOM, at_random), (self.request.strategy, slots)):
            for apart in (True, False):  # groups with a labelled image only if there are no others
                missing = aim - len(picks)
                if missing <= 0:
                    break
                candidates = Candidates(
                    pool.uncertainties[positions],
                    pool.quality[positions],
                    embeddings,
                    self._centres(tone, strategy),
                )
                found = pick(strategy, candidates, missing, self._try_take(positions, apart))
                picks += [(int(positions[each.index]), each) for each in found]
                self._related += 0 if apart else len(found)

    def _centres(self, tone: str, strategy: Strategy) -> NDArray[np.float32]:
        """Return the embeddings of the labelled and the picked images of a tone, (L, D)."""
        embeddings = self._pool.embeddings
        if strategy not in (Strategy.DIVERSITY, Strategy.MIXED):
            return np.empty((0, embeddings.shape[1]), np.float32)
        picked = np.array([position for position, _ in self._picked[tone]], np.intp)
        near = np.concatenate([self._pool.labelled_of(tone), picked])
        return embeddings[near[embeddings.known[near]]]

    def _try_take(self, positions: NDArray[np.intp], apart: bool) -> TryTake:
        def try_take(index: int) -> bool:
            group = int(self._pool.groups[positions[index]])
            if group in self._batch or (apart and group in self._labelled):
                return False
            self._batch.add(group)
            return True

        return try_take

    def _check_known(self) -> None:
        """Raise InputError where no candidate has what the strategy needs."""
        strategy, pool = self.request.strategy, self._pool
        everyone = np.concatenate([np.empty(0, np.intp), *pool.candidates.values()])
        known = {
            Strategy.QUALITY: pool.predicted[everyone],
            Strategy.UNCERTAINTY: pool.predicted[everyone],
            Strategy.DIVERSITY: pool.embeddings.known[everyone],
        }.get(strategy)
        if known is not None and everyone.size and not known.any():
            none = (
                f"the current model has predicted none of these images: {_PRELABEL}, or"
                if self.version
                else f"{_NO_MODEL}:"
            )
            raise InputError(f"--strategy {strategy}: {none} draw with --strategy random")

    def _strategy_notes(self) -> list[str]:
        """Return notes on tones where a simpler strategy took the place of MIXED, and on missing predictions."""
        notes, unpredicted, every = [], 0, 0
        for tone, positions in self._pool.candidates.items():
            predicted = self._pool.predicted[positions]
            embedded = self._pool.embeddings.known[positions]
            every += len(positions)
            unpredicted += int((~predicted).sum())
            used = effective_strategy(self.request.strategy, predicted, embedded)
            if used is not self.request.strategy and self._picked[tone]:
                why = _INSTEAD[used] if self.version else _NO_MODEL
                notes.append(f"{tone}: {used} instead of mixed, since {why}")
        if self.request.strategy in (Strategy.QUALITY, Strategy.MIXED):
            notes += self._unrated_note()
        by_model = self.request.strategy not in (Strategy.RANDOM, Strategy.DIVERSITY)
        if by_model and 0 < unpredicted < every:
            notes.append(
                f"{unpredicted} of {every} images that may be drawn have no prediction by the current "
                f"model and come last: {_PRELABEL}"
            )
        return notes

    def _unrated_note(self) -> list[str]:
        """Return a note where predictions come without an expected IoU."""
        positions = np.concatenate([np.empty(0, np.intp), *self._pool.candidates.values()])
        unrated = self._pool.predicted[positions] & np.isnan(self._pool.quality[positions])
        if not unrated.any() or self.version is None:
            return []
        return [
            f"{int(unrated.sum())} predictions of {self.version.name} have no expected IoU, which models "
            "trained by earlier versions of ddiseg do not tell: their uncertainty decides"
        ]
