"""Jobs that workers of a test's cluster run; they must be importable there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddiseg.compute.job import Refused
from fedd.errors import DeviceMemoryError


@dataclass(frozen=True)
class Doubling:
    """Doubles numbers; some of them end the process that computes them."""

    deadly: int = -1  #: always
    deadly_once: int = -1  #: the first time, which a file in `folder` tells
    folder: str = ""

    def open(self) -> Callable[[Sequence[int]], Iterator[int | Refused]]:
        def work(items: Sequence[int]) -> Iterator[int | Refused]:
            for item in items:
                if item == self.deadly or (item == self.deadly_once and self._first()):
                    os._exit(1)
                yield Refused("odd") if item % 2 else 2 * item

        return work

    def _first(self) -> bool:
        try:
            (Path(self.folder) / "met").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


@dataclass(frozen=True)
class Failing:
    """A job that can't be opened, or whose work fails."""

    at_start: bool

    def open(self) -> Callable[[Sequence[int]], Iterator[int | Refused]]:
        if self.at_start:
            raise DeviceMemoryError("no memory for the network")

        def work(items: Sequence[int]) -> Iterator[int | Refused]:
            yield items[0]
            raise DeviceMemoryError("no memory for a photograph")

        return work
