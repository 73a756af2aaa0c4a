from __future__ import annotations

import errno
import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedd import cache as module
from fedd.backbone import DiffusionUNet
from fedd.cache import FeatureCache, entry_name, extract_as_cached, image_digest, to_half
from fedd.errors import WeightsError
from fedd.features import FeatureSpec, prepare
from fedd.weights.files import read_safetensors, write_safetensors
from tests.fedd.conftest import TINY, spot
from tests.fedd.counting import Counting

SPEC = FeatureSpec(blocks=(3, 5), timestep=10)


@pytest.fixture
def net(tiny: DiffusionUNet) -> Counting:
    return Counting(tiny)


def images(*seeds: int) -> Tensor:
    return torch.stack([prepare(spot(s)[0], TINY.image_size) for s in seeds])


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.safetensors"))


def test_extract__as_without_a_cache_and_once(net: Counting, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    expected = extract_as_cached(net, images(0, 1), SPEC, None)
    net.passed.clear()
    for _ in range(2):
        found = cache.extract(net, images(0, 1), SPEC)
        assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))
        assert found[0].dtype == torch.float32
    assert net.passed.total() == 2
    assert len(entries(tmp_path)) == 2 * len(SPEC.blocks)


def test_extract__only_missing_images_are_computed_in_their_place(
    net: Counting, tmp_path: Path
) -> None:
    cache = FeatureCache(tmp_path)
    cache.extract(net, images(1), SPEC)
    net.passed.clear()
    found = cache.extract(net, images(0, 1, 2), SPEC)
    assert net.passed.total() == 2
    expected = extract_as_cached(net, images(0, 1, 2), SPEC, None)
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-3, atol=1e-3)


def test_extract__another_cache_object_finds_them(net: Counting, tmp_path: Path) -> None:
    FeatureCache(tmp_path).extract(net, images(0), SPEC)
    FeatureCache(tmp_path).extract(net, images(0), replace(SPEC, blocks=(5,)))
    assert net.passed.total() == 1


def test_name__says_all_that_made_the_entry(tiny: DiffusionUNet) -> None:
    digest = image_digest(images(0)[0])
    names = {
        entry_name(tiny, digest, 3, SPEC),
        entry_name(tiny, digest, 5, SPEC),
        entry_name(tiny, image_digest(images(1)[0]), 3, SPEC),
        entry_name(tiny, digest, 3, replace(SPEC, timestep=11)),
        entry_name(tiny, digest, 3, replace(SPEC, noise=1)),
        entry_name(DiffusionUNet.random(TINY, seed=2), digest, 3, SPEC),
    }
    larger = Counting(tiny)
    larger.image_size = 64
    names.add(entry_name(larger, digest, 3, SPEC))
    on_gpus = [Counting(tiny), Counting(tiny)]
    for number, net in enumerate(on_gpus):
        net.device = torch.device("cuda", number)
    names |= {entry_name(net, digest, 3, SPEC) for net in on_gpus}
    assert len(names) == 8, "one GPU is as another, and none is as a CPU"
    # What is read from the activations afterwards does not matter.
    assert entry_name(tiny, digest, 3, replace(SPEC, normalise=True)) in names


def test_digest__one_grey_level_is_another_image() -> None:
    image = images(0)[0]
    other = image.clone()
    other[0, 0, 0] += 2 / 255 if other[0, 0, 0] < 0 else -2 / 255
    assert image_digest(image) != image_digest(other)
    assert image_digest(image) == image_digest(image + 1e-4)


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flipped_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _other_version(path: Path) -> None:
    tensors, header = read_safetensors(path, module.CACHE_KIND)
    write_safetensors(path, tensors, {**header, "version": "0"})


def _anothers(path: Path) -> None:
    other = next(p for p in entries(path.parents[1]) if p != path)
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("damage", [_truncated, _flipped_bit, _emptied, _other_version, _anothers])
def test_extract__damaged_entry_is_computed_again_and_replaced(
    net: Counting, tmp_path: Path, damage: object
) -> None:
    cache = FeatureCache(tmp_path)
    expected = cache.extract(net, images(0), SPEC)
    damaged = entries(tmp_path)[0]
    damage(damaged)  # type: ignore[operator]
    for passes in (2, 2):  # the second time the replaced entry is found
        found = cache.extract(net, images(0), SPEC)
        assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))
        assert net.passed.total() == passes


def test_evict__the_least_recently_used_go_first(net: Counting, tmp_path: Path) -> None:
    FeatureCache(tmp_path).extract(net, images(0), SPEC)
    size = sum(p.stat().st_size for p in entries(tmp_path))
    cache = FeatureCache(tmp_path, limit=int(3.5 * size))
    for seed in (1, 2):
        cache.extract(net, images(seed), SPEC)
    now = time.time()
    for age, seed in enumerate((2, 1, 0)):  # 0 is the oldest by its files
        for block in SPEC.blocks:
            name = entry_name(net, image_digest(images(seed)[0]), block, SPEC)
            os.utime(cache._path(name), (now - 100 * (age + 1),) * 2)
    cache.extract(net, images(0), SPEC)  # used again: 1 is the one longest unused now
    cache.extract(net, images(3), SPEC)
    net.passed.clear()
    cache.extract(net, images(0, 2, 3), SPEC)
    assert net.passed.total() == 0
    cache.extract(net, images(1), SPEC)
    assert net.passed.total() == 1
    assert sum(p.stat().st_size for p in tmp_path.glob("*/*")) <= cache.limit


def test_evict__counts_what_another_process_wrote(
    net: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEASURED_EVERY", 1)
    FeatureCache(tmp_path).extract(net, images(*range(6)), SPEC)
    size = sum(p.stat().st_size for p in entries(tmp_path))
    FeatureCache(tmp_path, limit=size // 2).extract(net, images(7), SPEC)
    assert sum(p.stat().st_size for p in entries(tmp_path)) <= size // 2


def test_evict__abandoned_temporary_files_go_and_fresh_ones_stay(
    net: Counting, tmp_path: Path
) -> None:
    (tmp_path / "ab").mkdir()
    old, fresh = tmp_path / "ab" / ".old.1.part", tmp_path / "ab" / ".fresh.2.part"
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    FeatureCache(tmp_path).extract(net, images(0), SPEC)
    assert (old.exists(), fresh.exists()) == (False, True)


def test_evict__files_that_vanish_meanwhile(
    net: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FeatureCache(tmp_path).extract(net, images(0, 1), SPEC)
    real = Path.glob

    def vanishing(self: Path, pattern: str) -> list[Path]:
        found = sorted(real(self, pattern))
        found[0].unlink()
        return found

    monkeypatch.setattr(Path, "glob", vanishing)
    cache = FeatureCache(tmp_path, limit=10_000)
    cache.extract(net, images(2), SPEC)
    assert cache.problem is None


def test_write__entry_larger_than_the_limit_is_not_kept(net: Counting, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, limit=100)
    assert len(cache.extract(net, images(0), SPEC)) == len(SPEC.blocks)
    assert entries(tmp_path) == []
    assert cache.problem is None


def test_write__folder_that_became_a_file(net: Counting, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features")
    cache.folder.touch()
    cache.extract(net, images(0), SPEC)
    assert cache.problem is not None
    assert cache.problem.endswith(": Not a directory")
    assert "Errno" not in cache.problem


def test_write__full_disk_ends_the_caching_and_nothing_else(
    net: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def full(path: Path, *_args: object, **_options: object) -> None:
        tried.append(path)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_safetensors", full)
    cache = FeatureCache(tmp_path)
    assert len(cache.extract(net, images(0), SPEC)) == len(SPEC.blocks)
    before = len(tried)  # threads may begin at the same time
    assert len(cache.extract(net, images(1), SPEC)) == len(SPEC.blocks)
    assert cache.problem is not None
    assert "No space left" in cache.problem
    assert len(tried) == before, "it is not tried for every entry"


def test_read__folder_that_can_only_be_read(
    net: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FeatureCache(tmp_path).extract(net, images(0), SPEC)

    def refused(*_args: object, **_options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "utime", refused)  # not by the folder's mode: root may write anywhere
    FeatureCache(tmp_path).extract(net, images(0), SPEC)
    assert net.passed.total() == 1


def test_to_half__large_numbers_stay_numbers_and_nan_is_refused() -> None:
    assert torch.isfinite(to_half(torch.tensor([1e6, -1e6]))).all()
    for broken in (torch.nan, torch.inf):
        with pytest.raises(WeightsError, match="not numbers"):
            to_half(torch.tensor([1.0, broken]))


def test_extract__damaged_backbone_leaves_no_entry(tmp_path: Path) -> None:
    damaged = DiffusionUNet.random(TINY, seed=1)
    damaged.net.output_blocks[2][0].in_layers[2].bias.fill_(torch.nan)
    with pytest.raises(WeightsError, match="not numbers"):
        FeatureCache(tmp_path).extract(damaged, images(0), SPEC)
    assert entries(tmp_path) == []


def _hammer(folder: str, first: int, limit: int) -> list[str]:
    """Write and read ten images over and over, with room for a few."""
    torch.set_num_threads(1)
    net = DiffusionUNet.random(TINY, seed=1)
    cache = FeatureCache(Path(folder), limit)
    expected = {s: extract_as_cached(net, images(s), SPEC, None) for s in range(6)}
    wrong = []
    for turn in range(12):
        seed = (first + turn) % 6
        found = cache.extract(net, images(seed), SPEC)
        if not all(torch.equal(f, e) for f, e in zip(found, expected[seed], strict=True)):
            wrong.append(f"image {seed} in turn {turn}")
    return [*wrong, *([cache.problem] if cache.problem else [])]


@pytest.mark.process
def test_two_processes__write_read_and_evict_side_by_side(tmp_path: Path) -> None:
    FeatureCache(tmp_path).extract(DiffusionUNet.random(TINY, seed=1), images(0), SPEC)
    limit = 3 * sum(p.stat().st_size for p in entries(tmp_path))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        jobs = [pool.apply_async(_hammer, (str(tmp_path), first, limit)) for first in (0, 3)]
        assert [job.get(120) for job in jobs] == [[], []]
    assert not list(tmp_path.glob("*/.*"))
