"""Photographs of a workspace, opened on threads."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ddiseg.catalogue import NewMask
from ddiseg.catalogue.tables import Mask
from ddiseg.errors import MissingFileError
from ddiseg.model.photographs import examples, in_order, predictions_under, sources
from ddiseg.outcomes import Outcome
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.people import People


def test_sources__opened_when_asked_and_checked(filled: Workspace) -> None:
    images = filled.catalogue.images.select()
    found = sources(filled, images)
    Path(filled.store.path(Kind.IMAGE, images[1].content_hash)).unlink()
    assert [each.key.name for each in found] == ["1.png", "2.png", "3.png"]
    np.testing.assert_array_equal(found[0].open(), filled.photograph(images[0]))
    with pytest.raises(MissingFileError):
        found[1].open()


def test_examples__in_order_read_on_threads(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, opened = set(), Workspace.photograph

    def photograph(workspace: Workspace, image: object) -> np.ndarray:
        threads.add(threading.current_thread())
        return opened(workspace, image)  # type: ignore[arg-type]

    monkeypatch.setattr(Workspace, "photograph", photograph)
    [mask] = filled.catalogue.masks.all()
    images = filled.catalogue.images.select()
    found = list(examples(filled, [(image, mask) for image in images], ["a", "b", "c"]))
    assert [(e.patient, e.tone) for e in found] == [
        ("a", "I-II"),
        ("b", "V-VI"),
        ("c", "unknown"),
    ]
    monkeypatch.undo()
    for example, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(example.photograph, filled.photograph(image))
    assert threading.main_thread() not in threads


def test_examples__corrected_where_the_mask_differs_from_the_prediction_under_it(
    filled: Workspace,
) -> None:
    """A reviewer's fix of a mask that was drawn over a prediction; unlabelled pixels correct nothing."""
    predicted = np.full((6, 8), 4, np.uint8)
    predicted[0, :4] = 1
    drawn, fixed = predicted.copy(), predicted.copy()
    drawn[5], fixed[0, 3:6] = 0, (4, 1, 255)
    people, catalogue = People(filled), filled.catalogue
    one, other = people.give_out(predicted), people.accept(drawn)
    prediction = catalogue.masks.newest_predictions()[one]
    catalogue.masks.submit([_person(filled, prediction, drawn, "anna")])
    waiting = catalogue.masks.in_review()[one]
    catalogue.masks.review(waiting.id, "ben", "fixed", fix=_person(filled, waiting, fixed, "ben"))
    accepted = catalogue.masks.accepted([one, other])
    pairs = [(catalogue.images.select(ids=[i])[0], accepted[i]) for i in (one, other)]
    under = predictions_under(filled, [mask.id for _, mask in pairs])
    over_one, over_none = examples(filled, pairs, ["a", "b"], under)
    assert over_one.corrected is not None
    assert np.argwhere(over_one.corrected).tolist() == [[0, 3], [0, 4]]
    assert over_none.corrected is None
    assert [e.corrected for e in examples(filled, pairs, ["a", "b"])] == [None, None]


def _person(
    workspace: Workspace, parent: Mask, pixels: NDArray[np.uint8], annotator: str
) -> NewMask:
    """A person's mask that was drawn over another one."""
    columns: dict[str, Any] = {
        name: getattr(parent, name)
        for name in ("image_id", "width", "height", "mapping", "classes", "protocol_version")
    }
    digest = workspace.store_mask(pixels)
    return NewMask(**columns, content_hash=digest, annotator=annotator, parent_id=parent.id)


def test_in_order__refused_stored_and_given_twice(filled: Workspace) -> None:
    one, two, three = filled.catalogue.images.select()
    found = in_order([three, one, two, three], {three.id: Outcome.ADDED}, {two.id: "is gone"})
    assert [(o.name, o.outcome, o.note) for o in found] == [
        ("3.png", Outcome.ADDED, None),
        ("1.png", Outcome.UNCHANGED, None),
        ("2.png", Outcome.REFUSED, "is gone"),
        ("3.png", Outcome.UNCHANGED, None),
    ]
