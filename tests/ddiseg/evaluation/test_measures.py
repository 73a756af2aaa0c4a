"""What is measured of an accepted mask against the prediction that it was drawn over."""

from __future__ import annotations

import numpy as np
import pytest

from ddiseg.evaluation.measures import Metric, compare_edit


def test_edits__unlabelled_pixels_count_neither_as_changed_nor_as_unchanged() -> None:
    prediction = np.full((4, 5), 4, np.uint8)
    prediction[0] = 1
    accepted = prediction.copy()
    accepted[2:] = 255
    values = compare_edit(prediction, accepted).values
    assert values[Metric.UNCHANGED] == values[Metric.LESION_DICE] == 1
    accepted[1, 0] = 1
    assert compare_edit(prediction, accepted).values[Metric.CHANGED_PIXELS] == pytest.approx(1 / 10)
    assert compare_edit(prediction, np.full((4, 5), 255, np.uint8)).values == {}


def test_edits__lesion_alone_is_labelled() -> None:
    prediction = np.full((4, 5), 4, np.uint8)
    prediction[:2] = 1
    accepted = np.full((4, 5), 255, np.uint8)
    accepted[0] = 1
    assert compare_edit(prediction, accepted).values == {}, (
        "a lesion predicted too large would count as right"
    )
