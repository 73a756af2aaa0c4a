from __future__ import annotations

import threading

import pytest
import torch

from fedd.network.lanes import lanes


@pytest.fixture
def four_threads():  # type: ignore[no-untyped-def]
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
def test_lanes__share_the_callers_threads() -> None:
    pool = lanes(2)
    meeting = threading.Barrier(2, timeout=30)

    def threads() -> int:
        meeting.wait()  # so that each lane runs one
        torch.ones(100, 100) @ torch.ones(100, 100)
        return torch.get_num_threads()

    with pool:
        assert [f.result() for f in [pool.submit(threads), pool.submit(threads)]] == [2, 2]
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
def test_lanes__threads_that_start_later_have_all() -> None:
    found = []
    with lanes(4):
        thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        thread.start()
        thread.join()
    assert found == [4]
