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
    """Loads the version in use on first use, and again once another version is in use."""

    def __init__(self, workspace: Workspace, device: str) -> None:
        self._workspace, self._device = workspace, device
        self._lock = threading.Lock()
        self._predictor: Predictor | None = None

    @contextmanager
    def predictor(self, deadline: float | None = None) -> Iterator[Predictor]:
        """Lend the model to the caller alone, waiting for it until `deadline` (monotonic seconds).

        Raises:
            NotFoundError: there is no model yet.
            WorkspaceError: its file was changed, or it was in use until the deadline.
        """
        timeout = -1 if deadline is None else max(0.0, deadline - time.monotonic())
        if not self._lock.acquire(timeout=timeout):
            raise WorkspaceError("the model is busy with other images: ask again later")
        try:
            yield self._current()
        finally:
            self._lock.release()

    def _current(self) -> Predictor:
        version = self._workspace.catalogue.models.current()
        if self._predictor is None or self._predictor.version.id != version.id:
            self._predictor = None  # two networks at once may need more memory than there is
            self._predictor = Predictor.load(self._workspace, device=self._device)
        return self._predictor
