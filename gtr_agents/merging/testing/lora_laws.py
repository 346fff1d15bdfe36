"""The laws of merging LoRA adapters, and the adapters they are tried on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gtr_agents.merging.testing.verdicts import LawBrokenError, Trial, raises
from gtr_agents.seeding import torch_generator

LoraMerge = Callable[[Sequence[Mapping[str, Tensor]], Mapping[str, Any], Sequence[float], float], Mapping[str, Tensor]]
"""(adapters in peft's format, their adapter_config.json, one weight each, density) to task vectors by weight name."""
PREFIX = "base_model.model."
CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["up", "down"]}
"""Of the adapters: plain LoRA, a scale of 3."""


@dataclass(slots=True)
class LoraTrial(Trial):
    """A merge of adapters and the adapters it is tried on: two modules, rank 2, float64."""

    merge: LoraMerge
    """The merge on trial."""

    def adapters(self, n: int) -> list[dict[str, Tensor]]:
        """Draw different adapters."""
        generator = torch_generator(self.seed, "lora laws")
        drawn = []
        for _ in range(n):
            tensors = {}
            for module, (rows, columns) in {"up": (6, 4), "down": (4, 6)}.items():
                tensors[f"{PREFIX}{module}.lora_A.weight"] = torch.randn(
                    2, columns, generator=generator, dtype=torch.float64
                )
                tensors[f"{PREFIX}{module}.lora_B.weight"] = torch.randn(
                    rows, 2, generator=generator, dtype=torch.float64
                )
            drawn.append(tensors)
        return drawn


def _product(adapter: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    return {
        f"{module}.weight": scale
        * adapter[f"{PREFIX}{module}.lora_B.weight"]
        @ adapter[f"{PREFIX}{module}.lora_A.weight"]
        for module in ("up", "down")
    }


def _lora_itself(trial: LoraTrial) -> None:
    (adapter,) = trial.adapters(1)
    merged = trial.merge([adapter], CONFIG, [1.0], 1.0)
    trial.expect_states(
        merged, _product(adapter, 3.0), "one LoRA adapter of weight 1 must be itself, (alpha / r) * B @ A"
    )


def _rslora_itself(trial: LoraTrial) -> None:
    (adapter,) = trial.adapters(1)
    merged = trial.merge([adapter], {**CONFIG, "use_rslora": True}, [1.0], 1.0)
    expected = _product(adapter, 6.0 / 2**0.5)
    trial.expect_states(merged, expected, "one rsLoRA adapter of weight 1 must be itself, (alpha / sqrt(r)) * B @ A")


def _dora_refused(trial: LoraTrial) -> None:
    (adapter,) = trial.adapters(1)
    for module, rows in (("up", 6), ("down", 4)):
        adapter[f"{PREFIX}{module}.lora_magnitude_vector"] = torch.linspace(1.0, 2.0, rows, dtype=torch.float64)
    if not raises(trial.merge, [adapter], {**CONFIG, "use_dora": True}, [1.0], 1.0):
        raise LawBrokenError("a DoRA adapter is no scale*B*A, and its effect depends on the base: it must be refused")


def _lora_idempotence(trial: LoraTrial) -> None:
    (adapter,) = trial.adapters(1)
    for n in (2, 4):
        merged = trial.merge([adapter] * n, CONFIG, [1.0 / n] * n, 1.0)
        trial.expect_states(
            merged, _product(adapter, 3.0), f"{n} copies of one adapter with weights 1/{n} must merge to it"
        )


def _rotation(trial: LoraTrial) -> None:
    adapters = trial.adapters(3)
    turn = torch.tensor([[2.0, 1.0], [-0.5, 1.0]], dtype=torch.float64)
    inverse = torch.linalg.inv(turn)
    turned = [
        {key: turn @ t if "lora_A" in key else t @ inverse for key, t in adapters[0].items()},
        *adapters[1:],
    ]
    for density in (0.5, 1.0):
        expected = trial.merge(adapters, CONFIG, [1.0, 0.5, 2.0], density)
        got = trial.merge(turned, CONFIG, [1.0, 0.5, 2.0], density)
        trial.expect_states(
            got, expected, f"factors (Q A, B Q^-1) of the same adapter must change nothing, density {density}"
        )


def _lora_weight_scale(trial: LoraTrial) -> None:
    adapters = trial.adapters(3)
    expected = trial.merge(adapters, CONFIG, [1.0, 0.5, 2.0], 1.0)
    got = trial.merge(adapters, CONFIG, [4.0, 2.0, 8.0], 1.0)
    trial.expect_states(got, expected, "weights four times as large must change nothing")


def _unequal_lengths(trial: LoraTrial) -> None:
    adapters = trial.adapters(2)
    if not raises(trial.merge, adapters, CONFIG, [0.5, 0.25, 0.25], 1.0):
        raise LawBrokenError("two adapters with three weights must be refused")
    if not raises(trial.merge, adapters, CONFIG, [0.5], 1.0):
        raise LawBrokenError("two adapters with one weight must be refused")


LORA_LAWS: dict[str, Callable[[LoraTrial], None]] = {
    "LoRA is itself": _lora_itself,
    "rsLoRA is itself": _rslora_itself,
    "DoRA is refused": _dora_refused,
    "idempotence": _lora_idempotence,
    "rotation": _rotation,
    "weight scale": _lora_weight_scale,
    "unequal lengths": _unequal_lengths,
}
"""Name to law of :func:`judge_lora`."""
