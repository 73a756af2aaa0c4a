"""Numbers of images by tone group, for commands that name tones."""

from __future__ import annotations

from collections.abc import Mapping

from annotation_protocol import load_protocol

#: The tone groups in the protocol's order.
TONES = [tone.name for tone in load_protocol().tones]

TONE_HELP = (
    "Draw from this tone group; may be repeated.  [default: all; unknown only where more than a tenth "
    "of the images has no tone]"
)


def sizes_by_tone(by_tone: Mapping[str, int]) -> str:
    """Such as "3 images (I-II 2, V-VI 1)"."""
    order = sorted(by_tone, key=TONES.index)
    return f"{sum(by_tone.values())} images ({', '.join(f'{t} {by_tone[t]}' for t in order)})"
