"""Which version comes into use, what keeps one out, and how two differ."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import ModelKind, NewMask, NewModelVersion
from ddiseg.catalogue.tables import ModelVersion
from ddiseg.errors import InputError, NotFoundError, WorkspaceError
from ddiseg.evaluation.gate import GateDecision
from ddiseg.model import registry
from ddiseg.model.performance import ALL, LESION, lookup
from ddiseg.model.registry import GateStatus, diff, gate_status, in_use, promote, rollback
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from fedd.backbone import DiffusionUNet
from fedd.weights.files import save_backbone
from tests.ddiseg.model.version_rows import add_classifier, add_version, decided, holdout_images
from tests.fedd.conftest import TINY
from tests.wording import Refusal

TONES = ("I-II", "III-IV", "V-VI")


@cache
def _passed(other: str = "fedd-1") -> GateDecision:
    return decided(holdout_images(TONES, 0.7, 0.6), other)


@cache
def _refused(other: str = "fedd-1") -> GateDecision:
    return decided(holdout_images(TONES[:2], 0.9, 0.6) + holdout_images(TONES[2:], 0.3, 0.6), other)


@pytest.mark.training
@pytest.mark.parametrize(
    ("verdict", "word"),
    [
        (None, GateStatus.NOT_RUN),
        (decided([]), GateStatus.NOT_EVALUATED),
        (decided(holdout_images(TONES, 0.6, None)), GateStatus.NOT_EVALUATED),
        (_passed(), GateStatus.PASSED),
        (_refused(), GateStatus.REFUSED),
    ],
)
def test_judgement(
    workspace: Workspace, tiny_weights: Path, verdict: GateDecision | None, word: GateStatus
) -> None:
    assert gate_status(add_version(workspace, tiny_weights, verdict=verdict)) is word


@pytest.mark.training
def test_promote__one_that_passed_needs_no_force(workspace: Workspace, tiny_weights: Path) -> None:
    add_version(workspace, tiny_weights)
    add_version(workspace, tiny_weights, verdict=_passed(), promote=False)
    done = promote(workspace, "fedd-2", "annotator-1")
    assert done.before is not None
    assert (done.version.name, done.before.name) == ("fedd-2", "fedd-1")
    assert (done.changed, done.forced, done.why) == (True, False, "the gate passed it")
    assert workspace.catalogue.models.current().name == "fedd-2"
    again = promote(workspace, "fedd-2", "annotator-1")
    assert not again.changed
    assert len(workspace.catalogue.models.promotions()) == 2


@pytest.mark.training
def test_promote__one_that_was_in_use_needs_no_force(
    workspace: Workspace, tiny_weights: Path, wording: SnapshotAssertion
) -> None:
    add_version(workspace, tiny_weights)
    add_version(workspace, tiny_weights)
    done = promote(workspace, "fedd-1", "annotator-1", why=" fedd-2 misses\nrulers ")
    assert (done.forced, done.why) == (False, "fedd-2 misses rulers")
    last = workspace.catalogue.models.promotions()[-1]
    assert (last.why, last.actor, last.forced) == ("fedd-2 misses rulers", "annotator-1", False)
    assert promote(workspace, "fedd-2", "annotator-1").why == wording


@pytest.mark.training
@pytest.mark.parametrize(
    "verdict",
    [
        _refused(),
        decided([]),
        None,
    ],
)
def test_promote__others_need_force_and_a_reason(
    workspace: Workspace, tiny_weights: Path, verdict: GateDecision | None, refusal: Refusal
) -> None:
    add_version(workspace, tiny_weights)
    add_version(workspace, tiny_weights, verdict=verdict, promote=False)
    with refusal(InputError):
        promote(workspace, "fedd-2", "annotator-1", why="a reason alone is not enough")
    for why in (None, "", "  \n"):
        with refusal(InputError):
            promote(workspace, "fedd-2", "annotator-1", why=why, force=True)
    assert workspace.catalogue.models.current().name == "fedd-1"
    done = promote(workspace, "fedd-2", "annotator-1", why="only ours has rulers", force=True)
    assert done.forced
    assert workspace.catalogue.models.current().name == "fedd-2"
    last = workspace.catalogue.models.promotions()[-1]
    assert (last.why, last.forced) == ("only ours has rulers", True)


@pytest.mark.training
def test_promote__force_that_is_not_needed_is_not_recorded(
    workspace: Workspace, tiny_weights: Path
) -> None:
    add_version(workspace, tiny_weights, verdict=_passed("fedd-0"), promote=False)
    done = promote(workspace, "fedd-1", "annotator-1", why="why not", force=True)
    assert done.before is None
    assert not done.forced
    assert not workspace.catalogue.models.promotions()[-1].forced


def _missing(workspace: Workspace, version: ModelVersion) -> None:
    Path(workspace.store.path(Kind.MODEL, version.file_hash)).unlink()


def _edited(workspace: Workspace, version: ModelVersion) -> None:
    path = Path(workspace.store.path(Kind.MODEL, version.file_hash))
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def _backbone_gone(_workspace: Workspace, version: ModelVersion) -> None:
    Path(version.backbone).unlink()


def _backbone_other(_workspace: Workspace, version: ModelVersion) -> None:
    other = DiffusionUNet.random(TINY, 2).net.state_dict()
    save_backbone(Path(version.backbone), "other", TINY, other, {})


def _backbone_torn(_workspace: Workspace, version: ModelVersion) -> None:
    Path(version.backbone).write_bytes(b"torn")


FAULTS = [
    (
        _missing,
        WorkspaceError,
        "the file of fedd-1 is missing: put .* back from a backup, or train",
    ),
    (_edited, WorkspaceError, "the file of model fedd-1 was changed on disk: delete .* and run"),
    (_backbone_gone, InputError, r"the backbone of fedd-1 can't be used \(no backbone called "),
    (_backbone_other, InputError, r"the backbone of fedd-1 can't be used \(these probes read"),
    (_backbone_torn, InputError, "the backbone of fedd-1 can't be used .*'ddiseg refresh'$"),
]


@pytest.mark.training
@pytest.mark.parametrize(("harm", "error", "said"), FAULTS)
def test_promote_and_rollback__what_can_not_paint_does_not_come_into_use(
    workspace: Workspace,
    tiny_weights: Path,
    tmp_path: Path,
    harm: Callable[[Workspace, ModelVersion], None],
    error: type[Exception],
    said: str,
) -> None:
    weights = shutil.copy(tiny_weights, tmp_path / "mine.safetensors")
    version = add_version(workspace, weights)
    add_version(workspace, tiny_weights)
    harm(workspace, version)
    with pytest.raises(error, match=said) as raised:
        promote(workspace, "fedd-1", "annotator-1", why="it must", force=True)
    assert "\n" not in str(raised.value)
    with pytest.raises(error, match=said):
        rollback(workspace, "annotator-1")
    assert workspace.catalogue.models.current().name == "fedd-2"


@pytest.mark.training
def test_promote_and_rollback__another_protocol(workspace: Workspace, tiny_weights: Path) -> None:
    add_version(workspace, tiny_weights, protocol_version="0.9")
    add_version(workspace, tiny_weights)
    said = (
        "fedd-1 learned the classes of protocol 0.9, and this is protocol 1.1: .*'ddiseg refresh'"
    )
    with pytest.raises(InputError, match=said):
        promote(workspace, "fedd-1", "annotator-1", why="it must", force=True)
    with pytest.raises(InputError, match=said):
        rollback(workspace, "annotator-1")
    assert workspace.catalogue.models.current().name == "fedd-2"


def test_promote__a_classifier_without_its_file(workspace: Workspace, refusal: Refusal) -> None:
    add_classifier(workspace)
    add_classifier(workspace)
    with refusal(WorkspaceError):
        promote(workspace, "malignancy-1", "annotator-1")


@pytest.mark.training
def test_rollback__always_further_back(
    workspace: Workspace, tiny_weights: Path, refusal: Refusal, wording: SnapshotAssertion
) -> None:
    for _ in range(3):
        add_version(workspace, tiny_weights)
    first = rollback(workspace, "annotator-1", why=" too many\nrulers ")
    assert first.before is not None
    assert (first.version.name, first.before.name) == ("fedd-2", "fedd-3")
    assert first.why == wording
    assert rollback(workspace, "annotator-1").version.name == "fedd-1"
    with refusal(InputError):
        rollback(workspace, "annotator-1")
    assert workspace.catalogue.models.current().name == "fedd-1"
    assert [p.why for p in workspace.catalogue.models.promotions()[3:]] == wording


@pytest.mark.training
def test_rollback__to_what_was_in_use_not_to_what_is_older(
    workspace: Workspace, tiny_weights: Path
) -> None:
    add_version(workspace, tiny_weights)
    add_version(workspace, tiny_weights, verdict=_refused(), promote=False)
    add_version(workspace, tiny_weights)
    promote(workspace, "fedd-2", "annotator-1", why="a look at it", force=True)
    assert rollback(workspace, "annotator-1").version.name == "fedd-3"
    assert rollback(workspace, "annotator-1").version.name == "fedd-1"


def test_rollback__with_nothing_in_use(
    workspace: Workspace, tiny_weights: Path, refusal: Refusal
) -> None:
    with pytest.raises(NotFoundError, match="no model yet"):
        rollback(workspace, "annotator-1")
    add_version(workspace, tiny_weights, promote=False)
    with pytest.raises(NotFoundError, match="no model yet"):
        rollback(workspace, "annotator-1")
    with refusal(NotFoundError):
        rollback(workspace, "annotator-1", kind=ModelKind.MALIGNANCY)


@pytest.mark.training
def test_in_use__one_of_a_kind(workspace: Workspace, tiny_weights: Path) -> None:
    rows = [add_version(workspace, tiny_weights) for _ in range(2)]
    rows.append(add_version(workspace, tiny_weights, promote=False))
    rows.append(add_classifier(workspace))
    assert [in_use(workspace, row) for row in rows] == [False, True, False, True]
    rollback(workspace, "annotator-1")
    assert [in_use(workspace, row) for row in rows] == [True, False, False, True]


@pytest.mark.property
@settings(max_examples=20)
@given(
    commands=st.lists(
        st.one_of(
            st.sampled_from(["rollback", "trained, passed", "trained, refused"]),
            st.tuples(st.sampled_from(["fedd-1", "fedd-2", "fedd-3", "fedd-4"]), st.booleans()),
        ),
        max_size=14,
    )
)
def test_promote_and_rollback__current_is_what_the_last_command_said(
    tmp_path_factory: pytest.TempPathFactory,
    empty_catalogue: Path,
    commands: list[str | tuple[str, bool]],
) -> None:
    workspace = _new_workspace(tmp_path_factory.mktemp("states"), empty_catalogue)
    models = workspace.catalogue.models
    trail: list[str] = []  #: what a person would write down: the last is in use
    ever: set[str] = set()
    with patch.object(registry, "check_usable"):
        for command in [*commands, *["rollback"] * 5]:
            try:
                if command == "rollback":
                    done = rollback(workspace, "annotator-1")
                    assert done.before is not None
                    assert done.before.name == trail.pop()
                    assert done.version.name == trail[-1]
                elif isinstance(command, str):
                    name = _add_row(workspace, passed=command == "trained, passed")
                    if command == "trained, passed":
                        trail.append(name)
                else:
                    name, force = command
                    done = promote(workspace, name, "annotator-1", why="because", force=force)
                    assert done.version.name == name
                    assert force or name in ever or gate_status(done.version) is GateStatus.PASSED
                    trail = [*trail[: trail.index(name)], name] if name in trail else [*trail, name]
            except NotFoundError:
                names = {version.name for version in models.all()}
                assert not trail if command == "rollback" else command[0] not in names
            except InputError:
                assert len(trail) == 1 if command == "rollback" else command[0] not in ever
            ever |= set(trail)
            assert ([models.current().name] if models.promotions() else []) == trail[-1:]
    workspace.catalogue.close()


def _new_workspace(root: Path, empty_catalogue: Path) -> Workspace:
    shutil.copy(empty_catalogue, root / "catalogue.sqlite")
    return Workspace.create(root)


def _add_row(workspace: Workspace, *, passed: bool) -> str:
    gate = (_passed() if passed else _refused()).to_json()
    new = NewModelVersion("f", "small", "b", {}, [], {}, "1.0", gate=gate)
    return workspace.catalogue.models.add(new, "annotator-1", promote=passed).name


@pytest.mark.training
def test_diff__settings_and_masks_in_both_directions(spots: Workspace, tiny_weights: Path) -> None:
    accepted = spots.catalogue.masks.accepted()
    hashes = [accepted[i].content_hash for i in sorted(accepted)]  # I-II, III-IV, V-VI, I-II
    add_version(spots, tiny_weights, learned=hashes[:3])
    add_version(spots, tiny_weights, learned=[*hashes[1:], "f" * 64], seed=7)
    there = diff(spots, "fedd-1", "fedd-2")
    back = diff(spots, "fedd-2", "fedd-1")
    assert there.names == ("fedd-1", "fedd-2")
    assert there.settings == {"seed": (0, 7)}
    assert back.settings == {"seed": (7, 0)}
    assert there.in_both == back.in_both == {"III-IV": 1, "V-VI": 1}
    assert there.only == ({"I-II": 1}, {"I-II": 1, "unknown": 1})
    assert back.only == there.only[::-1]
    assert there.tables == {}
    same = diff(spots, "fedd-1", "fedd-1")
    assert same.settings == {}
    assert same.only == ({}, {})


@pytest.mark.training
def test_diff__a_mask_twice_is_two_and_one_of_two_tones_is_of_neither(
    spots: Workspace, tiny_weights: Path
) -> None:
    accepted = spots.catalogue.masks.accepted()
    twice = accepted[1].content_hash
    add_version(spots, tiny_weights, learned=[twice])
    add_version(spots, tiny_weights, learned=[twice, twice])
    found = diff(spots, "fedd-1", "fedd-2")
    assert found.in_both == {"I-II": 1}
    assert found.only == ({}, {"I-II": 1})
    blank = add_version(spots, tiny_weights)
    prelabelled = [1, 2]  # I-II and III-IV
    rows = [
        NewMask(i, "e" * 64, 40, 40, "same", [1], "1.0", model_version_id=blank.id)
        for i in prelabelled
    ]
    spots.catalogue.masks.add_predictions(rows)
    add_version(spots, tiny_weights, learned=["e" * 64])
    assert diff(spots, "fedd-3", "fedd-4").only == ({}, {"unknown": 1})


@pytest.mark.training
def test_diff__what_the_gate_compared_is_on_the_same_images(
    workspace: Workspace, tiny_weights: Path
) -> None:
    add_version(workspace, tiny_weights, verdict=decided(holdout_images(TONES, 0.5, None)))
    add_version(workspace, tiny_weights, verdict=_passed("fedd-1"))
    add_version(workspace, tiny_weights, verdict=_passed("fedd-2"))
    for names in (("fedd-1", "fedd-2"), ("fedd-2", "fedd-1")):
        table = diff(workspace, *names).tables["held_out"]
        assert table["columns"] == ["fedd-2", "fedd-1", "fedd-2 minus fedd-1"]
        figure = lookup(table, ALL, LESION)[2]
        assert figure is not None
        assert figure["value"] == pytest.approx(0.1)
    apart = diff(workspace, "fedd-1", "fedd-3").tables["held_out"]
    assert apart["columns"] == ["fedd-1", "fedd-3"]
    values = [figure and figure["value"] for figure in lookup(apart, ALL, LESION)]
    assert values == pytest.approx([0.535, 0.735])


@pytest.mark.training
def test_diff__classifiers_by_their_images(spots: Workspace) -> None:
    images = spots.catalogue.images.select()
    learned = {image.content_hash: {"malignant": True} for image in images[:3]}
    add_classifier(spots, training_images=learned)
    add_classifier(spots, training_images={images[0].content_hash: {"malignant": True}})
    found = diff(spots, "malignancy-1", "malignancy-2")
    assert found.in_both == {"I-II": 1}
    assert found.only == ({"III-IV": 1, "V-VI": 1}, {})
    assert found.tables["validation"]["columns"] == ["malignancy-1", "malignancy-2"]


@pytest.mark.training
def test_diff__what_can_not_be_compared(
    workspace: Workspace, tiny_weights: Path, refusal: Refusal
) -> None:
    add_version(workspace, tiny_weights)
    add_classifier(workspace)
    with refusal(NotFoundError):
        diff(workspace, "fedd-1", "x")
    with refusal(NotFoundError):
        diff(workspace, "x", "fedd-1")
    with refusal(InputError):
        diff(workspace, "fedd-1", "malignancy-1")
