"""A job on a pool of Ray actors: Ray Data hands out batches, restarts workers and repeats their batches.

An item that kills its worker would be repeated for ever. So each batch is noted when it begins
(`_Attempts`): one whose worker died is computed item by item from then on, and an item during which
workers died TRIES times is refused alone. Exceptions are results too, so that Ray repeats only what died.
"""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any, TypeVar

from annotation_protocol import UserError
from ddiseg.compute.job import Job, Refused, Resources
from ddiseg.errors import WorkspaceError

Q = TypeVar("Q")
R = TypeVar("R")

#: Workers that may die while they compute an item, besides the one that had it in a batch.
TRIES = 2

#: Workers that may die one after the other before one has begun to work.
DEATHS_AT_START = 5

#: Items of a batch: few on a CPU, so that a killed worker loses seconds; on a GPU what it computes at once.
CPU_BATCH, GPU_BATCH = 8, 64

#: Batches that Ray is given at a time: it takes milliseconds for each before the first is computed.
BATCHES = 4_000

DIED = (
    f"its worker died {TRIES + 1} times while it was computed (out of memory, or a file that crashes the "
    "decoder): look at it, and try it alone with --engine local"
)


def map_on_actors(
    job: Job[Q, R], items: Sequence[Q], resources: Resources
) -> Generator[tuple[int, R | Refused], None, None]:
    """Yield the number and the result of each item as it is computed, each once, in any order.

    Raises:
        WorkspaceError: Ray broke down.
        UserError: the job can't be done, see `Job.open`.
    """
    if not items:
        return
    import ray
    from ray.exceptions import RayError

    left = set(range(len(items)))
    fault: Exception | None = None
    attempts = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Attempts).remote()
    try:
        with closing(_rows(job, items, resources, attempts)) as rows:
            for number, result in rows:
                if number < 0:
                    fault = result
                    break
                if number in left:  # a batch that was repeated may come twice
                    left.remove(number)
                    yield number, result
    except RayError as error:
        if fault is None:
            raise WorkspaceError(_broken(error)) from error
    if fault is not None:
        raise fault
    if left:
        raise WorkspaceError(f"Ray lost the results of {len(left):,} of {len(items):,} images")


def _broken(error: Exception) -> str:
    first = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return f"the Ray cluster broke down ({first[:200]})"


def _rows(
    job: Job[Q, R], items: Sequence[Q], resources: Resources, attempts: Any
) -> Generator[tuple[int, Any], None, None]:
    """Yield numbers and unpickled results, as batches end."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_consecutive_actor_init_deaths = DEATHS_AT_START
    size = GPU_BATCH if resources.gpus else CPU_BATCH
    size = max(1, min(size, len(items) // (2 * resources.workers)))
    for first in range(0, len(items), BATCHES * size):
        starts = range(first, min(first + BATCHES * size, len(items)), size)
        batches = [
            _table("item", range(start, min(start + size, len(items))), items[start : start + size])
            for start in starts
        ]
        yield from _computed(job, batches, resources, attempts)


def _computed(
    job: Job[Q, R], batches: Sequence[Any], resources: Resources, attempts: Any
) -> Generator[tuple[int, Any], None, None]:
    """Yield numbers and unpickled results of batches, by a pool of actors of their own."""
    import ray.data

    done = ray.data.from_arrow(batches).map_batches(
        _Worker,
        fn_constructor_args=(job, attempts),
        batch_size=None,  # a block is a batch
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            min_size=1,
            max_size=resources.workers,
            initial_size=resources.workers,
            max_tasks_in_flight_per_actor=2,
        ),
        num_cpus=0 if resources.gpus else resources.cpus,
        num_gpus=resources.gpus,
    )
    found = done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for table in found:
        for number, result in zip(table["number"], table["result"], strict=True):
            yield number.as_py(), pickle.loads(result.as_buffer())


class _Attempts:
    """Counts how often batches and items were begun: more than once, where a worker died."""

    def __init__(self) -> None:
        self._begun: Counter[tuple[str, int]] = Counter()

    def begin(self, what: str, number: int) -> int:
        """Note that a "batch", by its first item, or an "item" is begun; return how often it was before."""
        self._begun[what, number] += 1
        return self._begun[what, number] - 1


class _Worker:
    """What runs in an actor: a job that is open."""

    def __init__(self, job: Job[Any, Any], attempts: Any) -> None:
        self._attempts, self._fault = attempts, None
        try:
            self._work = job.open()
        except Exception as error:  # noqa: BLE001 - the driver raises it
            self._fault = portable(error)

    def __call__(self, batch: Any) -> Any:
        numbers = batch["number"].to_pylist()
        try:
            if self._fault is not None:
                raise self._fault
            items = [pickle.loads(item.as_buffer()) for item in batch["item"]]
            results = self._results(numbers, items)
        except Exception as error:  # noqa: BLE001 - the driver raises it
            numbers, results = [-1], [portable(error)]
        return _table("result", numbers, results)

    def _results(self, numbers: Sequence[int], items: Sequence[Any]) -> list[Any]:
        if not self._begun_before("batch", numbers[0]):
            return list(self._work(items))
        found: list[Any] = []
        for number, item in zip(numbers, items, strict=True):
            if self._begun_before("item", number) >= TRIES:
                found.append(Refused(DIED))
            else:
                found += self._work([item])
        return found

    def _begun_before(self, what: str, number: int) -> int:
        import ray

        before: int = ray.get(self._attempts.begin.remote(what, number))
        return before


def _table(column: str, numbers: Sequence[int], values: Sequence[Any]) -> Any:
    """Return an Arrow table of numbers and pickled values, which Ray Data hands on without a copy."""
    import pyarrow

    pickled = [pickle.dumps(value) for value in values]
    return pyarrow.table(
        {"number": pyarrow.array(numbers, "int64"), column: pyarrow.array(pickled, "binary")}
    )


def portable(error: Exception) -> Exception:
    """Return an exception that can be pickled, in the same words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever keeps it from being pickled
        kind = UserError if isinstance(error, UserError) else RuntimeError
        return kind(str(error) or type(error).__name__)
    return error
