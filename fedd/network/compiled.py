"""A network's forward pass, compiled where that pays back within the job.

Compiling takes up to minutes and saves a share of each pass. Whether it pays depends on how many
images are coming (`CompiledForward.expect`) and on what a pass costs uncompiled, which is measured
in the job itself; what compiling cost and saved is remembered for the next job on the same device.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fedd.remembered import Remembered
from fedd.weights.cache_folder import user_cache

logger = logging.getLogger(__name__)

#: (network, x, timestep, blocks) -> activations by block.
Forward: TypeAlias = Callable[[Any, Tensor, Tensor, tuple[int, ...]], dict[int, Tensor]]

#: Before it was measured on a device: seconds that compiling takes, and the share of a pass's time that
#: it saves. Both are guesses on the careful side.
COMPILE_SECONDS, SAVED_SHARE = 120.0, 0.15

#: Failures in a row after which a shape is no longer compiled in this job.
FAILURES = 2

#: Uncompiled passes before the time of one is measured: cuDNN chooses its convolutions in the first.
WARM_UP = 1


@dataclass(frozen=True)
class CompileCosts:
    """What compiling cost and saved on a device; seconds."""

    compiling: float
    eager: float  #: of an image, uncompiled
    compiled: float  #: of an image, compiled

    def saved(self, images: int) -> float:
        """Return the seconds that compiling saves over so many images; negative if it costs more."""
        return images * (self.eager - self.compiled) - self.compiling

    @classmethod
    def remembered(cls, stored: Mapping[str, Any] | None) -> CompileCosts | None:
        """Return costs that were stored; None where they can't be read."""
        try:
            found = {field.name: float((stored or {})[field.name]) for field in fields(cls)}
        except (KeyError, TypeError, ValueError):
            return None
        return cls(**found)


@dataclass
class _Shape:
    """What is known of the passes of one shape; seconds are of an image."""

    key: str
    passes: int = 0  #: uncompiled
    compiled: int = 0  #: passes that the compiled network did
    failures: int = 0  #: in a row
    eager: float | None = None
    compiling: float = 0.0  #: seconds of the first compiled pass
    costs: CompileCosts | None = None


class CompiledForward:
    """A forward pass that is compiled once enough images are coming.

    A failure of the compiled pass is said, and that pass runs uncompiled. After `FAILURES` in a row
    its shape runs uncompiled until the next job. Memory that runs out is no failure of the compiler.
    """

    def __init__(
        self,
        name: str,
        key: str,
        eager: Forward,
        *,
        compiler: Callable[[Forward], Forward] = torch.compile,
        costs: Remembered | None = None,
        now: Callable[[], float] = time.perf_counter,
        wait: Callable[[], object] = lambda: None,
    ) -> None:
        """Build the pass; nothing is compiled yet.

        Args:
            name: of the network, for messages.
            key: network, device and versions that the costs depend on.
            wait: waits until the device is done, so that times are true.
        """
        self._name, self._key, self._eager = name, key, eager
        self._compiler, self._costs = compiler, costs or Remembered(user_cache() / "compiling.json")
        self._now, self._wait = now, wait
        self._compiled: Forward | None = None
        self._shapes: dict[tuple[Any, ...], _Shape] = {}
        self._coming = 0

    def expect(self, images: int) -> None:
        """Tell that a job of so many images begins: compiling may pay back over all of them."""
        self.at_least(images)
        for shape in self._shapes.values():  # a new job tries once more
            shape.failures = min(shape.failures, FAILURES - 1)

    def at_least(self, images: int) -> None:
        """Tell that at least so many images are coming, whatever was expected."""
        self._coming = max(self._coming, images)

    def __call__(
        self, net: Any, x: Tensor, t: Tensor, blocks: tuple[int, ...]
    ) -> dict[int, Tensor]:
        """Return the activations of `blocks` for x (N, C, h, w)."""
        shape = self._shape(x, blocks)
        if not self._pays(shape, len(x)):
            found = self._run_eager(shape, net, x, t, blocks)
        else:
            found = self._run_compiled(shape, net, x, t, blocks)
        self._coming = max(0, self._coming - len(x))
        return found

    def _shape(self, x: Tensor, blocks: tuple[int, ...]) -> _Shape:
        key = (tuple(x.shape[1:]), x.dtype, blocks)
        if key not in self._shapes:
            named = f"{self._key}, {'x'.join(map(str, x.shape[1:]))}, blocks {blocks}"
            self._shapes[key] = _Shape(named, costs=CompileCosts.remembered(self._costs.get(named)))
        return self._shapes[key]

    def _pays(self, shape: _Shape, images: int) -> bool:
        """Return whether to run these images compiled."""
        if shape.failures >= FAILURES or images < 2:  # one image is another graph
            return False
        if shape.costs is not None and shape.compiled:  # compiled already, and measured
            return shape.costs.compiled < shape.costs.eager
        if shape.compiled:
            return True
        if shape.costs is not None:
            return shape.costs.saved(self._coming) > 0
        if shape.eager is None:
            return False
        return self._coming * shape.eager * SAVED_SHARE > COMPILE_SECONDS

    def _run_eager(
        self, shape: _Shape, net: Any, x: Tensor, t: Tensor, blocks: tuple[int, ...]
    ) -> dict[int, Tensor]:
        measured = shape.passes == WARM_UP and shape.eager is None and len(x) > 1
        shape.passes += 1
        if not measured:
            return self._eager(net, x, t, blocks)
        found, seconds = self._timed(self._eager, net, x, t, blocks)
        shape.eager = seconds / len(x)
        return found

    def _run_compiled(
        self, shape: _Shape, net: Any, x: Tensor, t: Tensor, blocks: tuple[int, ...]
    ) -> dict[int, Tensor]:
        try:
            if self._compiled is None:
                use_persistent_cache()
                self._compiled = self._compiler(self._eager)
            # Another number of images is then no other graph, but for one image.
            torch._dynamo.mark_dynamic(x, 0)
            if shape.compiled < 2:
                found, seconds = self._timed(self._compiled, net, x, t, blocks)
                self._measure(shape, seconds, len(x))
            else:
                found = self._compiled(net, x, t, blocks)
        except Exception as error:  # a fault of the network itself comes again, uncompiled
            if (full := _out_of_memory(error)) is not None:
                raise full from error
            self._say_failure(shape, error)
            return self._eager(net, x, t, blocks)
        shape.compiled += 1
        shape.failures = 0
        return found

    def _measure(self, shape: _Shape, seconds: float, images: int) -> None:
        """Take the time of the first compiled pass, which compiles, or of the second."""
        if not shape.compiled:
            shape.compiling = seconds
            return
        eager = shape.eager or (shape.costs.eager if shape.costs else None)
        if eager is None:
            return
        compiled = seconds / images
        shape.costs = CompileCosts(max(0.0, shape.compiling - seconds), eager, compiled)
        self._costs.put(shape.key, asdict(shape.costs))
        if compiled >= eager:
            logger.info("%s runs uncompiled: compiled it is no faster here", self._name)

    def _say_failure(self, shape: _Shape, error: Exception) -> None:
        shape.failures += 1
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        last = "; it is not tried again in this job" if shape.failures >= FAILURES else ""
        logger.warning(
            "%s runs this batch uncompiled, because compiling failed: %s%s",
            self._name,
            reason,
            last,
        )

    def _timed(self, forward: Forward, *given: Any) -> tuple[dict[int, Tensor], float]:
        """Return the activations, and the seconds that the device took for them."""
        self._wait()
        started = self._now()
        found = forward(*given)
        self._wait()
        return found, self._now() - started


def use_persistent_cache() -> None:
    """Keep compiled code in the user's cache folder, unless the environment says where."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(user_cache() / "compiled"))
    os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")


def _out_of_memory(error: BaseException | None) -> torch.OutOfMemoryError | None:
    """Return the out-of-memory error that caused an error: a compiler wraps what its kernels raise."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, torch.OutOfMemoryError):
            return error
        seen.add(id(error))
        error = getattr(error, "inner_exception", None) or error.__cause__ or error.__context__
    return None
