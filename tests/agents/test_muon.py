"""Muon in float32 does what torch's does in bfloat16."""

from __future__ import annotations

import pytest
import torch

from gtr_agents.muon import Float32Muon, muon, orthogonalised
from gtr_agents.seeding import torch_generator


def gradients(shape: tuple[int, int], steps: int) -> list[torch.Tensor]:
    generator = torch_generator(0, "gradients", *shape)
    common = torch.randn(shape, generator=generator)
    return [common + torch.randn(shape, generator=generator) for _ in range(steps)]


def moved(kind: type[torch.optim.Muon], shape: tuple[int, int], steps: int) -> torch.Tensor:
    """Where a weight that began at 0 is after some steps."""
    weight = torch.nn.Parameter(torch.zeros(shape))
    optimizer = kind([weight], lr=0.1, weight_decay=0.0)
    for gradient in gradients(shape, steps):
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("shape", [(32, 32), (96, 32), (24, 64)])
def test_it_moves_as_torch_does(shape: tuple[int, int]) -> None:
    ours, theirs = moved(Float32Muon, shape, 4), moved(torch.optim.Muon, shape, 4)
    # bfloat16 has eight bits: a per cent or two is all that can be asked.
    assert float((ours - theirs).norm() / theirs.norm()) < 0.03


@pytest.mark.parametrize("shape", [(32, 32), (96, 32), (24, 64)])
def test_singular_values_end_near_one(shape: tuple[int, int]) -> None:
    result = orthogonalised(gradients(shape, 1)[0], (3.4445, -4.775, 2.0315), 5)
    values = torch.linalg.svdvals(result)
    assert float(values.min()) > 0.4
    assert float(values.max()) < 1.3


def test_the_state_goes_on_in_either() -> None:
    weight = torch.nn.Parameter(torch.ones(8, 4))
    weight.grad = gradients((8, 4), 1)[0]
    first = Float32Muon([weight], lr=0.1, weight_decay=0.0)
    first.step()
    second = torch.optim.Muon([weight], lr=0.1, weight_decay=0.0)
    second.load_state_dict(first.state_dict())
    second.step()
    assert torch.isfinite(weight).all()


def test_a_closure_is_refused() -> None:
    optimizer = Float32Muon([torch.nn.Parameter(torch.ones(8, 4))], lr=0.1, weight_decay=0.0)
    with pytest.raises(ValueError, match="no closure"):
        optimizer.step(lambda: 0.0)


@pytest.mark.parametrize("fast", [True, False])
def test_the_processor_decides(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: fast)
    chosen = muon([torch.nn.Parameter(torch.ones(8, 4))], lr=0.1)
    assert type(chosen) is (torch.optim.Muon if fast else Float32Muon)
