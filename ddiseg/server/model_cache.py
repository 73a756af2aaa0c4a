"""The model version in use, kept in memory, for one thread at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ddiseg.errors import WorkspaceError
from ddiseg.model.predict import Predictor
from ddiseg.workspace.workspace import Workspace


class ModelCache:
    """Loads the version in use when it is first needed, and again once another one is in use."""

    def __init__(self, workspace: Workspace, device: str) -> None:
        self._workspace, self._device = workspace, device
        self._lock = threading.Lock()
        self._painter: Predictor | None = None

    @contextmanager
    def painter(self, deadline: float | None = None) -> Iterator[Predictor]:
        """The model, for the caller alone; `deadline` is when waiting for it ends (monotonic).

        Raises NotFoundError where there is no model yet, WorkspaceError where its file was changed
        or others were at it until the deadline.
        """
        patience = -1 if deadline is None else max(0.0, deadline - time.monotonic())
        if not self._lock.acquire(timeout=patience):
            raise WorkspaceError("the model is busy with other images: ask again later")
        try:
            yield self._current()
        finally:
            self._lock.release()

    def _current(self) -> Predictor:
        version = self._workspace.catalogue.models.current()
        if self._painter is None or self._painter.version.id != version.id:
            self._painter = None  # two networks at once may be more than memory holds
            self._painter = Predictor.load(self._workspace, device=self._device)
        return self._painter
