"""Workspaces of every earlier schema open, verify clean and go on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from alembic import command

from ddiseg.catalogue import NewModelVersion, Purpose, Split
from ddiseg.catalogue.database import Database, _alembic, _revisions
from ddiseg.errors import WorkspaceError
from ddiseg.release.folder import write_release
from ddiseg.release.release import Release
from ddiseg.sampling.groups import Groups
from ddiseg.sampling.leaks import find_leaks
from ddiseg.workspace.status import status
from ddiseg.workspace.store import Kind
from ddiseg.workspace.verify import verify
from ddiseg.workspace.workspace import Workspace

*OLD, _HEAD = _revisions()

#: What trainings and the gate wrote before schema 0006, each key as it was.
METRICS = {"seconds": 2.5, "images": 1, "by_tone": {"I-II": 1}, "absent_classes": ["ruler"]}
GATE = {
    **{"passed": False, "judged": True, "reasons": ["lesion IoU is worse"], "tolerance": 0.02},
    "held_out": {"images": 6, "patients": 6, "by_tone": {"I-II": 6}},
    "by_tone": {
        "I-II": {"candidate": {"lesion_iou": {"value": 0.5, "interval": [0.4, 0.6], "n": 6}}}
    },
}
EVALUATION = {
    **{"truth": "/truth", "models": {"fedd-1": 1}, "n_images": 1, "patients": 1},
    "classes": {"lesion": {"iou_mean": 0.5, "iou_mean_ci95": None, "n": 1}},
    "by_tone": {},
}
CARRY = {"control": {"I-II": 0.4}}


@pytest.fixture(params=OLD)
def old(request: pytest.FixtureRequest, filled: Workspace, tmp_path: Path) -> Workspace:
    """`filled` with two models, an evaluation, a push and a release, then of an earlier schema."""
    catalogue = filled.catalogue
    for content, gate in ((b"one", None), (b"two", GATE)):
        digest = hashlib.sha256(content).hexdigest()
        filled.store.put(Kind.MODEL, digest, content)
        learned = [catalogue.masks.all()[0].content_hash]
        new = NewModelVersion(digest, "small", "b", {}, learned, METRICS, "1.0", gate=gate)
        catalogue.models.add(new, "tester", promote=gate is None)
    catalogue.evaluations.add(EVALUATION, [], "tester")
    project = catalogue.tasks.project("http://labels.example", Purpose.ANNOTATION)
    catalogue.tasks.plan(project.id, [], "tester", {}, CARRY)
    write_release(Release.gather(filled), "png", tmp_path / "release", images=False)
    catalogue.close()
    url = f"sqlite:///{filled.root / 'catalogue.sqlite'}"
    database = Database(url)
    with database.engine.begin() as connection:
        command.downgrade(_alembic(connection), request.param)
    database.engine.dispose()
    with pytest.raises(WorkspaceError, match=f"has schema {request.param}.*'ddiseg init'"):
        Workspace.open(filled.root)
    return Workspace.create(filled.root)


@pytest.mark.training
def test_old_workspace__verifies_clean_and_goes_on(
    old: Workspace, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    catalogue = old.catalogue
    found = verify(old)
    assert (found.problems, found.checked) == ([], {"images": 3, "masks": 1, "models": 2})
    now = status(catalogue, "embedded")
    assert (now.total, now.accepted) == (3, 1)
    assert now.model is not None
    # Before there was a gate, the newest version was in use.
    had_gate = request.node.callspec.params["old"] >= "0004"
    assert now.model.name == ("fedd-1" if had_gate else "fedd-2")
    versions = catalogue.models.all()
    assert [version.training.absent_classes for version in versions] == [("ruler",)] * 2
    decision = versions[1].decision
    assert (decision and decision.by_tone["I-II"].candidate["lesion_iou"].interval) == (
        (0.4, 0.6) if had_gate else None
    )
    evaluation = catalogue.evaluations.last()
    assert evaluation is not None
    assert evaluation[1].classes["lesion"].iou_mean.value == 0.5
    assert catalogue.tasks.carry() == CARRY
    release = write_release(Release.gather(old), "png", tmp_path / "release", images=False)
    assert not release.new, "the same as before the upgrade"
    catalogue.images.reopen(1, "tester")
    catalogue.images.skip(2, "blurry", None, "anna")
    catalogue.models.promote("fedd-1", "tester", "again", forced=True)
    assert catalogue.models.current().name == "fedd-1"
    assert verify(old).problems == []


@pytest.mark.slow
def test_old_workspace__ids_are_grouped_by_today_s_rules_and_splits_stay(
    filled: Workspace, tmp_path: Path
) -> None:
    """Ids as an older program stored them: "17.0" is "17", "-" is nobody, and no re-import is needed."""
    catalogue = filled.catalogue
    splits = {1: Split.HOLDOUT, 2: Split.TRAINING, 3: Split.TRAINING}
    catalogue.splits.decide(splits)
    for image, patient in zip(catalogue.images.select(), ("17.0", "17", "-"), strict=True):
        with catalogue._database.write() as session:
            session.merge(image).patient = patient
    catalogue.close()
    database = Database(f"sqlite:///{filled.root / 'catalogue.sqlite'}")
    with database.engine.begin() as connection:
        command.downgrade(_alembic(connection), "0009")
    database.engine.dispose()
    old = Workspace.create(filled.root).catalogue
    groups = Groups.read(old)
    assert groups.sharing([1, 2, 3], [2]) == {1, 2}
    assert old.splits.all() == splits
    assert [leak.images for leak in find_leaks(old)] == [{1}]
    old.close()
