from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fedd.probes.ensemble import HIDDEN, Ensemble


def trained() -> tuple[Ensemble, torch.Tensor]:
    """Members whose batch norms have seen pixels, and those pixels."""
    rng = torch.Generator().manual_seed(0)
    mean, std = torch.randn(7, generator=rng), torch.rand(7, generator=rng) + 0.5
    net = Ensemble(3, 5, mean, std, rng)
    x = torch.randn(3, 512, 7, generator=rng) * std + mean
    for _ in range(50):
        net(x)
    return net.eval(), x


def test_folded__equals_the_network_it_came_from() -> None:
    """Input statistics and batch norms folded into plain layers change nothing."""
    net, x = trained()
    t = net.folded()
    h = F.relu(x @ t["w1"] + t["b1"][:, None])
    h = F.relu(h @ t["w2"] + t["b2"][:, None])
    torch.testing.assert_close(h @ t["w3"] + t["b3"][:, None], net(x), rtol=1e-4, atol=1e-4)
    assert [t[f"w{i}"].shape[2] for i in (1, 2)] == list(HIDDEN)


def test_folded__is_on_the_cpu_wherever_the_members_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for a GPU: its tensors can't be mixed with those of the CPU."""
    monkeypatch.setattr(Tensor, "cpu", lambda t: torch.zeros(t.shape))
    mean, std = torch.zeros(7, device="meta"), torch.ones(7, device="meta")
    net = Ensemble(3, 5, mean, std, torch.Generator().manual_seed(0))
    assert {t.device.type for t in net.state_dict().values()} == {"meta"}
    assert {t.device.type for t in net.folded().values()} == {"cpu"}


def test_unfold__goes_on_from_what_was_folded_in_training_and_after() -> None:
    net, x = trained()
    rng = torch.Generator().manual_seed(1)
    other = Ensemble(3, 5, torch.zeros(7), torch.full((7,), 2.0), rng)
    other.unfold(net.folded(), x)
    torch.testing.assert_close(other(x), net(x), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(other.eval()(x), net(x), rtol=1e-3, atol=1e-3)
    again = other.folded()
    for name, tensor in net.folded().items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-3, atol=1e-3)


def test_members__are_networks_of_their_own() -> None:
    net, x = trained()
    together = net(x[:1].expand(3, -1, -1))
    assert not torch.allclose(together[0], together[1])
    changed = x.clone()
    changed[1] += 1
    assert torch.equal(net(changed)[0], net(x)[0])
    assert not torch.equal(net(changed)[1], net(x)[1])
