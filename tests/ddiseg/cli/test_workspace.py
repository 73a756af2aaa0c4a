"""`ddiseg init`, `status` and `verify`."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from syrupy.assertion import SnapshotAssertion

from ddiseg.catalogue import Arm, Details, NewModelVersion, Split
from ddiseg.catalogue.database import Database, _alembic
from ddiseg.locate import SETTINGS
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.people import People, lesion
from tests.ddiseg.rows import new_mask

Run = Callable[..., Any]


@pytest.mark.training
def test_init__made_then_unchanged(ddiseg: Run, tmp_path: Path) -> None:
    root = tmp_path / "w"
    assert ddiseg("init", root).out == f"workspace {root}: made\n"
    before = {p: p.read_bytes() for p in root.iterdir() if p.name == SETTINGS}
    again = ddiseg("init", root, "--output", "json")
    assert again.json == {
        "workspace": str(root),
        "outcome": "unchanged",
        "catalogue": str(root / "catalogue.sqlite"),
        "store": str(root / "store"),
        "inside": None,
    }
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.training
def test_init__directory_may_be_the_workspace_option(
    ddiseg: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ddiseg("--workspace", tmp_path / "a", "init").status == 0
    monkeypatch.setenv("DDISEG_WORKSPACE", str(tmp_path / "b"))
    assert ddiseg("init").status == 0
    monkeypatch.delenv("DDISEG_WORKSPACE")
    monkeypatch.chdir(tmp_path)
    assert ddiseg("init").status == 0
    for folder in (tmp_path, tmp_path / "a", tmp_path / "b"):
        assert (folder / SETTINGS).exists()


@pytest.mark.training
def test_init__prints_the_absolute_path(
    ddiseg: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, words in (("a", ("init", "a")), ("b", ("--workspace", "b", "init"))):
        assert ddiseg(*words).out == f"workspace {tmp_path / name}: made\n"
    monkeypatch.setenv("DDISEG_WORKSPACE", "c")
    assert ddiseg("init").out == f"workspace {tmp_path / 'c'}: made\n"
    assert ddiseg("init", "--output", "json").json["workspace"] == str(tmp_path / "c")


@pytest.mark.training
def test_init__inside_another_workspace_only_where_it_is_named(
    ddiseg: Run, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = workspace.root / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    refused = ddiseg("init")
    assert (refused.status, refused.out) == (1, "")
    assert f"{inner} is inside the workspace {workspace.root}: " in refused.err
    assert f"type 'ddiseg init {inner}'" in refused.err
    assert list(inner.iterdir()) == []
    assert ddiseg("init", inner).out.splitlines() == [
        f"workspace {inner}: made",
        f"  it is inside the workspace {workspace.root}",
    ]
    assert ddiseg("init").out.startswith(f"workspace {inner}: unchanged")


def test_init__a_relative_variable_makes_no_second_workspace(
    ddiseg: Run, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = workspace.root.parent / "photos"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("DDISEG_WORKSPACE", "w")
    refused = ddiseg("init")
    assert (refused.status, refused.out) == (1, "")
    assert f"DDISEG_WORKSPACE is 'w', and {elsewhere / 'w'} is no workspace" in refused.err
    assert f"export DDISEG_WORKSPACE={workspace.root}" in refused.err
    assert list(elsewhere.iterdir()) == []


@pytest.mark.training
def test_status__from_a_folder_inside_the_workspace(
    ddiseg: Run, filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(filled.root / "store")
    assert ddiseg("status").out.startswith("3 images\n")


@pytest.mark.training
def test_init__a_lost_catalogue_is_not_replaced(ddiseg: Run, filled: Workspace) -> None:
    filled.catalogue.close()
    for file in filled.root.glob("catalogue.sqlite*"):
        file.unlink()
    for words in (("status", "--workspace"), ("init",)):
        refused = ddiseg(*words, filled.root)
        assert (refused.status, refused.out) == (1, "")
        assert "is missing: there is no backup in" in refused.err
    assert not (filled.root / "catalogue.sqlite").exists()
    (filled.root / SETTINGS).rename(filled.root / "old.toml")
    assert "settings and catalogue are lost" in ddiseg("init", filled.root).err.replace(
        f"{SETTINGS} and", "settings and"
    )
    (filled.root / "store").rename(filled.root / "old-store")
    assert ddiseg("init", filled.root).out == f"workspace {filled.root}: made\n"


@pytest.mark.training
def test_init__upgrades_an_older_catalogue(here: Run, ddiseg: Run, filled: Workspace) -> None:
    filled.catalogue.close()
    database = Database(f"sqlite:///{filled.root / 'catalogue.sqlite'}")
    with database.engine.begin() as connection:
        command.downgrade(_alembic(connection), "0004")
    database.engine.dispose()
    assert "run 'ddiseg init'" in here("status").err
    assert ddiseg("init", filled.root).out == f"workspace {filled.root}: upgraded\n"
    assert here("status").out.startswith("3 images\n")


@pytest.mark.training
def test_init__an_empty_name_is_refused(
    ddiseg: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (("init", ""), ("init", "--workspace", ""), ("--workspace=", "init")):
        refused = ddiseg(*words)
        assert (refused.status, refused.out) == (2, "")
        assert "the name of the folder is empty: is a shell variable unset?" in " ".join(
            refused.err.split()
        )
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("DDISEG_WORKSPACE", "")
    assert ddiseg("init").out == f"workspace {tmp_path}: made\n"
    assert ddiseg("status").status == 0


@pytest.mark.training
def test_deleted_current_folder__an_absolute_path_still_works(
    ddiseg: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wording: SnapshotAssertion
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    root = tmp_path / "w"
    for words in (("init",), ("status",), ("init", "w"), ("status", "--workspace", "w")):
        refused = ddiseg(*words)
        assert (refused.status, refused.out) == (1, "")
        assert refused.err == wording
    assert ddiseg("init", root).out == f"workspace {root}: made\n"
    assert ddiseg("--workspace", root, "status").status == 0
    monkeypatch.setenv("DDISEG_WORKSPACE", str(root))
    for words in (("status",), ("verify",), ("batch", "list"), ("init",)):
        assert ddiseg(*words).status == 0
    refused = ddiseg("report", "--to", "report.html")
    assert refused.err.endswith("Error: the current folder no longer exists: cd to another one\n")


@pytest.mark.training
def test_home_folder__is_expanded_where_no_shell_does(
    ddiseg: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wording: SnapshotAssertion
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    root = tmp_path / "home" / "w"
    monkeypatch.setenv("DDISEG_WORKSPACE", "~/w")
    assert ddiseg("init").out == f"workspace {root}: made\n"
    assert ddiseg("status").status == 0
    monkeypatch.delenv("DDISEG_WORKSPACE")
    assert ddiseg("status", "--workspace=~/w").status == 0
    assert ddiseg("init", "~/w").out == f"workspace {root}: unchanged\n"
    refused = ddiseg("status", "--workspace", "~no-such-user/w")
    assert refused.err == wording
    assert not (tmp_path / "~").exists()


def test_init__newer_schema_is_refused(here: Run, workspace: Workspace) -> None:
    with closing(sqlite3.connect(workspace.root / "catalogue.sqlite")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    for name in ("init", "status", "verify"):
        result = here(name)
        assert (result.status, result.out) == (1, "")
        assert "newer than this ddiseg knows: upgrade ddiseg" in result.err


@pytest.mark.training
def test_init__places_of_ones_own(ddiseg: Run, tmp_path: Path) -> None:
    places = (
        *("--catalogue", f"sqlite:///{tmp_path / 'rows.sqlite'}"),
        *("--store", tmp_path / "files"),
    )
    assert ddiseg("init", tmp_path / "w", *places).status == 0
    assert (tmp_path / "rows.sqlite").exists()
    again = ddiseg("init", tmp_path / "w", *places).out
    assert again.endswith(f": unchanged\n  catalogue: {tmp_path / 'rows.sqlite'}\n")
    other = ddiseg("init", tmp_path / "w", "--store", tmp_path / "other")
    assert other.status == 1
    assert "move the data yourself and change the line" in other.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--catalogue", "nonsense"), "can't be used"),
        (("--store", "nosuch://x"), "store nosuch://x can't be used"),
    ],
)
def test_init__bad_url(ddiseg: Run, tmp_path: Path, args: tuple[str, str], said: str) -> None:
    result = ddiseg("init", tmp_path / "w", *args)
    assert (result.status, result.out) == (1, "")
    assert said in result.err
    assert result.err.count("\n") == 1


def test_status__counts_and_next_step(
    here: Run, filled: Workspace, wording: SnapshotAssertion
) -> None:
    commands = (
        *("ddiseg refresh", "ddiseg label up", "ddiseg label push"),
        "ddiseg export --format coco --to release",
    )
    filled.catalogue.images.skip(3, "scalp", None, "anna")
    filled.catalogue.subsets.store({"part": [1, 2]}, {}, "tester")
    data = here("status", "--output", "json").json
    assert data == {
        "catalogue": str(filled.root / "catalogue.sqlite"),
        "images": 3,
        "counts": {"I-II": {"accepted": 1}, "V-VI": {"new": 1}, "unknown": {"skipped": 1}},
        "datasets": [
            {
                "name": "clinic",
                "images": 3,
                "licence": "CC-BY-4.0",
                "source": None,
                "synthetic": False,
            }
        ],
        "model": None,
        "accepted": 1,
        "skips": {"scalp": 1},
        "subsets": {"part": {"I-II": 1, "V-VI": 1}},
        "round_holder": None,
        "leaks": [],
        "study": {},
        "photographs_missing": False,
        "next": wording,
        "to_do": {
            "data_manager": [{"command": each, "why": wording} for each in commands],
            "annotators": {"images": 0},
            "reviewers": {"masks": 0},
        },
    }
    lines = here("status").out.splitlines()
    assert lines == wording


def test_status__empty_workspace(here: Run, wording: SnapshotAssertion) -> None:
    lines = here("status").out.splitlines()
    assert lines[0] == "0 images"
    assert lines[-1] == wording


@pytest.mark.training
def test_status__next_step_along_the_way(
    here: Run, filled: Workspace, wording: SnapshotAssertion
) -> None:
    catalogue = filled.catalogue

    def next_step() -> str:
        """But for starting Label Studio, which runs in no test here."""
        to_do = here("status", "--output", "json").json["to_do"]
        steps = [s for s in to_do["data_manager"] if s["command"] != "ddiseg label up"]
        return f"{steps[0]['why']}: {steps[0]['command']}"

    catalogue.images.reopen(1, "carl")
    assert next_step().endswith("ddiseg subset draw NAME --per-tone 10")
    catalogue.subsets.store({"part": [1]}, {}, "tester")
    assert next_step().endswith(
        "give the image of part to annotators: ddiseg label push --subset part"
    )
    catalogue.masks.submit([new_mask(1, "anna", "b")])
    assert next_step().startswith("have a second person review the submitted mask")
    catalogue.masks.submit([new_mask(1, "anna", "b")], "ben")
    assert next_step().endswith("ddiseg refresh")
    learned = [mask.content_hash for mask in catalogue.masks.accepted().values()]
    model = catalogue.models.add(NewModelVersion("f", "u", "b", {}, learned, {}, "1.0"), "t")
    assert next_step() == wording
    catalogue.masks.add_predictions([new_mask(n, None, model_version_id=model.id) for n in (2, 3)])
    assert next_step().startswith("give the 2 images that nobody has to annotators, or a part")
    catalogue.masks.submit([new_mask(2, "anna", "c")], "ben")
    assert next_step().endswith("ddiseg label push"), "one new mask is too few to learn again"
    catalogue.masks.submit([new_mask(3, "anna", "d")], "ben")
    assert next_step() == wording
    lines = here("status").out.splitlines()
    assert "model: fedd-1, from 1 mask" in lines


def test_status_work__nothing_drawn_yet_is_one_line(
    here: Run, filled: Workspace, wording: SnapshotAssertion
) -> None:
    result = here("status", "--work")
    assert result.status == 0
    assert result.out == wording
    data = here("status", "--work", "--output", "json").json
    assert (data["n"], data["by_tone"], data["left_out"]) == (0, {}, [])


@pytest.mark.training
def test_status_work__tables_and_json(
    here: Run, workspace: Workspace, wording: SnapshotAssertion
) -> None:
    people = People(workspace)
    for _ in range(6):
        people.accept(lesion(6), lesion(2), seconds=30)
        people.accept(lesion(9), lesion(1), seconds=90, arm=Arm.CONTROL)
    result = here("status", "--work")
    lines = result.out.splitlines()
    assert lines[0].startswith("Masks from a labelling server, accepted ")
    assert lines[0].endswith(" (n = 12 images of 12 patients).")
    start = lines.index("With and without the prediction")
    assert [" ".join(line.split()) for line in lines[start + 1 : start + 4]] == wording
    assert len(lines[start + 1]) == len(lines[start + 3])
    assert not any(line != line.rstrip() for line in lines)
    assert result.err.startswith("Comparing masks: 12 in ")
    data = here("status", "--work", "--output", "json").json
    figure = data["arms"]["painted"]["lesion_dice"]
    assert figure == {"value": 0.5, "interval": None, "n": 6, "patients": 6}


def test_status_work__only_damaged_masks(here: Run, workspace: Workspace) -> None:
    people = People(workspace)
    people.accept(lesion(6), lesion(2))
    for digest in workspace.store.digests(Kind.MASK):
        Path(workspace.store.path(Kind.MASK, digest)).unlink()
    lines = here("status", "--work").out.splitlines()
    assert lines[0].startswith("Left out: drawn-1.png: ")


def test_verify__whole(here: Run, filled: Workspace, wording: SnapshotAssertion) -> None:
    filled.store.put(Kind.IMAGE, "ab" * 32, b"left by a stopped run")
    result = here("verify")
    assert result.status == 0
    assert result.out.splitlines() == wording
    assert result.err.startswith("verify: 4 in ")


def test_verify__damage_exits_with_1_and_a_line_each(here: Run, filled: Workspace) -> None:
    for name in ("1.png", "2.png"):
        digest = filled.catalogue.images.find(name).content_hash
        Path(filled.store.path(Kind.IMAGE, digest)).unlink()
    result = here("verify")
    assert result.status == 1
    assert result.err.endswith(
        "Error: 2 problems found, nothing was changed; 'ddiseg verify --repair' puts files back\n"
    )
    lines = result.out.splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("  image  1.png (#1): ")
    as_json = here("verify", "--output", "json")
    assert as_json.status == 1
    assert as_json.json["ok"] is False
    assert as_json.json["checked"] == {"images": 3, "masks": 1, "models": 0}
    assert [p["part"] for p in as_json.json["problems"]] == ["image", "image"]


def test_verify__repair_is_offered_for_what_it_settles(here: Run, filled: Workspace) -> None:
    filled.catalogue.splits.decide({1: Split.HOLDOUT, 2: Split.TRAINING})
    patients = [Details(patient="p"), Details(patient="p")]
    filled.catalogue.images.update_details([1, 2], patients, "tester")
    result = here("verify")
    assert result.err.endswith(
        "Error: 1 problem found, nothing was changed; 'ddiseg verify --repair' excludes hold-out images\n"
    )
    done = here("verify", "--repair")
    assert done.status == 0
    assert done.out.splitlines()[1].startswith("  repaired  the hold-out set: 1 image excluded")
    assert here("verify").status == 0


def test_status__store_is_gone(here: Run, filled: Workspace) -> None:
    assert "missing" not in here("status").out
    shutil.rmtree(filled.root / "store")
    assert here("status").out.splitlines()[-1] == (
        "photographs are missing from the store: run 'ddiseg verify'"
    )
    assert here("status", "--output", "json").json["photographs_missing"] is True
