"""The model version in use, kept in memory, for one thread at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ddiseg.errors import WorkspaceError
from ddiseg.model.backbones import Backbones
from ddiseg.model.predict import Predictor
from ddiseg.workspace.workspace import Workspace
from fedd.network.turns import Turns


class ModelCache:
    """Loads the version in use on first use, and again once another version is in use.

    Requests and jobs get it in the order in which they asked. Its backbone is that of `backbones`, which
    the rounds of the server use meanwhile: only the probes of a new version are loaded anew.
    """

    def __init__(
        self,
        workspace: Workspace,
        device: str,
        precision: str = "float32",
        backbones: Backbones | None = None,
    ) -> None:
        self._workspace, self._device, self._precision = workspace, device, precision
        self._backbones = backbones or Backbones(workspace)
        self._turns = Turns()
        self._predictor: Predictor | None = None

    @contextmanager
    def predictor(self, deadline: float | None = None) -> Iterator[Predictor]:
        """Lend the model to the caller alone, waiting for it until `deadline` (monotonic seconds).

        Raises:
            NotFoundError: there is no model yet.
            WorkspaceError: its file was changed, or it was in use until the deadline.
        """
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not self._turns.acquire(timeout):
            raise WorkspaceError("the model is busy with other images: ask again later")
        try:
            yield self._current()
        finally:
            self._turns.release()

    def _current(self) -> Predictor:
        version = self._workspace.catalogue.models.current()
        if self._predictor is None or self._predictor.version.id != version.id:
            self._predictor = None  # two networks at once may need more memory than there is
            self._predictor = Predictor.load(
                self._workspace,
                device=self._device,
                precision=self._precision,
                backbones=self._backbones,
            )
        return self._predictor
