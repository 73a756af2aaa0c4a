"""What works without PyTorch and label-studio-sdk, and what says which package it needs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from annotation_protocol.command_line import missing_package
from ddiseg.ingest.rendered import render_ddi

#: Runs command lines, a JSON list of lists, in one process that finds none of the big packages.
RUN = """
import json, sys

BIG = {"torch", "label_studio_sdk", "guided_diffusion", "fastapi", "uvicorn", "requests", "safetensors"}

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BIG:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from ddiseg.cli.common import run
from ddiseg.cli.main import cli
for words in json.load(sys.stdin):
    print("$", *words, "->", run(cli, words), flush=True)
"""


def run_without(tmp_path: Path, *lines: list[object]) -> tuple[list[int], str]:
    """Exit statuses, and all that was printed."""
    typed = json.dumps([[str(word) for word in line] for line in lines])
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=typed, capture_output=True, text=True, check=True,
        cwd=tmp_path,
    )  # fmt: skip
    ends = [line for line in done.stdout.splitlines() if line.startswith("$ ")]
    return [int(line.rpartition(" ")[2]) for line in ends], done.stdout + done.stderr


@pytest.mark.process
def test_commands_that_need_no_model(tmp_path: Path) -> None:
    render_ddi(tmp_path / "photographs", tmp_path / "masks", 9, seed=1)
    people = ["--annotator", "anna", "--reviewer", "rita"]
    steps: list[list[object]] = [
        ["import", "photographs"],
        ["subset", "draw", "first", "--per-tone", 1],
        ["subset", "list"],
        ["masks", "import", "masks", "--as", "png", "--subset", "first", *people],
        ["batch", "draw", "second", "--size", 2],
        ["batch", "list"],
        ["batch", "show", "second"],
        ["masks", "import", "masks", "--as", "png", "--annotator", "anna"],
        ["review", "list"],
        ["review", "accept", "#IMAGE", "--reviewer", "rita"],
        ["review", "reject", "#IMAGE", "--reviewer", "rita", "--comment", "too wide"],
        ["status"],
        ["show", "#1"],
        ["verify"],
        ["models", "list"],
        ["datasets", "list"],
        ["datasets", "set", "DDI", "--licence", "CC0"],
        ["config", "set", "study.control", 20],
        ["config", "show"],
        ["report"],
        ["export", "--format", "coco", "--to", "release"],
    ]
    run_without(tmp_path, ["init", "w"])
    work = ["--workspace", "w"]
    statuses, printed = run_without(tmp_path, *([*work, *step] for step in steps[:9]))
    waiting = re.findall(r"\(#(\d+)\), tone .*drawn by anna", printed)
    for step, number in zip(steps[9:11], waiting, strict=False):
        step[2] = f"#{number}"
    more, rest = run_without(
        tmp_path,
        *([*work, *step] for step in steps[9:]),
        ["init", "again"],
        ["--workspace", "again", "import-coco", "release", *people],
    )
    assert statuses + more == [0] * (len(steps) + 2), printed + rest


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "install"),
    [
        (["refresh"], "pip install torch"),
        (["loop", "run", "--once"], "pip install"),
        (["malignancy", "predict"], "pip install torch"),
        (["serve"], "pip install 'ddiseg[server]'"),
    ],
)
def test_a_missing_package__one_line_with_what_to_install(
    tmp_path: Path, words: list[str], install: str
) -> None:
    statuses, printed = run_without(tmp_path, ["init", "w"], ["--workspace", "w", *words])
    assert statuses == [0, 1]
    (line,) = [line for line in printed.splitlines() if line.startswith("Error: ")]
    assert install in line
    assert "defect" not in line


def test_missing_package__a_module_of_our_own_is_a_defect() -> None:
    assert missing_package(ModuleNotFoundError("x", name="ddiseg.nothing")) is None


def test_missing_package__where_there_is_no_wheel() -> None:
    error = ModuleNotFoundError("x", name="label_studio_sdk.client")
    assert "pip install label-studio-sdk" in str(missing_package(error, (3, 13)))
    assert "Python 3.11 to 3.13" in str(missing_package(error, (3, 14)))
