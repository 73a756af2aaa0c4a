"""Two people read one image blind, on a server that the workspace is only connected to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ddiseg.catalogue import Arm
from ddiseg.workspace.workspace import Workspace
from tests.live.browser import browser
from tests.live.conftest import Studio, annotation_tasks, call
from tests.live.test_annotate_and_review import person


def test_two_readers__do_not_see_each_other_and_are_compared(
    studio: Studio,
    make_workspace: Callable[[Path, int], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = studio.accounts["admin"].token
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", token)
    root = make_workspace(tmp_path, 2)
    call(root, "label", "connect", studio.url)
    pushed = call(root, "label", "push", "--readers", 2, "--sample", 50, "--hide-tone")
    assert pushed["counts"]["added"] == 2
    tasks = annotation_tasks(Workspace.open(root))
    assert sorted(t.readers for t in tasks) == [1, 2]
    assert all(str(t.media).startswith("/data/upload/") and t.arm == Arm.PREDICTED for t in tasks)
    assert "tone" not in pushed["project"]
    with browser() as opened:
        for role, stroke in (("annotator", "1"), ("reviewer", "2")):
            reader = person(opened, studio, role)
            offered = 0
            reader.label_all(pushed["project"])
            while not reader.nothing_left():
                assert reader.strokes() == 0, "another reader's stroke is shown"
                reader.stroke(stroke, (0.1, 0.05), (0.5, 0.05))
                reader.shot(f"9-second-reading-{role}-{offered}")
                reader.submit()
                offered += 1
            assert offered == (2 if role == "annotator" else 1)
    assert call(root, "label", "pull")["counts"]["added"] == 3
    found = call(root, "agreement", "--pictures", tmp_path / "pictures")
    assert found["by_readers"][0]["readers"] == ["annotator@ddiseg.local", "reviewer@ddiseg.local"]
    assert len(found["worst"]) == 1
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 1
    everything = b"".join(p.read_bytes() for p in root.rglob("*") if p.is_file())
    assert token.encode() not in everything
