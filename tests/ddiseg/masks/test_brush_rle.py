"""Label Studio's brush RLE against its browser's codec, under Node, and its SDK's."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ddiseg.errors import InputError
from ddiseg.masks import Mask, brush_rle
from tests.wording import Refusal

PACKAGE = Path(__file__).parent / "rle_pack"
CACHE = Path(__file__).parents[3] / ".cache"

#: Pixels in a run at which a token's count takes its next size, and a run its second token.
LIMITS = [2, 4, 64, 16_384]

shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)
regions = hnp.arrays(np.bool_, shapes, elements=st.booleans(), fill=st.booleans())
masks = hnp.arrays(np.uint8, shapes, elements=st.integers(0, 4), fill=st.integers(0, 4))
octets = st.integers(0, 255)
alphas = hnp.arrays(np.uint8, shapes, elements=octets, fill=st.sampled_from([0, 255]))
canvases = hnp.arrays(
    np.uint8, shapes.map(lambda shape: (*shape, 4)), elements=octets, fill=st.sampled_from([0, 255])
)
count_sizes = st.lists(st.integers(1, 16), min_size=4, max_size=4).map(sorted)

#: (k, count, words); a run where there is one word, else a literal of them over and over.
tokens = st.tuples(
    st.integers(0, 3), st.integers(1, 12), st.lists(octets, min_size=1, max_size=3, unique=True)
)


class RlePack:
    """@thi.ng/rle-pack in a Node process that answers line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def encode(self, words: NDArray[np.uint8], count_bits: list[int] | None = None) -> list[int]:
        return self._ask(call="encode", bytes=words.ravel().tolist(), countBits=count_bits)

    def decode(self, rle: list[int]) -> NDArray[np.uint8]:
        return np.array(self._ask(call="decode", bytes=rle), np.uint8)

    def _ask(self, **request: Any) -> list[int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        sent = {key: value for key, value in request.items() if value is not None}
        print(json.dumps(sent), file=self._process.stdin, flush=True)
        answer: list[int] = json.loads(self._process.stdout.readline())
        return answer


@pytest.fixture(scope="session")
def rle_pack() -> Iterator[RlePack]:
    """The package is installed once, at the versions of its lock file, into .cache."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("Node.js with npm is not installed; it runs Label Studio's own codec")
    files = sorted(PACKAGE.iterdir())
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
    installed = CACHE / f"rle_pack-{digest}"
    if not installed.exists():
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            fresh = Path(folder) / "rle_pack"
            shutil.copytree(PACKAGE, fresh)
            done = subprocess.run(
                [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=fresh,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                pytest.fail(f"npm ci in {PACKAGE} failed: {done.stderr}")
            fresh.rename(installed)
    with subprocess.Popen(
        [node, "codec.mjs"],
        cwd=installed,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield RlePack(process)


@pytest.fixture(scope="session")
def sdk() -> ModuleType:
    """label_studio_sdk's converter for brushes; it loads OpenCV and pandas, hence not at the top."""
    from label_studio_sdk.converter import brush

    return brush


def row(*lengths: int) -> NDArray[np.bool_]:
    """A region of one row with runs of these lengths, outside and inside in turn."""
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)[None]


def stream(
    words: int,
    *parts: tuple[int, int],
    word_bits: int = 8,
    count_bits: Sequence[int] = (3, 4, 8, 16),
) -> list[int]:
    """An RLE from its header and (value, bits) parts."""
    header = [(words, 32), (word_bits - 1, 5), *((size - 1, 4) for size in count_bits)]
    bits = "".join(f"{value:0{width}b}" for value, width in [*header, *parts])
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def run(words: int, word: int) -> tuple[int, int]:
    """A run of 1 to 65,536 words with the largest size of count."""
    return (0b111 << 16 | (words - 1)) << 8 | word, 27


limit_rows = [row(limit + delta, limit - delta, 1) for limit in LIMITS for delta in (-1, 0, 1)]


@pytest.mark.property
@given(regions)
@example(np.ones((1, 1), bool))
@example(np.zeros((2, 3), bool))
@example(np.ones((200, 300), bool))
@example(np.asfortranarray(np.arange(30).reshape(5, 6) % 4 == 0))
def test_encode__round_trip_and_both_oracles(
    rle_pack: RlePack, sdk: ModuleType, region: NDArray[np.bool_]
) -> None:
    encoded = brush_rle.encode(region)
    alpha = np.where(region, 255, 0).astype(np.uint8)
    canvas = np.repeat(alpha.ravel(), 4)
    np.testing.assert_array_equal(brush_rle.decode(encoded, region.shape), alpha)
    assert encoded == rle_pack.encode(canvas)
    np.testing.assert_array_equal(rle_pack.decode(encoded), canvas)
    by_sdk = sdk.mask2rle(alpha)
    assert encoded == by_sdk[: len(encoded)]
    assert by_sdk[len(encoded) :] in ([], [0])  # the SDK pads a whole byte to a full one
    np.testing.assert_array_equal(sdk.decode_rle(encoded), canvas)


@pytest.mark.parametrize("region", limit_rows, ids=lambda region: f"{region.size}")
def test_encode__runs_at_the_limits_of_a_count(
    rle_pack: RlePack, region: NDArray[np.bool_]
) -> None:
    encoded = brush_rle.encode(region)
    assert encoded == rle_pack.encode(np.repeat(np.where(region, 255, 0), 4))
    np.testing.assert_array_equal(brush_rle.decode(encoded, region.shape) == 255, region)


@pytest.mark.property
@given(masks, st.permutations(range(6)))
@example(np.arange(5, dtype=np.uint8)[None], list(range(6)))
@example(np.asfortranarray(np.arange(30, dtype=np.uint8).reshape(5, 6) % 5), [4, 1])
def test_encode_classes__each_as_alone_and_no_empty_ones(mask: Mask, class_ids: list[int]) -> None:
    present = [class_id for class_id in class_ids if (mask == class_id).any()]
    encoded = brush_rle.encode_classes(mask, class_ids)
    assert list(encoded.items()) == [
        (class_id, brush_rle.encode(mask == class_id)) for class_id in present
    ]


@pytest.mark.property
@given(alphas)
def test_decode__grey_canvas_of_the_browser_and_the_sdk(
    rle_pack: RlePack, sdk: ModuleType, alpha: NDArray[np.uint8]
) -> None:
    by_browser = rle_pack.encode(np.repeat(alpha, 4))
    np.testing.assert_array_equal(brush_rle.decode(by_browser, alpha.shape), alpha)
    np.testing.assert_array_equal(brush_rle.decode(sdk.mask2rle(alpha), alpha.shape), alpha)


@pytest.mark.property
@given(canvases, count_sizes)
@example(np.random.default_rng(0).integers(0, 256, (150, 160, 4), np.uint8), [3, 4, 8, 16])
@example(np.random.default_rng(1).integers(0, 2, (150, 160, 4), np.uint8), [3, 4, 8, 16])
def test_decode__colours_come_as_literals(
    rle_pack: RlePack, sdk: ModuleType, canvas: NDArray[np.uint8], count_bits: list[int]
) -> None:
    size, alpha = canvas.shape[:2], canvas[:, :, 3]
    # The largest stays 16: rle-pack 3.2.12 drops the last of a word repeated 2 ** largest + 1
    # times at the end, which four equal channels never come to.
    for encoded in (
        rle_pack.encode(canvas),
        rle_pack.encode(canvas, [*count_bits[:3], 16]),
        sdk.encode_rle(canvas.ravel()),
    ):
        np.testing.assert_array_equal(brush_rle.decode(encoded, size), alpha)


def test_decode__contour_of_the_sdk(sdk: ModuleType) -> None:
    contour = np.array([[[3, 2]], [[17, 4]], [[9, 25]]], np.int32)
    alpha = brush_rle.decode(sdk.contour2rle([contour], 0, 30, 20), (30, 20))
    assert set(np.unique(alpha)) == {0, 100}  # the SDK draws contours (0, 255, 0, 100)
    assert alpha[10, 9] == 100
    assert alpha[0, 0] == 0


@pytest.mark.property
@given(st.lists(tokens, min_size=1, max_size=60), count_sizes, st.sampled_from([2, 3, 7, 1 << 15]))
def test_decode__any_tokens(
    tokens: list[tuple[int, int, list[int]]], count_bits: list[int], chunk_bytes: int
) -> None:
    """Runs and literals that end within a pixel, counts of any size, tokens across chunks."""
    canvas: list[int] = []
    parts: list[tuple[int, int]] = []

    def add(k: int, count: int, words: list[int]) -> None:
        count, is_run = min(count, 1 << count_bits[k]), len(words) == 1
        spelled_out = (words * count)[:count]
        parts.extend([(is_run, 1), (k, 2), (count - 1, count_bits[k])])
        parts.extend((word, 8) for word in (words if is_run else spelled_out))
        canvas.extend(spelled_out)

    for token in tokens:
        add(*token)
    while len(canvas) % 4:
        add(0, 1, [200])
    encoded = stream(len(canvas), *parts, count_bits=count_bits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(brush_rle, "_CHUNK_BYTES", chunk_bytes)
        alpha = brush_rle.decode(encoded, (1, len(canvas) // 4))
    assert alpha.ravel().tolist() == canvas[3::4]


@pytest.mark.property
@given(st.data())
def test_decode__corrupt_bytes_are_refused_or_read_as_the_sdk_reads_them(
    sdk: ModuleType, data: st.DataObject
) -> None:
    mask = data.draw(masks)
    encoded = brush_rle.encode(mask == mask[0, 0])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(encoded) - 1)))
        change = data.draw(st.sampled_from(["replace", "flip", "insert", "delete", "cut"]))
        if change == "replace":
            encoded[at : at + 1] = [data.draw(octets)]
        elif change == "flip" and encoded:
            encoded[at] ^= 1 << data.draw(st.integers(0, 7))
        elif change == "insert":
            encoded.insert(at, data.draw(octets))
        elif change == "delete":
            del encoded[at : at + 1]
        else:
            del encoded[at:]
    try:
        alpha = brush_rle.decode(encoded, mask.shape)
    except InputError:
        return
    np.testing.assert_array_equal(alpha, sdk.decode_rle(encoded).reshape(*mask.shape, 4)[:, :, 3])


@pytest.mark.property
@given(st.binary(max_size=60), st.booleans(), st.integers(1, 30), st.integers(1, 30))
def test_decode__any_bytes_are_read_or_refused(
    data: bytes, as_label_studio: bool, height: int, width: int
) -> None:
    if as_label_studio:
        data = bytes(stream(4 * height * width))[:6] + data
    try:
        alpha = brush_rle.decode(data, (height, width))
    except InputError:
        return
    assert alpha.shape == (height, width)
    assert alpha.dtype == np.uint8


def test_decode__pixel_covered_by_half_is_in_the_region(rle_pack: RlePack) -> None:
    alpha = brush_rle.decode(rle_pack.encode(np.repeat(np.array([0, 127, 128, 255]), 4)), (1, 4))
    assert (alpha >= brush_rle.ALPHA_THRESHOLD).tolist() == [[False, False, True, True]]


def test_decode__tuple_bytes_and_zeros_behind_the_end() -> None:
    region = row(3, 5, 2)
    encoded = brush_rle.encode(region)
    for given_rle in (tuple(encoded), bytes(encoded), encoded + [0] * 50):
        np.testing.assert_array_equal(brush_rle.decode(given_rle, (1, 10)) == 255, region)


pixel = stream(4, run(4, 7))


@pytest.mark.parametrize(
    ("rle", "size"),
    [
        ("rle", (1, 1)),
        ({"rle": pixel}, (1, 1)),
        (None, (1, 1)),
        (5, (1, 1)),
        (np.array(pixel), (1, 1)),
        ([*pixel, 256], (1, 1)),
        ([*pixel, -1], (1, 1)),
        ([*pixel, 10**30], (1, 1)),
        ([*pixel, 0.0], (1, 1)),
        ([*pixel, "0"], (1, 1)),
        ([*pixel, [0]], (1, 1)),
        ([], (1, 1)),
        (pixel[:8], (1, 1)),
        (pixel[:-1], (1, 1)),
        (stream(8, run(4, 7)), (1, 2)),
        (stream(4, (0b0_00_011, 6), (1, 8), (2, 8)), (1, 1)),
        (stream(4, run(5, 7)), (1, 1)),
        (stream(4, run(3, 7), run(65_536, 7)), (1, 1)),
        ([*pixel, 1], (1, 1)),
        (stream(4, run(4, 7), (1, 1)), (1, 1)),
        (stream(4, run(4, 7), (0, 30), run(4, 7)), (1, 1)),
        (stream(4, run(4, 7), word_bits=16), (1, 1)),
        (stream(4, run(4, 7)), (1, 2)),
        (stream(2**32 - 1, run(65_536, 7)), (1, 1)),
        (stream(2**32 - 1, run(65_536, 7)), (32_768, 32_768)),
        (pixel, (0, 1)),
        (pixel, (1.0, 1)),
        (pixel, (1, 1, 1)),
    ],
)
def test_decode__refused(rle: Any, size: Any, refusal: Refusal) -> None:
    with refusal(InputError) as refused:
        brush_rle.decode(rle, size)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda: brush_rle.encode(np.zeros((2, 2), np.uint8)),
        lambda: brush_rle.encode(np.zeros((2, 2, 4), bool)),
        lambda: brush_rle.encode(np.zeros((0, 2), bool)),
        lambda: brush_rle.encode(np.broadcast_to(np.False_, (20_000, 20_000))),
        lambda: brush_rle.encode_classes(np.zeros((2, 2), np.int64), [0]),
        lambda: brush_rle.encode_classes(np.zeros((0, 2), np.uint8), [0]),
        lambda: brush_rle.encode_classes(np.broadcast_to(np.uint8(1), (20_000, 20_000)), [0]),
    ],
)
def test_encode__refused(call: Callable[[], object], refusal: Refusal) -> None:
    with refusal(InputError):
        call()
