"""Muon for processors that multiply float32 faster than bfloat16."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch


def muon(parameters: Iterable[torch.nn.Parameter], lr: float) -> torch.optim.Muon:
    """Make the Muon that is fast for these parameters, without weight decay.

    Args:
        parameters: matrices, all on one device.
        lr: learning rate.

    Returns:
        ``torch.optim.Muon``, or :class:`Float32Muon` on a CPU that has no fast bfloat16 (no AVX-512).
    """
    weights = list(parameters)
    emulated = weights[0].device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (Float32Muon if emulated else torch.optim.Muon)(weights, lr=lr, weight_decay=0.0)


class Float32Muon(torch.optim.Muon):
    """``torch.optim.Muon`` (arXiv 2502.16982) with its iteration in float32 instead of bfloat16.

    The iteration only has to bring singular values near 1, so its precision hardly matters; its time does: where
    bfloat16 is emulated, it takes longer than the whole rest of a training step.
    Only the defaults that :func:`muon` uses are there: no closure, no weight decay, the original learning rate scale.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take one step.

        Args:
            closure: not supported; must be None.

        Raises:
            ValueError: for a closure.
        """
        if closure is not None:
            raise ValueError("Float32Muon takes its step from the gradients that are there; give it no closure.")
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(weight.grad)
                buffer = state["momentum_buffer"]
                buffer.lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(buffer, group["momentum"]) if group["nesterov"] else buffer
                rate = group["lr"] * math.sqrt(max(1.0, weight.shape[0] / weight.shape[1]))
                weight.add_(orthogonalised(update, group["ns_coefficients"], group["ns_steps"]), alpha=-rate)


def orthogonalised(matrix: torch.Tensor, coefficients: tuple[float, float, float], steps: int) -> torch.Tensor:
    """Bring all singular values of a matrix near 1 by the quintic Newton-Schulz iteration of Muon.

    Args:
        matrix: [rows, columns].
        coefficients: of X, (X X^T) X and (X X^T)^2 X.
        steps: iterations.

    Returns:
        [rows, columns], float32; with five iterations the singular values end between about 0.7 and 1.2.
    """
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.float().T if tall else matrix.float()
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
