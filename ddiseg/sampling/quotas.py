"""How many images of a batch each tone gets."""

from __future__ import annotations

from collections.abc import Mapping

#: Of the other tones' slots, the part that moves to the tone that the model serves worst.
MOVED = 1 / 3


def share_out(
    size: int, room: Mapping[str, int], seed: int = 0, so_far: Mapping[str, int] | None = None
) -> dict[str, int]:
    """`size` slots, as many for each tone, none beyond its room.

    What a tone has no room for goes to the others. Of slots that can't be shared alike, one each goes
    to the tones that had the fewest `so_far`; of equals, the one that comes first changes with the
    seed.
    """
    had = so_far or {}
    shares, left = {}, size
    waiting = sorted(room, key=lambda tone: room[tone])
    while waiting and room[waiting[0]] * len(waiting) <= left:
        tone = waiting.pop(0)
        shares[tone] = room[tone]
        left -= room[tone]
    if waiting:
        # Each of these has room for one more than its even share.
        even, odd = divmod(left, len(waiting))
        turn = {tone: (place - seed) % len(room) for place, tone in enumerate(room)}
        waiting.sort(key=lambda tone: (had.get(tone, 0), turn[tone]))
        shares |= {tone: even + (place < odd) for place, tone in enumerate(waiting)}
    return {tone: shares[tone] for tone in room}


def move_towards(worst: str, shares: Mapping[str, int], room: Mapping[str, int]) -> dict[str, int]:
    """A third of each other tone's slots go to `worst`, as far as it has room for them."""
    moved = dict(shares)
    for tone, slots in shares.items():
        if tone != worst:
            given = min(int(slots * MOVED), room[worst] - moved[worst])
            moved[tone] -= given
            moved[worst] += given
    return moved
