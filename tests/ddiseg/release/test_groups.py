"""The field `group` of a release: who splits it by that field cuts no patient, lesion or near-duplicates."""

from __future__ import annotations

import numpy as np

from ddiseg.release.release import Release
from tests.ddiseg.release.conftest import Builder


def test_facts__group_joins_what_no_single_id_joins(builder: Builder) -> None:
    """2 has the patient of 1 and the lesion of 3; 4 has a placeholder as 5 has."""
    ids = [("a", None), ("a", "x"), (None, "x"), ("-", None), ("-", None)]
    for number, (patient, lesion) in enumerate(ids, 1):
        details = {"patient": patient, "lesion": lesion, "perceptual_hash": _look(number)}
        builder.mask(builder.image(f"{number}.png", **details), np.full((12, 10), 1, np.uint8))
    facts = [item.facts() for item in Release.gather(builder.workspace).items()]
    groups = [of["group"] for of in facts]
    assert groups[0] == groups[1] == groups[2]
    assert len(set(groups)) == 3
    assert set(groups) <= {of["content_hash"] for of in facts}
    assert [of["patient"] is None for of in facts] == [False, False, True, True, True]


def _look(number: int) -> str:
    return f"{(number * 0x9E3779B97F4A7C15) % 2**64:016x}"
