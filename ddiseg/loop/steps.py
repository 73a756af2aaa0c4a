"""Steps of a round, taken or planned: how one is run, and what it says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from annotation_protocol import UserError
from ddiseg.errors import defect
from ddiseg.outcomes import counted

#: What a step says that needs the labelling server, and a round that selects no batch.
NO_SERVER = "left out: the labelling server did not answer"
NO_DRAW = "not asked for (--draw)"


@dataclass(frozen=True)
class StepResult:
    """Result of a step of a round."""

    name: str
    said: str
    failed: bool
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        seconds = round(self.seconds, 2)
        return {"step": self.name, "said": self.said, "failed": self.failed, "seconds": seconds}


def shown_name(step: str) -> str:
    """Return the name of a step as people read it; the catalogue stores an older one of two steps."""
    return {"draw": "select", "paint": "predict"}.get(step, step)


def run_step(name: str, work: Callable[[], str]) -> StepResult:
    """Take a step; one that fails says why, and does not end the others."""
    started = time.monotonic()
    try:
        said, failed = work(), False
    except (UserError, OSError) as error:
        said, failed = str(error), True
    except Exception as error:  # noqa: BLE001 - a defect in one step must not end the others
        said, failed = str(defect(error)), True
    return StepResult(name, said, failed, time.monotonic() - started)


def not_yet(in_hand: int) -> str:
    """Say why no batch is selected."""
    return f"not yet: {counted(in_hand, 'image')} in people's hands or waiting for them"
