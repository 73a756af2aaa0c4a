"""sensitivity, as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ddiseg.model import robustness as loop
from ddiseg.outcomes import FileOutcome, Outcome
from ddiseg.workspace.workspace import Workspace

Ddiseg = Callable[..., Any]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "run 'ddiseg refresh'"),
        (("--state", "lost"), "states are: new, queued"),
        (("--exposure", "9"), "9 EV can't be measured"),
        (("--temperature", "-9000"), "-9000 K can't be measured"),
    ],
)
def test_sensitivity__what_can_not_be_measured(
    here: Ddiseg, filled: Workspace, args: tuple[str, ...], says: str
) -> None:
    done = here("sensitivity", *args)
    assert done.status == 1
    assert done.out == ""
    assert says in done.err


def test_sensitivity__prints_each_change_by_tone(
    here: Ddiseg, filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    score = {"iou_mean": 0.9, "iou_mean_ci95": [0.8, 0.95], "dice_mean": 0.94, "dice_mean_ci95": None, "n": 17, "patients": 16}  # fmt: skip
    result = {
        "model": "fedd-1", "n_images": 17, "patients": 16, "without_lesion": 0, "learned_from": 3, "same_group": 1,
        "refused": ["x: y.png: gone"], "control": "one grey level",
        "by_change": {"-0.3 EV": {"all": score}, "one grey level": {"all": score}},
        "sentences": ["It is steady."],
    }  # fmt: skip

    def measure(workspace: Workspace, actor: str, **given: Any) -> dict[str, Any]:
        asked.update(given)
        given["refused"].append(FileOutcome("x: y.png", Outcome.REFUSED, "gone"))
        return result

    monkeypatch.setattr(loop, "sensitivity", measure)
    done = here("sensitivity", "--exposure", "-0.3", "--seed", "4")
    assert done.status == 0
    assert asked["exposures"] == (-0.3,)
    assert asked["temperatures"] == loop.TEMPERATURES, "the command's defaults are the loop's"
    assert (asked["seed"], asked["per_tone"]) == (4, loop.PER_TONE)
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert "-0.3 EV all 0.900 [0.800, 0.950] 0.940 (too few: 16 patients) 17 16" in lines
    assert "one grey level* all 0.900 [0.800, 0.950] 0.940 (too few: 16 patients) 17 16" in lines
    assert "refused x: y.png: gone" in lines
    assert lines[-1] == "It is steady."
    printed = here("--output", "json", "sensitivity")
    assert json.loads(printed.out) == result
    assert asked["exposures"] == loop.EXPOSURES
    assert (asked["device"], asked["precision"]) == ("auto", "auto"), "those of the workspace"
    here("config", "set", "training.device", "cuda:1")
    here("sensitivity", "--precision", "bfloat16")
    assert (asked["device"], asked["precision"]) == ("cuda:1", "bfloat16")
