"""DDI, the Diverse Dermatology Images (Daneshjou et al., Science Advances 2022), in its own layout.

`ddi_metadata.csv` has an unnamed index column, then DDI_ID, DDI_file, skin_tone (12, 34 or 56),
malignant (TRUE or FALSE) and disease; the PNGs lie next to it or in a folder of their own.
"""

from __future__ import annotations

from pathlib import Path

from ddiseg.ingest.metadata import Key

METADATA = "ddi_metadata.csv"

COLUMNS = {
    Key.IMAGE: "DDI_file",
    Key.TONE: "skin_tone",
    Key.MALIGNANT: "malignant",
    Key.DIAGNOSIS: "disease",
}

DATASET = "DDI"
LICENCE = (
    "Stanford University DDI Dataset Research Use Agreement: "
    "non-commercial research only, no redistribution"
)
SOURCE = "https://ddi-dataset.github.io"


def is_ddi(folder: Path) -> bool:
    """Return whether a folder has DDI's own layout."""
    return (folder / METADATA).is_file()
