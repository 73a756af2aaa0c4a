"""When a forward pass is compiled, and what a compiler that fails changes: with a compiler and a clock of our own."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from torch import Tensor

from fedd.backbone import DiffusionUNet
from fedd.network import compiled
from fedd.network.compiled import COMPILE_SECONDS, SAVED_SHARE, CompiledForward, Forward
from fedd.network.unet import decoder_activations
from fedd.remembered import Remembered
from tests.fedd.conftest import TINY

#: Seconds of an image, uncompiled and compiled, and of compiling, on the clock of these tests.
EAGER, COMPILED, COMPILING = 0.01, 0.006, 30.0

#: So many images pay back by the guesses.
ENOUGH = round(COMPILE_SECONDS / SAVED_SHARE / EAGER) + 100

BLOCKS = (3, 5)


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DDISEG_CACHE", str(tmp_path))
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_FX_GRAPH_CACHE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


class Bench:
    """A forward pass on a clock that only its passes move on."""

    def __init__(self, path: Path, fails: Callable[[int], Exception | None] = lambda _: None):
        self.clock, self.ran, self.fails = 0.0, "", fails
        self.tried = 0
        self.forward = CompiledForward(
            "small",
            "this device",
            self.eager,
            compiler=self.compile,
            costs=Remembered(path / "costs.json"),
            now=lambda: self.clock,
        )

    def eager(
        self, _net: Any, x: Tensor, _t: Tensor, _blocks: tuple[int, ...]
    ) -> dict[int, Tensor]:
        self.clock += EAGER * len(x)
        self.ran += "e"
        return {3: x}

    def compile(self, _forward: Forward) -> Forward:
        first = [True]

        def run(_net: Any, x: Tensor, _t: Tensor, _b: tuple[int, ...]) -> dict[int, Tensor]:
            self.tried += 1
            if (error := self.fails(self.tried)) is not None:
                raise error
            self.clock += COMPILED * len(x) + (COMPILING if first else 0)
            first.clear()
            self.ran += "c"
            return {3: x}

        return run

    def run(self, passes: int, images: int = 8, size: int = 4) -> str:
        """Run passes; returns those of them that ran, e or c each."""
        self.ran = ""
        for _ in range(passes):
            found = self.forward(None, torch.zeros(images, 3, size, size), torch.zeros(1), BLOCKS)
            assert len(found[3]) == images
        return self.ran


def test_compiled__after_the_time_of_a_pass_is_known(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.forward.expect(ENOUGH)
    assert bench.run(5) == "eeccc", "the first is cuDNN's warm-up, the second is measured"


def test_compiled__not_for_a_job_that_is_over_before_it_pays(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.forward.expect(ENOUGH // 2)
    assert bench.run(5) == "eeeee"


def test_compiled__nobody_said_what_is_coming(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.forward.at_least(8)
    assert bench.run(5) == "eeeee"


def test_compiled__what_it_cost_and_saved_decides_the_next_job(tmp_path: Path) -> None:
    first = Bench(tmp_path)
    first.forward.expect(ENOUGH)
    first.run(5)
    pays = round(COMPILING / (EAGER - COMPILED))
    shorter, longer = Bench(tmp_path), Bench(tmp_path)
    shorter.forward.expect(pays - 10)
    assert shorter.run(3) == "eee"
    longer.forward.expect(pays + 10)
    assert longer.run(3) == "ccc", "at once: nothing is left to measure"


def test_compiled__that_is_no_faster_is_left_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.COMPILED", 2 * EAGER)
    bench = Bench(tmp_path)
    bench.forward.expect(10 * ENOUGH)
    assert bench.run(6) == "eeccee"


def test_compiled__one_image_alone_runs_as_it_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.forward.expect(ENOUGH)
    bench.run(4)
    assert bench.run(1, images=1) == "e"
    assert bench.run(1, images=5) == "c"


def test_failure__that_pass_runs_uncompiled_and_the_next_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wording: SnapshotAssertion
) -> None:
    broken = RuntimeError("Failed to find C compiler. Please specify via CC\nmore of it")
    bench = Bench(tmp_path, lambda tried: broken if tried == 1 else None)
    bench.forward.expect(ENOUGH)
    with caplog.at_level(logging.WARNING, "fedd"):
        assert bench.run(5) == "eeecc"
    assert [record.getMessage() for record in caplog.records] == wording


def test_failure__twice_in_a_row_ends_it_for_this_shape_in_this_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wording: SnapshotAssertion
) -> None:
    small = 4

    def fails(_tried: int) -> Exception | None:
        return FileNotFoundError("no compiler") if size[0] == small else None

    size = [small]
    bench = Bench(tmp_path, fails)
    bench.forward.expect(100 * ENOUGH)
    with caplog.at_level(logging.WARNING, "fedd"):
        assert bench.run(6) == "eeeeee"
    assert bench.tried == 2
    assert [record.getMessage() for record in caplog.records] == wording
    size[0] = 8
    assert bench.run(4, size=8) == "eecc", "another shape"
    size[0] = small
    bench.forward.expect(100 * ENOUGH)
    bench.run(3)
    assert bench.tried == 5, "a new job tries once more, not at every batch"


def test_failure__memory_that_runs_out_is_none(tmp_path: Path) -> None:
    full = torch.OutOfMemoryError("CUDA out of memory.")
    wrapped = RuntimeError("backend='inductor' raised")
    wrapped.__cause__ = full
    bench = Bench(tmp_path, lambda tried: {1: full, 2: wrapped}.get(tried))
    bench.forward.expect(ENOUGH)
    assert bench.run(2) == "ee"
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            bench.run(1)
    assert bench.run(1) == "c", "the compiler is not blamed"


def test_failure__an_error_of_the_network_itself_comes_out(tmp_path: Path) -> None:
    def broken(*_: Any) -> dict[int, Tensor]:
        raise RuntimeError("device-side assert triggered")

    bench = Bench(tmp_path)
    bench.forward.expect(ENOUGH)
    bench.run(3)
    bench.forward._compiled = bench.forward._eager = broken
    with pytest.raises(RuntimeError, match="device-side"):
        bench.run(1)


def test_costs__a_damaged_file_is_measured_anew(tmp_path: Path) -> None:
    (tmp_path / "costs.json").write_text('{"this device, 3x4x4, blocks (3, 5)": {"eager": "soon"}}')
    bench = Bench(tmp_path)
    bench.forward.expect(ENOUGH)
    assert bench.run(4) == "eecc"
    (tmp_path / "costs.json").write_text("[")
    assert Bench(tmp_path).run(1) == "e"


def test_cache__compiled_code_is_kept_unless_the_environment_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    bench.forward.expect(ENOUGH)
    bench.run(2)
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ, "nothing was compiled yet"
    bench.run(1)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    compiled.use_persistent_cache()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/elsewhere"


@pytest.mark.slow
def test_dynamic__one_graph_for_any_number_of_images(tmp_path: Path) -> None:
    """The real network through torch's own tracing; only the code generation is left out."""
    graphs = []

    def backend(graph: Any, _inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    net = DiffusionUNet.random(TINY, seed=1)
    forward = CompiledForward(
        "tiny",
        "this device",
        decoder_activations,
        compiler=lambda eager: torch.compile(eager, backend=backend),
        costs=Remembered(tmp_path / "costs.json"),
        now=iter(range(0, 10**9, 1000)).__next__,
    )
    forward.expect(10**9)
    t = torch.full((1,), 10)
    with torch.inference_mode():
        for images in (4, 4, 4, 3, 8, 2):
            x = torch.randn(images, 12, 16, 16).contiguous(memory_format=torch.channels_last)
            found, expected = (
                forward(net.net, x, t, BLOCKS),
                decoder_activations(net.net, x, t, BLOCKS),
            )
            for block in BLOCKS:
                torch.testing.assert_close(found[block], expected[block])
    assert len(graphs) == 1
    assert next(iter(forward._shapes.values())).failures == 0
