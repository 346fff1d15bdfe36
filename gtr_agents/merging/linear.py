"""Linear merging: the weighted mean of task vectors, and the weighting schemes over a run's checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gtr_agents.errors import MergeError


def linear_merge(vectors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Average task vectors of one tensor.

    Args:
        vectors: Task vectors of equal shape, at least one.
        weights: One per vector, >= 0, not all 0; they are scaled to sum to 1.

    Returns:
        The weighted mean, in the type of the vectors.
    """
    total = float(sum(weights))
    merged = torch.zeros_like(vectors[0])
    for vector, weight in zip(vectors, weights, strict=True):
        merged += (weight / total) * vector
    return merged


def sma_weights(n: int) -> list[float]:
    """Return the weights of the simple moving average over n checkpoints, oldest first."""
    return [1.0 / n] * n


def ema_weights(n: int, alpha: float = 0.5) -> list[float]:
    """Return the weights of the exponential moving average that starts at the first checkpoint.

    Closed form of ``T_1 = W_1; T_n = alpha * W_n + (1 - alpha) * T_(n-1)``.

    Args:
        n: Number of checkpoints, >= 1.
        alpha: Share of the newest checkpoint, in [0, 1]; GTR-Turbo found 0.5 best.

    Returns:
        Weights, oldest first; they sum to 1.

    Raises:
        MergeError: If alpha is outside [0, 1].
    """
    if not 0.0 <= alpha <= 1.0:
        raise MergeError(f"alpha must be in [0, 1], got {alpha!r}")
    later = [alpha * (1.0 - alpha) ** (n - i) for i in range(2, n + 1)]
    return [(1.0 - alpha) ** (n - 1), *later]
