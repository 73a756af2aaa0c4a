"""What is said where the packages of the baselines are missing or do not fit each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedd.baselines import packages
from fedd.baselines.packages import baselines_problem, needing_baselines
from fedd.errors import MissingPackageError
from tests.wording import Refusal

BROKEN = RuntimeError("operator torchvision::nms does not exist")


def test_needing__package_that_is_not_installed(refusal: Refusal) -> None:
    with refusal(MissingPackageError), needing_baselines():
        raise ImportError("No module named 'timm'", name="timm")


@pytest.mark.parametrize(
    ("torch", "torchvision", "index"),
    [
        ("2.13.0+cpu", "0.28.0", " --index-url https://download.pytorch.org/whl/cpu"),
        ("2.13.0", "0.28.0+cpu", ""),
    ],
)
def test_needing__torchvision_of_another_torch(
    torch: str, torchvision: str, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remedy is one command: both from the index that has this build of torch."""
    installed = {"torch": torch, "torchvision": torchvision}
    monkeypatch.setattr(packages, "version", installed.__getitem__)
    with pytest.raises(MissingPackageError) as caught, needing_baselines():
        raise BROKEN
    said = str(caught.value)
    assert said.startswith(f"torchvision {torchvision} was built for another torch than {torch}: ")
    assert said.endswith(
        f"pip install --force-reinstall --no-deps torch==2.13.0 torchvision==0.28.0{index}"
    )


def test_needing__other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="something else"), needing_baselines():
        raise RuntimeError("something else")


def test_baselines_problem__names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    assert "pip install 'ddiseg[baselines]'" in baselines_problem()


@pytest.mark.process
def test_needing__torchvision_without_its_operators_is_used(tmp_path: Path) -> None:
    """A torchvision whose library was built for another torch: as pip installs it beside torch's CPU build."""
    (tmp_path / "torchvision.py").write_text(
        "import torch\n"
        "torch.library.register_fake('torchvision::nms')(lambda dets, scores, threshold: dets)\n"
    )
    run = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from fedd.baselines.packages import needing_baselines\n"
        "with needing_baselines():\n"
        "    import torchvision\n"
        "print(torchvision.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(tmp_path / "torchvision.py"), done.stderr


@pytest.mark.process
def test_after_installation__one_line_and_exit_1(tmp_path: Path) -> None:
    """What `make` prints at the end, where torchvision can't be imported."""
    (tmp_path / "segmentation_models_pytorch.py").write_text("import torchvision")
    (tmp_path / "torchvision.py").write_text(f"raise RuntimeError({str(BROKEN)!r})")
    run = f"import runpy, sys; sys.path.insert(0, {str(tmp_path)!r}); runpy.run_module('fedd.baselines')"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "built for another torch" in done.stderr
    assert "--force-reinstall" in done.stderr
