"""Jobs: what a worker does with the items that it is given, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

Item_contra = TypeVar("Item_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


@dataclass(frozen=True)
class Refused:
    """The result of an item that can't be computed, alone, and why."""

    reason: str


#: Computes the results of a few items, in their order.
Work: TypeAlias = Callable[[Sequence[Item_contra]], Iterable[Result_co | Refused]]


class Job(Protocol[Item_contra, Result_co]):
    """What workers do with items.

    A job, its items and its results are pickled: they hold hashes, places and settings, and nothing
    that is open.
    """

    def open(self) -> Work[Item_contra, Result_co]:
        """Load what the work needs; called once on each worker.

        Raises:
            UserError: ends the whole run, on whichever worker it is raised. So does any exception of
                the work itself: what concerns one item alone is `Refused`.
        """
        ...


@dataclass(frozen=True)
class Resources:
    """What one worker takes of a node."""

    cpus: int = 1  #: also its threads
    gpus: int = 0
    workers: int = 1  #: how many there are in the cluster
    device: str = "cpu"  #: of networks: "cpu" or "cuda"
