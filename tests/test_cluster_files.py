"""The files of docs/cluster.md: they parse, and name what is pinned and what exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from ddiseg.cli.main import cli

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "ray-job.yaml").read_text())
    return loaded


def test_kuberay__ray_that_is_pinned(job: dict[str, Any]) -> None:
    pinned = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned is not None
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]


def test_kuberay__head_and_workers_have_the_same_image_and_keys(job: dict[str, Any]) -> None:
    spec = job["spec"]["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    pods = [group["template"]["spec"]["containers"][0] for group in groups]
    assert len({pod["image"] for pod in pods}) == 1
    assert all(pod["envFrom"] == pods[0]["envFrom"] for pod in pods)
    assert all(isinstance(v, str) for group in groups for v in group["rayStartParams"].values())
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_kuberay__command_is_understood(job: dict[str, Any]) -> None:
    words = job["spec"]["entrypoint"].split()
    assert words[0] == "ddiseg"
    done = CliRunner().invoke(cli, [*words[1:], "--help"])
    assert done.exit_code == 0


def test_slurm__script_parses() -> None:
    script = ROOT / "deploy" / "ray-slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "--ray-address" in script.read_text()
