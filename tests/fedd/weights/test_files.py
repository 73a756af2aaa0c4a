from __future__ import annotations

import io
import json
import pickle
from contextlib import suppress
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from fedd.backbone import IMAGENET_256, DiffusionUNet
from fedd.errors import WeightsError
from fedd.probes.settings import settings_of
from fedd.segment import PAPER, SMALL, default_settings
from fedd.weights.files import SHIPPED, load_backbone, read_state_dict, save_backbone
from tests.fedd.conftest import TINY
from tests.wording import Refusal


@pytest.fixture
def saved(tmp_path: Path, tiny: DiffusionUNet) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_backbone(path, "tiny", TINY, tiny.net.state_dict(), {"steps": "0"})
    return path


def test_backbone_file__round_trip_in_half_precision(saved: Path, tiny: DiffusionUNet) -> None:
    loaded = load_backbone(str(saved))
    assert (loaded.name, loaded.config) == ("tiny", TINY)
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    a, b = (net.activations(image, 10, (5,))[5] for net in (tiny, loaded))
    torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)
    assert [p.name for p in saved.parent.iterdir()] == ["tiny.safetensors"]


@pytest.mark.training
def test_backbone_file__hash_follows_the_weights(saved: Path, tiny: DiffusionUNet) -> None:
    other = saved.with_name("other.safetensors")
    save_backbone(
        other, "tiny", TINY, DiffusionUNet.random(TINY, 5).net.state_dict(), {"steps": "0"}
    )
    assert load_backbone(str(saved)).hash == load_backbone(str(saved)).hash
    assert load_backbone(str(saved)).hash != load_backbone(str(other)).hash


@pytest.mark.training
def test_openai_checkpoint__same_features_as_the_network_that_wrote_it(
    tmp_path: Path, tiny: DiffusionUNet
) -> None:
    torch.save(tiny.net.state_dict(), tmp_path / "tiny.pt")
    loaded = load_backbone(str(tmp_path / "tiny.pt"), TINY)
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    assert torch.equal(loaded.activations(image, 10, (5,))[5], tiny.activations(image, 10, (5,))[5])


class _Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code in a weights file was run')",))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>404</html>",
        pickle.dumps(_Malicious(), protocol=2),
        [1, 2],
        {"epoch": 3},
        {0: torch.zeros(1)},
    ],
    ids=["empty", "HTML", "pickled code", "list", "no tensors", "no names"],
)
def test_openai_checkpoint__unsafe_or_foreign(
    tmp_path: Path, content: object, refusal: Refusal
) -> None:
    path = tmp_path / "w.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with refusal(WeightsError):
        load_backbone(str(path), TINY)


def test_read_state_dict__advice_of_torch_is_not_passed_on(tmp_path: Path) -> None:
    """It recommends to run what is in the file."""
    path = tmp_path / "w.pt"
    path.write_bytes(bytes(range(7, 200)))
    with pytest.raises(WeightsError, match="damaged, or holds more than tensors") as refused:
        read_state_dict(path)
    assert "weights_only" not in str(refused.value)


def _checkpoint(zipped: bool) -> bytes:
    data = io.BytesIO()
    torch.save({"a": torch.zeros(3)}, data, _use_new_zipfile_serialization=zipped)
    return data.getvalue()


#: Opcodes of pickle, those that take an argument among them.
OPCODES = b"\x80\x02(.0123}]qcbRtu\x85\x86K\x8aNhjX\x8c"


@pytest.mark.property
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.sampled_from([b"", b"\x80\x02", _checkpoint(True), _checkpoint(False)]),
    damage=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8),
    end=st.binary(max_size=40) | st.lists(st.sampled_from(OPCODES), max_size=40).map(bytes),
)
@pytest.mark.filterwarnings("ignore")
def test_openai_checkpoint__damaged_is_refused_or_read(
    tmp_path: Path, start: bytes, damage: list[tuple[int, int]], end: bytes
) -> None:
    data = bytearray(start + end)
    for at, byte in damage:
        if data:
            data[at % len(data)] = byte
    path = tmp_path / "w.pt"
    path.write_bytes(data)
    with suppress(WeightsError):
        assert all(isinstance(v, torch.Tensor) for v in read_state_dict(path).values())


def test_openai_checkpoint__misfit_names_keys_and_shapes(
    tmp_path: Path, tiny: DiffusionUNet, refusal: Refusal
) -> None:
    state = {k: v for k, v in tiny.net.state_dict().items() if k != "out.2.bias"}
    state["surplus"] = torch.zeros(1)
    state["time_embed.0.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "w.pt")
    with refusal(WeightsError):
        load_backbone(str(tmp_path / "w.pt"), TINY)


@pytest.mark.parametrize("name", ["truncated", "other", "nowhere"])
def test_backbone_file__truncated_something_else_or_missing(
    saved: Path, name: str, refusal: Refusal
) -> None:
    path = saved.with_name(f"{name}.safetensors")
    if name == "truncated":
        path.write_bytes(saved.read_bytes()[:-100])
    elif name == "other":
        save_file({"a": torch.zeros(2)}, path, {"kind": "fedd-probes"})
    with refusal(WeightsError):
        load_backbone(str(path))


@pytest.mark.training
def test_shipped_backbone__loads_and_is_small() -> None:
    path = Path(str(resources.files("fedd") / "weights" / "small.safetensors"))
    assert path.stat().st_size < 16e6
    net = load_backbone(SHIPPED)
    assert net.name == "small"
    assert default_settings(net) == SMALL
    assert max(SMALL.features.blocks) in net.blocks
    card = path.with_suffix(".md").read_text()
    assert net.hash in card, "the card must be of this file"
    for fact in ("PAD-UFES-20", "CC BY 4.0", "fedd pretrain"):
        assert fact in card


def test_settings_of__the_papers_for_its_network() -> None:
    assert settings_of(IMAGENET_256) == PAPER
    assert settings_of(replace(IMAGENET_256, image_size=512)) == SMALL


def test_backbone_header__is_readable_json(saved: Path) -> None:
    with safe_open(saved, "pt") as file:
        header = file.metadata()
    assert json.loads(header["config"])["model_channels"] == 32
