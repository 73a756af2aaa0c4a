"""What a webhook of Label Studio asks for. It is a hint: each one missed is seen by the next pull.

Its fields: https://labelstud.io/guide/webhook_reference
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from ddiseg.catalogue import JobKind

TRAIN = "START_TRAINING"

#: Beginnings of the actions after which there may be something to bring back.
_WORK = ("ANNOTATION", "TASK")


class Webhook(BaseModel):
    """A webhook's payload, as far as it is read."""

    action: str
    project: Any = None

    @property
    def kind(self) -> JobKind | None:
        """The job that it asks for, if any."""
        if self.action == TRAIN:
            return JobKind.REFRESH
        return JobKind.PULL if self.action.startswith(_WORK) else None

    @property
    def number(self) -> int | None:
        """The labelling server's number of the project."""
        number = self.project.get("id") if isinstance(self.project, Mapping) else None
        return number if isinstance(number, int) and not isinstance(number, bool) else None
