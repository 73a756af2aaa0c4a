"""The PAINT job: predictions for what people have in hand and no model has painted yet."""

from __future__ import annotations

from collections.abc import Callable

from ddiseg.loop.round import work_in_hand
from ddiseg.server.jobs import StoppedError
from ddiseg.server.model_cache import ModelCache
from ddiseg.workspace.workspace import Workspace

#: Images painted before the model is free for a request, or the job can stop.
AT_A_TIME = 8


def predict_open_work(
    workspace: Workspace, model: ModelCache, stopping: Callable[[], bool]
) -> None:
    """Paint it, a few images at a time; raises StoppedError where `stopping` says so before the end.

    Label Studio asks again for a task that is opened, and then finds its prediction.
    """
    painted = workspace.catalogue.masks.newest_predictions()
    images = [image for image in work_in_hand(workspace) if image.id not in painted]
    for start in range(0, len(images), AT_A_TIME):
        if stopping():
            raise StoppedError("the server stops")
        with model.painter() as painter:
            painter.paint(images[start : start + AT_A_TIME])
