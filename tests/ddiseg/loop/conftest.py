"""A workspace of spots beside a scripted Label Studio, and a network that runs in a blink."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ddiseg.labelstudio.folder import Folder
from ddiseg.loop.options import RoundOptions
from ddiseg.loop.round import run_round
from ddiseg.loop.steps import StepResult
from ddiseg.model import train as refreshing
from ddiseg.outcomes import Stages, silent_stages
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.labelstudio.conftest import certificates, naps
from tests.ddiseg.labelstudio.studio import Studio
from tests.ddiseg.spots import one_thread, spots, tiny_weights
from tests.fake_label_studio import FakeLabelStudio
from tests.fedd.conftest import QUICK

__all__ = ["certificates", "naps", "one_thread", "spots", "tiny_weights"]


@pytest.fixture
def studio(spots: Workspace, naps: list[float]) -> Iterator[Studio]:
    """0.png to 8.png (rows #1 to #9), 0 to 3 accepted, none pushed yet."""
    with FakeLabelStudio(document_root=Folder(spots.root).media) as server:
        yield Studio(spots, server)


@pytest.fixture
def options(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RoundOptions]:
    """options(...): of rounds with the tiny network."""
    monkeypatch.setattr(refreshing, "default_settings", lambda _config: QUICK)

    def make(**changed: Any) -> RoundOptions:
        return RoundOptions(**{"backbone": str(tiny_weights), "device": "cpu", **changed})

    return make


@pytest.fixture
def round_of(
    studio: Studio, options: Callable[..., RoundOptions]
) -> Callable[..., dict[str, StepResult]]:
    """round_of(every=2): run a round, its steps by name."""

    def run(
        *, must_refresh: bool = False, stages: Stages = silent_stages, **changed: Any
    ) -> dict[str, StepResult]:
        steps = run_round(
            studio.workspace,
            lambda: studio.connection,
            options(**changed),
            "manager",
            must_refresh=must_refresh,
            stages=stages,
        )
        return {step.name: step for step in steps}

    return run
