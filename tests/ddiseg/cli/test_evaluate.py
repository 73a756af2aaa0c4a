"""`ddiseg evaluate`: what is printed of the truths that were not scored, and of the notes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from ddiseg.evaluation import segmentation as loop
from ddiseg.outcomes import FileOutcome, Outcome
from ddiseg.workspace.workspace import Workspace

Ddiseg = Callable[..., Any]


def test_evaluate__names_with_a_colon_fold_by_their_reason(
    ddiseg: Ddiseg, filled: Workspace, monkeypatch: pytest.MonkeyPatch, wording: SnapshotAssertion
) -> None:
    names = ["x1: y.png", "x2: y.png", "a\nrefused  everything.png"]
    result = {
        "truth": "truth", "format": "png", "models": {"fedd-1": 7}, "n_images": 7, "patients": 6,
        "learned_from": 0, "same_group": 0, "without_prediction": 0, "refused": [f"{name}: is none" for name in names],
        "notes": ["all 2 masks hold only 0 and 1"], "classes": {}, "by_tone": {},
    }  # fmt: skip

    def score(workspace: Workspace, actor: str, **given: Any) -> dict[str, Any]:
        given["refused"] += [FileOutcome(name, Outcome.REFUSED, "is none") for name in names]
        return result

    monkeypatch.setattr(loop, "evaluate", score)
    args = ("--workspace", filled.root, "evaluate", "--truth", "truth")
    done = ddiseg(*args)
    assert done.out.splitlines()[1:4] == wording
    assert json.loads(ddiseg(*args, "--output", "json").out) == result
