"""How many images of a batch each tone gets."""

from __future__ import annotations

from collections.abc import Mapping

#: Of the other tones' slots, the part that moves to the tone that the model serves worst.
MOVED = 1 / 3


def share_out(size: int, room: Mapping[str, int], seed: int = 0) -> dict[str, int]:
    """`size` slots, as many for each tone, none beyond its room.

    What a tone has no room for goes to the others. Of slots that can't be shared alike, the tone
    that gets one first changes with the seed.
    """
    names = list(room)
    first = seed % len(names) if names else 0
    shares = dict.fromkeys(names, 0)
    left = size
    while left:
        waiting = [t for t in names[first:] + names[:first] if shares[t] < room[t]]
        if not waiting:
            break
        for tone in waiting[:left]:
            shares[tone] += 1
            left -= 1
    return shares


def move_towards(worst: str, shares: Mapping[str, int], room: Mapping[str, int]) -> dict[str, int]:
    """A third of each other tone's slots go to `worst`, as far as it has room for them."""
    moved = dict(shares)
    for tone, slots in shares.items():
        if tone != worst:
            given = min(int(slots * MOVED), room[worst] - moved[worst])
            moved[tone] -= given
            moved[worst] += given
    return moved
