"""A GPU's table: the paper's network, probes on its activations and the pipeline, in six minutes at most.

`python -m benchmarks.gpu`, in the repository's root, on a machine with a GPU. It needs torch, numpy,
Pillow, safetensors and guided_diffusion; the weights (552.8 M parameters) are random, so nothing is
fetched. The table is Markdown, and each row is printed as soon as it is measured. Stages for which the
budget has no time left are named; a stage that fails is named too, with its traceback on stderr, and
the others go on.

Rates are medians or means over seconds of work after a warm-up; a share of the peak counts the FLOP of
direct convolutions, against a large matrix product in the same precision. float32 is float32: TF32 is
off.
"""

from __future__ import annotations

import copy
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.budget import Table
from benchmarks.gpu_inputs import (
    core_count,
    machine,
    phantoms,
    untrained_network,
    write_photographs,
)
from benchmarks.gpu_passes import (
    Forward,
    Rate,
    Stopwatch,
    TimedBackbone,
    compiled_for_any_batch,
    compiler_cache,
    differences,
    noise_seconds,
    prefix_rate,
    untuned,
)
from benchmarks.gpu_pipeline import MaskFolder, decoding_rate, flushed_write_seconds, store_masks
from fedd.backbone import DiffusionUNet
from fedd.network.devices import existing_device
from fedd.network.throughput import flop_per_image, matrix_peak
from fedd.network.unet import IMAGENET_256, UNetConfig, decoder_activations
from fedd.probes.training import train_probes
from fedd.segment import PAPER, Probes, ProbeSettings

CLASSES = ("background", "lesion", "marker", "ruler", "skin")

PRECISIONS = ("bfloat16", "float32")

#: Goals for a data-centre GPU (H200, H100, A100) with 16 cores: images a second and share of the matrix
#: product, share of the prefix's rate, seconds, share of the pixels, largest difference in float32.
RATE, SHARE, PIPELINE, TRAINING, EQUAL, DIFFERENCE = 150, 0.4, 0.6, 60, 0.995, 1e-4

#: Seconds that one batch size may take, and compiling the network.
ONE_RATE, COMPILING = 20, 100


@dataclass(frozen=True)
class Sizes:
    """How much is measured; by default what a data-centre GPU does in less than six minutes."""

    budget: float = 325.0  #: seconds in which a stage may begin
    config: UNetConfig = IMAGENET_256
    settings: ProbeSettings = PAPER
    batches: Mapping[str, Sequence[int]] = field(
        # 128 images x 256 channels x 256 x 256 are 2^31 numbers: too many for 32-bit indices.
        default_factory=lambda: {"bfloat16": (16, 32, 64, 96), "float32": (16, 64)}
    )
    untuned_batch: int = 48  #: another size: what cuDNN chose for a size is kept
    seconds: float = 2.0  #: of passes for one rate
    masks: int = 120
    compared: int = 64  #: phantoms predicted in both precisions
    phantom_size: int = 128  #: width and height in pixels
    photographs: Sequence[tuple[int, int]] = ((600, 450), (1024, 1024))  #: width and height
    pipeline_batch: int = 64  #: photographs computed together, as `fedd.pipeline` does on a GPU
    pipeline_seconds: float = 8.0  #: for photographs of one size
    compiler: Callable[[Forward], Forward] = torch.compile


def main() -> None:
    if not torch.cuda.is_available():
        print("skipped: no GPU; run 'python -m benchmarks.gpu' on a machine that has one")
        return
    if not measure("cuda"):
        sys.exit(1)


def _print(line: str) -> None:
    print(line, flush=True)


def measure(device: str, sizes: Sizes | None = None, out: Callable[[str], object] = _print) -> bool:
    """Print the table; returns whether no stage failed."""
    sizes, place = sizes or Sizes(), existing_device(device)
    table = Table(sizes.budget, out)
    table.head(f"{machine(place)}; random weights")
    with table.folder() as folder, compiler_cache(folder / "compiled"):
        _Stages(place, sizes, table, folder).run()
    return not table.failed


class _Stages:
    """The stages, in the order in which a reader wants them; later ones use what earlier ones found."""

    def __init__(self, device: torch.device, sizes: Sizes, table: Table, folder: Path) -> None:
        self.device, self.sizes, self.table, self.folder = device, sizes, table, folder
        self.watch = Stopwatch(device, sizes.seconds)
        self.spec = sizes.settings.features
        self.prefix = f"prefix to blocks {' and '.join(map(str, self.spec.blocks))}"
        self.flop = flop_per_image(sizes.config, self.spec.blocks)
        self.nets: dict[str, DiffusionUNet] = {}
        self.peaks: dict[str, float] = {}  #: FLOP a second, by precision
        self.best: dict[str, Rate] = {}  #: by precision
        self.compiled: Forward | None = None
        self.probes: Probes | None = None

    def run(self) -> None:
        stage, sizes = self.table.stage, self.sizes
        stage("network of random weights", 0, self._network)
        for precision in PRECISIONS:
            stage(f"matrix product, {precision}", 0, partial(self._peak, precision))
        for precision in PRECISIONS:
            stage(f"{self.prefix}, {precision}", ONE_RATE, partial(self._prefix, precision))
        stage("images on the CPU to activations", 10, self._activations)
        stage(f"probes of {sizes.masks} masks", 30, self._training)
        stage("bfloat16 against float32", 20, self._agreement)
        stage("disk", 2, self._disk)
        photographs: dict[tuple[int, int], list[Path]] = {}
        for size in sizes.photographs:
            stage(f"decoding, {_by(size)}", 15, partial(self._decoding, size, photographs))
        for how in ("", ", compiled"):
            if how:
                stage(
                    f"{self.prefix}, bfloat16{how}", COMPILING, partial(self._compile, "bfloat16")
                )
            for size, paths in photographs.items():
                job = partial(self._pipeline, size, paths, how)
                stage(f"JPEG to masks, {_by(size)}{how}", 3 * sizes.pipeline_seconds, job)
        stage(f"{self.prefix}, float32, compiled", COMPILING, partial(self._compile, "float32"))
        self._peak_memory()

    def _network(self) -> None:
        library = untrained_network(self.sizes.config, self.device)
        exact = DiffusionUNet(
            "untrained", self.sizes.config, copy.deepcopy(library), "0" * 64, self.device
        )
        self.nets = {"bfloat16": exact.to(str(self.device), "bfloat16"), "float32": exact}
        for net in self.nets.values():
            net._forward = decoder_activations
        half, full = differences(
            library, [self.nets[p] for p in PRECISIONS], decoder_activations, self.spec
        )
        self.table.row(
            "activations against guided_diffusion's own forward, largest difference",
            f"{full:.1e} of the largest in float32, {half:.1e} in bfloat16",
            f"{DIFFERENCE} in float32",
            full <= DIFFERENCE,
        )

    def _peak(self, precision: str) -> None:
        self.peaks[precision] = matrix_peak(self.device, precision)
        self.table.row(f"matrix product, {precision}", _tera(self.peaks[precision]))

    def _prefix(self, precision: str) -> None:
        for batch in self.sizes.batches[precision]:
            what = f"{self.prefix}, {precision}, batches of {batch}"
            if not self.table.has_time(what, ONE_RATE):
                return
            try:
                self._rate(precision, batch, decoder_activations)
            except torch.OutOfMemoryError:
                self.table.row(what, "does not fit into the GPU's memory")
                return
        if precision == "bfloat16":
            with untuned():
                how = ", algorithms not tried"
                self._rate(precision, self.sizes.untuned_batch, decoder_activations, how)

    def _compile(self, precision: str) -> None:
        forward = compiled_for_any_batch(self.sizes.compiler)
        self._rate(precision, self.sizes.pipeline_batch, forward, ", compiled")
        if precision == "bfloat16":
            self.compiled = forward

    def _rate(self, precision: str, batch: int, forward: Forward, how: str = "") -> None:
        found = prefix_rate(self.nets[precision], forward, self.spec, batch, self.watch)
        best = self.best.get(precision, found)
        self.best[precision] = max(best, found, key=lambda rate: rate.images_per_second)
        reached = self.flop * found.images_per_second
        share = reached / self.peaks[precision]
        half = precision == "bfloat16"
        self.table.row(
            f"{self.prefix}, {precision}{how}, batches of {batch}",
            f"{found.images_per_second:.1f} images/s, {_tera(reached)}, {share:.0%} of the matrix "
            f"product; first pass {found.first_pass:.1f} s{_gpu(found.memory)}",
            f"{RATE} images/s and {SHARE:.0%}" if half else "",
            found.images_per_second >= RATE and share >= SHARE,
        )

    def _activations(self) -> None:
        """Measure the backbone from images on the CPU: noise, copies and float32 activations included."""
        net, best = self.nets["bfloat16"], self.best["bfloat16"]
        self._fix_batch(best.batch)
        images = torch.rand(best.batch, 3, *[net.image_size] * 2) * 2 - 1
        images = images.pin_memory() if self.watch.on_gpu else images

        def one_pass() -> None:
            net.activations(images, self.spec.timestep, self.spec.blocks)

        one_pass()
        one, many = noise_seconds(images, self.sizes.seconds)
        self.table.row(
            f"noise of an image on one core, and of {best.batch} on threads",
            f"{1e3 * one:.2f} ms, {1e3 * many:.0f} ms of the {1e3 * best.batch / best.images_per_second:.0f} "
            "ms in which the network computes them",
        )
        found = best.batch / self.watch.seconds_a_pass(one_pass)
        self.table.row(
            f"images on the CPU to float32 activations, bfloat16, batches of {best.batch}",
            f"{found:.1f} images/s, {found / best.images_per_second:.0%} of the best prefix",
        )

    def _training(self) -> None:
        sizes, net = self.sizes, TimedBackbone(self.nets["bfloat16"])
        examples = phantoms(sizes.masks, sizes.phantom_size, 0)

        def train() -> None:
            self.probes = train_probes(examples, net, sizes.settings, CLASSES)

        self.watch.reset_memory()
        seconds = self.watch.seconds(train)
        assert self.probes is not None
        self.table.row(
            f"{sizes.settings.members} probes of {sizes.masks} masks, bfloat16",
            f"{seconds:.1f} s: activations of {net.images} images {net.seconds:.1f} s, the rest "
            f"{seconds - net.seconds:.1f} s ({self.probes.record.steps} steps)"
            f"{_gpu(self.watch.memory())}",
            f"{TRAINING} s",
            seconds < TRAINING,
        )

    def _agreement(self) -> None:
        examples = phantoms(self.sizes.compared, self.sizes.phantom_size, 1)
        photographs = [example.photograph for example in examples]
        probes = self._trained()
        self._fix_batch(self.sizes.batches["float32"][0])
        half, exact = (
            np.stack([each.mask for each in probes.predict(self.nets[precision], photographs)])
            for precision in PRECISIONS
        )
        equal = (half == exact).mean((1, 2))
        self.table.row(
            f"pixels of equal class in bfloat16 and float32, {len(equal)} phantoms",
            f"{equal.mean():.2%}, the worst phantom {equal.min():.2%}; "
            f"{len(np.unique(exact))} classes predicted",
            f"{EQUAL:.1%}",
            equal.mean() >= EQUAL,
        )

    def _disk(self) -> None:
        seconds = flushed_write_seconds(self.folder)
        self.table.row(
            "a small file written and flushed to the disk, alone", f"{1e3 * seconds:.2f} ms"
        )

    def _decoding(
        self, size: tuple[int, int], photographs: dict[tuple[int, int], list[Path]]
    ) -> None:
        """Write the photographs, and measure how many threads decode as fast as the network computes."""
        rate, batch = self.best["bfloat16"].images_per_second, self.sizes.pipeline_batch
        count = batch * max(2, round(rate * self.sizes.pipeline_seconds / batch))
        examples = phantoms(min(count, 32), self.sizes.phantom_size, 2)
        paths = write_photographs(self.folder / _by(size), examples, size, count)
        photographs[size] = paths
        threads = [n for n in (1, 2, 4, 8, 16, 32) if n <= core_count()]
        seconds = self.sizes.seconds / 2
        image_size = self.sizes.config.image_size
        found = {n: decoding_rate(paths, image_size, n, seconds) for n in threads}
        enough = next((f"{n} are enough" for n in threads if found[n] >= rate), "too few")
        self.table.row(
            f"JPEG of {_by(size)} decoded and resized, photographs/s by threads",
            ", ".join(f"{n}: {each:.0f}" for n, each in found.items())
            + f"; for the {rate:.0f} images/s of the prefix {enough}",
        )

    def _pipeline(self, size: tuple[int, int], paths: Sequence[Path], how: str) -> None:
        """Measure JPEG files to stored masks; the first batches, which are not measured, warm up."""
        net, probes, batch = self.nets["bfloat16"], self._trained(), self.sizes.pipeline_batch
        if how and self.compiled is None:
            raise RuntimeError("the network was not compiled")
        net._forward = self.compiled if how and self.compiled else decoder_activations
        self._fix_batch(batch)
        folder = MaskFolder(self.folder / f"masks {_by(size)}{how}")
        store_masks(probes, net, paths[:batch], folder, batch)
        self.watch.reset_memory()
        found = store_masks(probes, net, paths, folder, batch)
        share = found / self.best["bfloat16"].images_per_second
        self.table.row(
            f"{len(paths)} JPEG files of {_by(size)} to stored masks, bfloat16{how}",
            f"{found:.1f} images/s, {share:.0%} of the best prefix{_gpu(self.watch.memory())}",
            f"{PIPELINE:.0%} with 16 cores",
            share >= PIPELINE,
        )

    def _peak_memory(self) -> None:
        """Print the peaks of the whole run."""
        host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.table.row(
            "peak memory of the run", f"host {host / 1e9:.1f} GB{_gpu(self.watch.most_memory)}"
        )

    def _trained(self) -> Probes:
        if self.probes is None:
            raise RuntimeError("there are no probes: their training failed, or had no time")
        return self.probes

    def _fix_batch(self, size: int) -> None:
        """Let both backbones pass this many images at once, so that no other size warms up."""
        for net in self.nets.values():
            net.batch.size = net.batch.most = size


def _tera(flop_per_second: float) -> str:
    return f"{flop_per_second / 1e12:.3g} TFLOP/s"


def _gpu(memory: int) -> str:
    """Return a peak on the GPU as the end of a cell; empty where there is no GPU."""
    return f"; GPU {memory / 1e9:.1f} GB" if memory else ""


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


if __name__ == "__main__":
    main()
