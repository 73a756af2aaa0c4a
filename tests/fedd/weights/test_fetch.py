"""Fetching a checkpoint of OpenAI's layout from a loopback server that behaves badly on demand."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from syrupy.assertion import SnapshotAssertion

from fedd.backbone import IMAGENET_256, DiffusionUNet
from fedd.cli import weights as command
from fedd.errors import WeightsError
from fedd.weights import download as downloading
from fedd.weights.download import part_path
from fedd.weights.fetch import fetch
from fedd.weights.files import backbone_path, expected_shapes, load_backbone
from fedd.weights.names import is_named
from fedd.weights.sources import TABLE, BackboneSource, cache_folder, kept_path, source, sources
from tests.fedd.conftest import TINY, fedd
from tests.wording import Refusal


class Server(ThreadingHTTPServer):
    """Serves `content`; `breaks_after` bytes it hangs up, as often as `breaks` says."""

    content = b""
    kind = "application/octet-stream"
    status: int | None = None
    ranges = True
    says_length = True
    breaks = 0
    breaks_after = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/tiny.pt"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        start = 0
        if server.status is not None:
            self.send_error(server.status)
            return
        if wanted and server.ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(server.content):
                self.send_error(416)
                return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", server.kind)
        if server.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.breaks:
            server.breaks -= 1
            body = body[: server.breaks_after]
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Published(NamedTuple):
    server: Server
    source: BackboneSource
    net: DiffusionUNet
    folder: Path

    @property
    def kept(self) -> Path:
        return kept_path("tiny", self.folder)

    def left(self) -> set[str]:
        """What lies in the folder besides the lock."""
        return {p.name for p in self.folder.iterdir() if not p.name.endswith(".lock")}

    def leave_part(self, content: bytes) -> None:
        """As a killed process leaves it."""
        part = part_path(self.folder / f".tiny-{self.source.sha256[:12]}.pt")
        part.parent.mkdir(parents=True)
        part.write_bytes(content)


Free = Callable[[int], None]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DiffusionUNet]:
    net = DiffusionUNet.random(TINY, seed=4)
    path = tmp_path_factory.mktemp("published") / "tiny.pt"
    torch.save(net.net.state_dict(), path)
    return path, net


@pytest.fixture
def published(
    tmp_path: Path, checkpoint: tuple[Path, DiffusionUNet], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Published]:
    path, net = checkpoint
    server = Server()
    server.content = path.read_bytes()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    digest = hashlib.sha256(server.content).hexdigest()
    monkeypatch.setattr(downloading, "CHUNK", 1000)
    monkeypatch.setenv("DDISEG_CACHE", str(tmp_path / "cache"))
    source = BackboneSource("tiny", server.url, digest, len(server.content), (3, 5), TINY)
    yield Published(server, source, net, tmp_path / "cache" / "backbones")
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.training
def test_fetch__same_activations_from_the_part_that_is_kept(published: Published) -> None:
    found = fetch(published.source)
    assert (found.path, found.last_block) == (published.kept, 5)
    assert found.bytes_before == len(published.server.content)
    assert found.bytes_after == published.kept.stat().st_size < found.bytes_before
    assert published.left() == {"tiny.safetensors"}, "neither the checkpoint nor a part is left"
    kept = load_backbone(str(found.path))
    assert (kept.name, kept.blocks, kept.hash) == ("tiny", tuple(range(6)), published.source.sha256)
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    for block in (3, 5):
        expected = published.net.activations(image, 10, (block,))[block]
        assert torch.equal(kept.activations(image, 10, (block,))[block], expected)


@pytest.mark.training
def test_fetch__later_block_is_refused_with_what_to_type(
    published: Published, refusal: Refusal
) -> None:
    kept = load_backbone(str(fetch(published.source, blocks=(3,)).path))
    image = torch.zeros(1, 3, 32, 32)
    with refusal(WeightsError):
        kept.activations(image, 10, (5,))
    with pytest.raises(ValueError, match="0 to 3"):
        kept.activations(image, 10, (99,))


@pytest.mark.training
def test_fetch__second_time_asks_nobody_unless_more_blocks_are_needed(published: Published) -> None:
    fetch(published.source, blocks=(3,))
    again = fetch(published.source, blocks=(2,))
    assert (again.bytes_before, again.last_block) == (None, 3)
    assert len(published.server.asked) == 1
    assert fetch(published.source, blocks=(7,)).last_block == 7
    assert len(published.server.asked) == 2


@pytest.mark.training
def test_fetch__half_is_another_backbone_of_half_the_size(published: Published) -> None:
    whole = fetch(published.source)
    half = fetch(published.source, half=True)
    assert half.bytes_before is not None, "float32 weights do not stand for float16 ones"
    assert half.bytes_after < 0.6 * whole.bytes_after
    assert load_backbone(str(half.path)).hash != published.source.sha256


@pytest.mark.training
def test_fetch__from_a_file_needs_no_network(
    published: Published, checkpoint: tuple[Path, DiffusionUNet]
) -> None:
    found = fetch(published.source, file=checkpoint[0])
    assert load_backbone(str(found.path)).hash == published.source.sha256
    assert published.server.asked == []
    assert checkpoint[0].exists(), "the user's own file stays"


@pytest.mark.training
def test_fetch__damaged_kept_file_is_replaced(published: Published) -> None:
    fetch(published.source)
    published.kept.write_bytes(b"damaged")
    assert fetch(published.source).bytes_before is not None
    load_backbone(str(published.kept))


@pytest.mark.training
def test_transfer__broken_goes_on_where_it_stopped(published: Published) -> None:
    published.server.breaks, published.server.breaks_after = 2, 40_000
    seen: list[tuple[int, int | None]] = []
    fetch(published.source, progress=lambda done, whole: seen.append((done, whole)))
    assert published.server.asked == [None, "bytes=40000-", "bytes=80000-"]
    assert seen[-1] == (len(published.server.content),) * 2
    load_backbone(str(published.kept))


@pytest.mark.training
def test_transfer__broken_for_good_keeps_the_part_for_the_next_call(
    published: Published, refusal: Refusal
) -> None:
    published.server.breaks, published.server.breaks_after = 99, 1000
    with refusal(WeightsError):
        fetch(published.source)
    published.server.breaks = 0
    fetch(published.source)
    assert published.server.asked[-1] == "bytes=5000-"
    assert published.left() == {"tiny.safetensors"}


def test_transfer__no_progress_is_not_tried_forever(published: Published, refusal: Refusal) -> None:
    published.server.breaks = 99
    with refusal(WeightsError):
        fetch(published.source)
    assert len(published.server.asked) == 1


@pytest.mark.training
def test_transfer__server_that_ignores_ranges_starts_over(published: Published) -> None:
    published.server.ranges = False
    published.server.breaks, published.server.breaks_after = 1, 5000
    fetch(published.source)
    assert published.server.asked == [None, "bytes=5000-"]
    load_backbone(str(published.kept))


@pytest.mark.training
def test_transfer__whole_part_of_a_killed_process(published: Published) -> None:
    """Killed between the last byte and the renaming: nothing is transferred twice."""
    published.leave_part(published.server.content)
    fetch(published.source)
    assert published.server.asked == [f"bytes={len(published.server.content)}-"]


@pytest.mark.training
def test_transfer__part_of_another_file_is_found_out_and_dropped(
    published: Published, refusal: Refusal
) -> None:
    published.leave_part(b"x" * 1000)
    with refusal(WeightsError):
        fetch(published.source)
    fetch(published.source)
    load_backbone(str(published.kept))


def test_transfer__wrong_hash_names_both(published: Published) -> None:
    meant = published.source.elsewhere(sha256="A" * 64)
    with pytest.raises(WeightsError) as caught:
        fetch(meant)
    assert published.source.sha256 in str(caught.value)
    assert "a" * 64 in str(caught.value)
    assert published.left() == set()


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_transfer__web_page_instead_of_the_file(
    published: Published, kind: str, refusal: Refusal
) -> None:
    published.server.content, published.server.kind = b"<!DOCTYPE html><title>Sign in</title>", kind
    with refusal(WeightsError):
        fetch(published.source)
    assert published.left() == set()


@pytest.mark.parametrize("status", [403, 404, 503])
def test_transfer__server_refuses(published: Published, status: int) -> None:
    published.server.status = status
    with pytest.raises(WeightsError, match=rf"answers {status} .*--from FILE"):
        fetch(published.source)


def test_transfer__nobody_answers(published: Published, refusal: Refusal) -> None:
    nowhere = published.source.elsewhere(url="http://127.0.0.1:9/tiny.pt")
    with refusal(WeightsError):
        fetch(nowhere)


@pytest.fixture
def free(published: Published, monkeypatch: pytest.MonkeyPatch) -> Free:
    """Let the disk have so many free bytes."""

    def leave(count: int) -> None:
        usage = shutil.disk_usage(published.folder.parents[1])._replace(free=count)
        monkeypatch.setattr(downloading.shutil, "disk_usage", lambda _: usage)

    return leave


@pytest.mark.parametrize("offline", [False, True], ids=["network", "from a file"])
def test_space__is_checked_first(
    published: Published,
    checkpoint: tuple[Path, DiffusionUNet],
    free: Free,
    offline: bool,
    refusal: Refusal,
) -> None:
    free(1000)
    with refusal(WeightsError):
        fetch(published.source, file=checkpoint[0] if offline else None)
    assert published.left() == set()


@pytest.mark.training
def test_space__of_a_file_whose_length_the_server_does_not_say(
    published: Published, free: Free, refusal: Refusal
) -> None:
    published.server.says_length = False
    shapes = expected_shapes(published.source.config, max(published.source.blocks)).values()
    kept = sum(4 * shape.numel() for shape in shapes)
    free(kept + 1000)
    with refusal(WeightsError):
        fetch(published.source)
    assert published.left() == set()
    wholes = []
    free(10**12)
    fetch(published.source, progress=lambda _done, whole: wholes.append(whole))
    assert set(wholes) == {published.source.bytes}


@pytest.mark.training
def test_space__runs_out_on_the_way(published: Published, refusal: Refusal) -> None:
    def full(_done: int, _whole: int | None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with refusal(WeightsError):
        fetch(published.source, progress=full)
    assert any(name.endswith(".part") for name in published.left())
    fetch(published.source)
    assert published.left() == {"tiny.safetensors"}


@pytest.mark.training
def test_checkpoint__of_another_network_names_keys_and_shapes(
    published: Published, refusal: Refusal
) -> None:
    with refusal(WeightsError):
        fetch(replace(published.source, config=replace(TINY, model_channels=64)))
    assert published.left() == set(), "a checkpoint that does not fit is not kept"


def test_checkpoint__safetensors_of_another_network(
    published: Published, tmp_path: Path, refusal: Refusal
) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"encoder.weight": torch.zeros(3)}, path)
    meant = published.source.elsewhere(sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with refusal(WeightsError):
        fetch(meant, file=path)


def test_checkpoint__no_such_file_or_block(
    published: Published, tmp_path: Path, refusal: Refusal
) -> None:
    with refusal(WeightsError):
        fetch(published.source, file=tmp_path / "nothing.pt")
    with refusal(WeightsError):
        fetch(published.source, blocks=(8,))


def test_table__openais_checkpoint(refusal: Refusal) -> None:
    openais = source("imagenet-256")
    assert openais.config == IMAGENET_256
    assert openais.bytes == 2_211_383_297
    assert re.fullmatch("[0-9a-f]{64}", openais.sha256)
    assert TABLE.suffix == ".toml"
    assert all(0 <= b < s.config.decoder_blocks for s in sources().values() for b in s.blocks)
    with refusal(WeightsError):
        source("imagenet-512")


def test_cache_folder__environment_then_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DDISEG_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "ddiseg" / "backbones"
    monkeypatch.setenv("DDISEG_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own" / "backbones"


def test_name__not_fetched_says_which_command_fetches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    monkeypatch.setenv("DDISEG_CACHE", str(tmp_path))
    assert is_named("imagenet-256")
    assert not is_named("imagenet-256.safetensors")
    with refusal(WeightsError):
        load_backbone("imagenet-256")
    kept_path("imagenet-256").parent.mkdir(parents=True)
    kept_path("imagenet-256").write_bytes(b"")
    assert backbone_path("imagenet-256") == kept_path("imagenet-256")


@pytest.mark.training
def test_command__prints_bytes_before_and_after(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedd.weights import sources as table

    monkeypatch.setattr(table, "sources", lambda: {"tiny": published.source})
    options = ["weights", "fetch", "tiny", "--to", tmp_path / "here", "--blocks", "1,3"]
    done = fedd(*options)
    assert done.exit_code == 0, done.output
    size = kept_path("tiny", tmp_path / "here").stat().st_size
    assert f"{len(published.server.content):,} bytes fetched, {size:,} kept" in done.stdout
    assert f"fetching {published.server.url}" in done.stderr
    assert "keeping it to decoder block 3" in done.stderr
    assert "is already stored, to decoder block 3" in fedd(*options).stdout
    wrong = fedd("weights", "fetch", "tiny", "--sha256", "0" * 64)
    assert (wrong.exit_code, "not the expected file" in wrong.stderr) == (1, True)
    assert fedd(*options[:-1], "six").exit_code == 2


def test_progress__each_twentieth_and_where_it_is_slow_each_quarter_of_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wording: SnapshotAssertion
) -> None:
    now = [0.0]
    monkeypatch.setattr(command.time, "monotonic", lambda: now[0])
    show = command._Progress()
    for now[0], done in ((0, 1e6), (1, 2e6), (14, 3e6), (15, 4e6), (16, 60e6), (17, 61e6)):
        show(int(done), 1_000_000_000)
    assert capsys.readouterr().err.splitlines() == wording
