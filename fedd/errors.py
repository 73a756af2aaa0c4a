"""The errors that fedd raises for input a person can correct."""

from __future__ import annotations

from annotation_protocol.errors import UserError


class FeddError(UserError):
    """Base of the errors of fedd."""


class WeightsError(FeddError, ValueError):
    """A weights file that is missing, unreadable, unsafe or of another network."""


class UnreadableError(WeightsError):
    """A weights file that can't be read just now, such as on a drive that is not connected."""


class ClickError(FeddError, ValueError):
    """Clicks that no region can be grown from."""


class TrainingDataError(FeddError, ValueError):
    """Images and masks that probes can't be trained on."""


class DatasetError(FeddError, ValueError):
    """A folder of photographs, a table or a mask that can't be used."""


class FigureError(FeddError, ValueError):
    """A figure that can't be written."""


class MissingPackageError(FeddError, ImportError):
    """A package of an optional extra that is not installed, or not usable as it is."""


class ExplorationError(FeddError, ValueError):
    """Blocks or timesteps that can't be explored, or an ablation that can't be resumed."""


class OutputError(FeddError, OSError):
    """A file that can't be written."""


class DeviceError(FeddError, RuntimeError):
    """A device that does not exist, or that the work does not fit into."""


class DeviceMemoryError(DeviceError):
    """Work that does not fit into a GPU's memory; less of it at a time may."""


class ReproductionError(FeddError, ValueError):
    """A reproduction of the paper that can't be run or resumed."""
