"""ddiseg: from clinical photographs to a fair, reviewed, released segmentation dataset."""

from importlib.metadata import version

__version__ = version("ddiseg")
