from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.cluster.vq import vq
from syrupy.assertion import SnapshotAssertion
from torch.nn import functional as F

from fedd.backbone import IMAGENET_256, DiffusionUNet
from fedd.errors import FigureError, WeightsError
from fedd.explore.clusters import (
    _centres,
    _even_ranges,
    _pages_of_columns,
    activation_map,
    by_brightness,
    cluster_map,
    default_blocks,
    supplement_blocks,
    write_cluster_maps,
)
from tests.fedd.conftest import TINY, fedd, spot
from tests.fedd.counting import Counting


def _three_parts(channels: int = 6, side: int = 8) -> torch.Tensor:
    """Activations with a left, a middle and a right part that are far apart."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(3, channels, generator=generator) * 10
    part = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2]).expand(side, side)
    noise = torch.randn(channels, side, side, generator=generator) * 0.1
    return centres[part].permute(2, 0, 1) + noise


def test_cluster_map__finds_the_parts() -> None:
    found = cluster_map(_three_parts(), (8, 8), 3)
    assert [len(set(found[:, part].ravel().tolist())) for part in ([0, 1, 2], [3, 4], [5, 6, 7])] == [1] * 3  # fmt: skip
    assert len(np.unique(found)) == 3


@pytest.mark.parametrize("shape", [(8, 8), (37, 50), (5, 50)])
def test_cluster_map__equals_assigning_the_upsampled_activations(shape: tuple[int, int]) -> None:
    """The slow way: every channel up-sampled, then scipy's nearest centre at each pixel."""
    activation = torch.randn(16, 8, 8, generator=torch.Generator().manual_seed(1))
    centres = _centres(activation.reshape(16, -1).T.numpy(), 4, 3)
    up = F.interpolate(activation[None], shape, mode="bilinear", align_corners=False)[0]
    slow, _ = vq(up.reshape(16, -1).T.numpy(), centres)
    assert (cluster_map(activation, shape, 4, 3).ravel() == slow).mean() > 0.999


def test_cluster_map__same_seed_same_map() -> None:
    activation = torch.randn(16, 8, 8, generator=torch.Generator().manual_seed(1))
    assert (
        cluster_map(activation, (20, 20), 3, 5) == cluster_map(activation, (20, 20), 3, 5)
    ).all()


@pytest.mark.parametrize("distinct", [1, 2])
def test_cluster_map__fewer_values_than_clusters(distinct: int) -> None:
    activation = torch.zeros(4, 8, 8)
    activation[:, :, 4:] = distinct - 1
    assert len(np.unique(cluster_map(activation, (8, 8), 3))) == distinct


def test_cluster_map__damaged_activations_are_refused() -> None:
    with pytest.raises(WeightsError, match="not numbers"):
        cluster_map(torch.full((4, 8, 8), torch.nan), (8, 8), 3)


def test_activation_map__mean_of_the_channels_stretched_to_grey() -> None:
    activation = torch.zeros(4, 8, 8)
    activation[:, :, 4:] = torch.tensor([1.0, 2.0, 3.0, 6.0])[:, None, None]  # 3 in the mean
    activation[:, :, :2] = -3.0
    found = activation_map(activation, (8, 8))
    assert found[0].tolist() == [0, 0, 128, 128, 255, 255, 255, 255]
    uniform = activation_map(torch.full((4, 8, 8), 2.0), (5, 9))
    assert uniform.shape == (5, 9)
    assert not uniform.any()


def test_supplement_blocks__of_the_papers_network_and_of_another() -> None:
    assert supplement_blocks(IMAGENET_256) == (12, 10, 8, 6)
    assert supplement_blocks(TINY) == (7, 5, 3, 1)


def test_by_brightness__orders_clusters_by_the_photograph() -> None:
    clusters = np.array([[2, 7, 2], [0, 0, 7]], np.uint8)
    brightness = {2: 200, 7: 10, 0: 100}
    photograph = np.vectorize(brightness.get)(clusters).astype(np.uint8)[..., None].repeat(3, -1)
    assert by_brightness(clusters, photograph).tolist() == [[2, 0, 2], [1, 1, 0]]


def test_default_blocks__of_the_papers_network_and_of_another() -> None:
    assert default_blocks(IMAGENET_256) == (4, 6, 8, 12)
    assert default_blocks(TINY) == (1, 3, 5, 7)


def test_pages__hold_few_columns_and_keep_a_block_together() -> None:
    assert _even_ranges(9, 4) == [range(0, 3), range(3, 6), range(6, 9)]
    pages = _pages_of_columns((1, 2, 3, 4, 5), (0, 10, 20, 30, 40))
    assert [c for page in pages for c in page] == [(b, t) for b in range(1, 6) for t in range(0, 41, 10)]  # fmt: skip
    assert all(len(page) <= 12 for page in pages)
    assert all(
        {b for b, _ in one}.isdisjoint({b for b, _ in other}) for one, other in pairwise(pages)
    )
    many = _pages_of_columns((1, 2), tuple(range(25)))
    assert [len({b for b, _ in page}) for page in many] == [1] * len(many)
    assert sum(map(len, many)) == 50


@pytest.mark.slow
def test_write__one_page_from_one_pass_a_timestep(
    tiny: DiffusionUNet, tmp_path: Path, wording: SnapshotAssertion
) -> None:
    counting = Counting(tiny)
    photographs = [(f"{n}.png", spot(n, (40, 60))[0]) for n in range(3)]
    ((path, shown),) = write_cluster_maps(
        photographs, counting, (1, 5), (0, 100), tmp_path / "maps.png"
    )
    assert sum(counting.passed.values()) == 3 * 2
    assert path == tmp_path / "maps.png"
    assert shown == wording
    with Image.open(path) as picture:
        colours = {c for _, c in picture.convert("RGB").getcolors(10**6) or []}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0xF0, 0xE4, 0x42)} <= colours
    greys = {c for c in colours if c[0] == c[1] == c[2]}
    assert len(greys) > 100, "the activations above"
    again = tmp_path / "again.png"
    write_cluster_maps(photographs, tiny, (1, 5), (0, 100), again)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_write__many_photographs_are_split_over_numbered_files(
    tiny: DiffusionUNet, tmp_path: Path, wording: SnapshotAssertion
) -> None:
    photographs = [("ein langer Name, 皮膚 $x_1$.png", spot(n)[0]) for n in range(10)]
    written = write_cluster_maps(photographs, tiny, (1,), (0,), tmp_path / "maps.svg")
    assert [path.name for path, _ in written] == [f"maps-{n}-of-3.svg" for n in (1, 2, 3)]
    assert [shown.split(",")[0] for _, shown in written] == wording  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"maps-{n}-of-3.svg" for n in (1, 2, 3)]


@pytest.mark.parametrize("name", ["maps.gif", "nowhere/maps.png"])
def test_write__a_name_that_is_no_figure(tiny: DiffusionUNet, tmp_path: Path, name: str) -> None:
    with pytest.raises(FigureError):
        write_cluster_maps([("0", spot(0)[0])], tiny, (1,), (0,), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_kmeans_command(tiny_file: Path, tmp_path: Path, wording: SnapshotAssertion) -> None:
    Image.fromarray(spot(1)[0]).save(tmp_path / "1.png")
    args = ["kmeans", tmp_path / "1.png", "--backbone", tiny_file, "--out", tmp_path / "m.png"]
    done = fedd(*args, "--blocks", "3,1,3", "--timesteps", "0")
    assert done.exit_code == 0, done.output
    assert done.output == f"{tmp_path / 'm.png'}: photographs 1 to 1 of 1, blocks 3, 1\n"
    wrong = (
        ("--device", "cuda:99"),
        ("--blocks", "a"),
        ("--blocks", "99"),
        ("--timesteps", "1000"),
    )
    refused = [fedd(*args, *words) for words in wrong]
    assert [each.exit_code for each in refused] == [1, 2, 1, 1]
    assert [each.output.splitlines()[-1].partition(": torch ")[0] for each in refused] == wording
