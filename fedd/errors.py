"""The errors that fedd raises for input a person can mend."""

from __future__ import annotations


class FeddError(Exception):
    """Base of all errors of fedd: what was given, what was wrong with it, what to do next."""


class WeightsError(FeddError, ValueError):
    """A weights file that is missing, unreadable, unsafe, or made for another network."""


class TrainingDataError(FeddError, ValueError):
    """Images and masks that probes can't be trained on."""


class DatasetError(FeddError, ValueError):
    """A folder of photographs, a table or a mask that can't be used."""
