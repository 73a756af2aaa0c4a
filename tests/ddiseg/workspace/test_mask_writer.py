"""Masks on their way to the store."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest

from ddiseg.errors import InputError
from ddiseg.masks import Mask
from ddiseg.workspace import mask_writer
from ddiseg.workspace.mask_writer import MaskWriter
from tests.wording import Refusal

MASK = np.zeros((2, 3), np.uint8)


def test_add__holds_no_more_masks_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_writer, "HELD", 2)
    go_on, third = threading.Event(), threading.Event()

    def store(mask: Mask) -> str:
        go_on.wait(10)
        return f"{mask.shape}"

    writer = MaskWriter(store)
    futures = [writer.add(MASK), writer.add(MASK)]
    adding = threading.Thread(target=lambda: (futures.append(writer.add(MASK)), third.set()))
    adding.start()
    assert not third.wait(0.05), "a third mask was taken while two are held"
    go_on.set()
    assert third.wait(10)
    writer.end()
    writer.join()
    assert [each.result() for each in futures] == ["(2, 3)"] * 3


def test_add__mask_that_memory_does_not_suffice_for(refusal: Refusal) -> None:
    def store(mask: Mask) -> str:
        raise MemoryError

    writer = MaskWriter(store)
    future = writer.add(MASK)
    writer.end()
    writer.join()
    with refusal(InputError):
        future.result()


def test_end__drops_what_no_thread_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_writer, "THREADS", 1)
    begun, go_on = threading.Event(), threading.Event()

    def store(mask: Mask) -> str:
        begun.set()
        go_on.wait(10)
        return "stored"

    writer = MaskWriter(store)
    first, second = writer.add(MASK), writer.add(MASK)
    assert begun.wait(10)
    writer.end(drop=True)
    go_on.set()
    writer.join()
    assert first.result() == "stored"
    with pytest.raises(CancelledError):
        second.result()
