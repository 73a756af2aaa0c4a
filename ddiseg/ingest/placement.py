"""Where a mask lies over its photograph: sizes, stretched sides, and photographs that were turned.

A photograph is turned upright at import, by its EXIF orientation. Some tools draw on the turned
photograph, others on the file's raw pixels: a mask of those is turned in the same way where the
person who imports it says so. A polygon is turned with the mask that it was filled into.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ddiseg.errors import FileError, InputError
from ddiseg.ingest.mask_values import OtherSizeError
from ddiseg.masks import MAX_PIXELS
from ddiseg.masks.orientation import UPRIGHT, raw_size, turn_upright
from ddiseg.outcomes import Note

if TYPE_CHECKING:
    from ddiseg.catalogue.tables import Image
    from ddiseg.ingest.mask_files import MaskFile

#: Ratios of sides that differ by less are those of one picture at two sizes.
_SAME_SHAPE = 0.02


@dataclass(frozen=True)
class Geometry:
    """How masks were drawn, as the person who imports them says."""

    stretched: bool = False  #: on the photograph stretched to the mask's size
    raw_orientation: bool = False  #: on the file's raw pixels, which EXIF did not turn


#: Drawn on upright photographs of their own size.
AS_THEY_ARE = Geometry()


@dataclass(frozen=True)
class Placement:
    """One mask over its photograph. Sizes are (height, width)."""

    photograph: tuple[int, int]  #: upright
    orientations: frozenset[int | None]  #: EXIF orientations of its files; None: not recorded
    geometry: Geometry
    own: bool = False  #: drawn in ddiseg, where photographs are upright
    any_size: bool = False  #: its format says that it was drawn on the stretched photograph

    @classmethod
    def of(
        cls,
        file: MaskFile,
        image: Image,
        *,
        orientations: Mapping[int, frozenset[int | None]],
        geometry: Geometry,
    ) -> Placement:
        """Return the placement of a file over an image; `orientations` by image id."""
        return cls(
            (image.height, image.width),
            orientations.get(image.id, frozenset()),
            geometry,
            own=file.own,
            any_size=file.stretched,
        )

    def check(self, size: tuple[int, int]) -> None:
        """Raise InputError where a mask of `size`, as it is in its file, can't lie over the photograph."""
        turn = self._turn()
        wanted = raw_size(self.photograph, turn)
        if self.any_size:
            pass
        elif size != self.photograph and size[::-1] == self.photograph and turn < 5:
            raise self._swapped(size)
        elif self.geometry.stretched:
            if turn == UPRIGHT and self._turned(swapping=True) and self._shaped_raw(size):
                raise self._swapped(size)
        elif turn != UPRIGHT and size != wanted and size == self.photograph:
            raise FileError(
                f"is {_sides(size)}, as its upright photograph; the raw file is {_sides(wanted)}: "
                "import it without --raw-orientation",
                "has the sides of its upright photograph, not of the raw file: import it without "
                "--raw-orientation",
            )
        elif size != wanted:
            raise OtherSizeError(size, wanted)
        refuse_too_large(size)

    def place(self, mask: NDArray[Any]) -> tuple[NDArray[Any], list[Note]]:
        """Return an (H, W) mask as it lies over the upright photograph, and what to know of that.

        Raises:
            InputError: as `check` does.
        """
        height, width = mask.shape
        self.check((height, width))
        turn = self._turn()
        if turn != UPRIGHT:
            note = Note(f"turned upright, as its photograph was (EXIF {turn})")
            return turn_upright(mask, turn), [note]
        return mask, self._doubts((height, width))

    def _turn(self) -> int:
        """Return the EXIF orientation by which the mask has to be turned, 1 for none."""
        if not self.geometry.raw_orientation or self.own:
            return UPRIGHT
        turned = self._turned()
        if len(turned) > 1:
            raise InputError(
                "its photograph was imported from files that lie differently (EXIF "
                f"{' and '.join(map(str, turned))}): turn the mask upright and import it without "
                "--raw-orientation"
            )
        if not turned and None in self.orientations:
            raise InputError(
                "it is not recorded how the file of its photograph lies: import the photographs "
                "again, which records it, then the masks"
            )
        return turned[0] if turned else UPRIGHT

    def _turned(self, *, swapping: bool = False) -> list[int]:
        """Return the orientations of its files that are not upright; `swapping` the sides, or all."""
        known: Iterable[int] = (o for o in self.orientations if o is not None)
        return sorted(o for o in known if o != UPRIGHT and (o >= 5 or not swapping))

    def _shaped_raw(self, size: tuple[int, int]) -> bool:
        """Whether a size has the shape of the raw file and not that of the upright photograph."""
        return _same_shape(size, self.photograph[::-1]) and not _same_shape(size, self.photograph)

    def _swapped(self, size: tuple[int, int]) -> FileError:
        here = f"is {_sides(size)}, but its photograph is {_sides(self.photograph)}: "
        if turned := self._turned(swapping=True):
            exif = " or ".join(map(str, turned))
            why = (
                f"the photograph was turned upright at import (EXIF {exif}), and the mask has the "
                "sides of the raw file; give --raw-orientation, which turns it in the same way"
            )
        elif None in self.orientations:
            why = (
                "the sides are swapped. Was the photograph turned upright at import (EXIF)? Import "
                "the photographs again, which records it, then the masks with --raw-orientation"
            )
        else:
            why = (
                "the sides are swapped, though the photograph was not laid on its side at import: "
                "turn the mask as the photograph lies and export it again"
            )
        return FileError(here + why, why)

    def _doubts(self, size: tuple[int, int]) -> list[Note]:
        """Return a note where a mask of a turned photograph has sides that do not tell how it lies."""
        sides_tell = not self.any_size and self.photograph[0] != self.photograph[1]
        doubtful = [o for o in self._turned() if o < 5 or not sides_tell]
        if self.own or not doubtful:
            return []
        exif = " or ".join(map(str, doubtful))
        return [
            Note(
                f"the photograph was turned upright at import (EXIF {exif}); if the mask was drawn "
                "on the unturned file, give --raw-orientation"
            )
        ]


def refuse_too_large(size: tuple[int, int]) -> None:
    """Raise InputError where a mask of (height, width) has more pixels than any may have."""
    if size[0] * size[1] > MAX_PIXELS:
        raise InputError(
            f"is {_sides(size)} pixels large; {MAX_PIXELS:,} pixels at most: export it at the size "
            "of its photograph"
        )


def _same_shape(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return abs(math.log(a[0] * b[1] / (a[1] * b[0]))) < _SAME_SHAPE


def _sides(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
