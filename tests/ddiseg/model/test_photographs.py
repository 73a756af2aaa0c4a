"""Photographs of a workspace, opened on threads."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from ddiseg.errors import MissingFileError
from ddiseg.model.photographs import examples, in_order, sources
from ddiseg.outcomes import Outcome
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace


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


def test_in_order__refused_stored_and_given_twice(filled: Workspace) -> None:
    one, two, three = filled.catalogue.images.select()
    found = in_order([three, one, two, three], {three.id: Outcome.ADDED}, {two.id: "is gone"})
    assert [(o.name, o.outcome, o.note) for o in found] == [
        ("3.png", Outcome.ADDED, None),
        ("1.png", Outcome.UNCHANGED, None),
        ("2.png", Outcome.REFUSED, "is gone"),
        ("3.png", Outcome.UNCHANGED, None),
    ]
