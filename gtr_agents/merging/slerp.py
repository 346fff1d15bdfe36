"""Spherical interpolation of two task vectors (Shoemake 1985): along the arc instead of the chord."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gtr_agents.errors import MergeError

NEARLY_PARALLEL = 0.9995
"""Cosine from which on the arc is taken for straight: the formula divides by the sine of the angle."""


def slerp(vectors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Interpolate between the task vectors of one tensor.

    ``sin((1-t) a) / sin(a) * x + sin(t a) / sin(a) * y`` with the angle ``a`` between x and y. Vectors that are
    zero, nearly parallel or nearly opposite are interpolated along the chord.

    Args:
        vectors: Two task vectors of equal shape.
        weights: Two, >= 0, not both 0; ``t`` is the second one's share.

    Returns:
        The interpolated task vector; the first one at ``t = 0``, the second one at ``t = 1``.

    Raises:
        MergeError: If there are not exactly two.
    """
    if len(vectors) != 2:
        raise MergeError(f"slerp interpolates between two checkpoints, got {len(vectors)}; use 'linear' or 'ties'")
    first, second = vectors
    t = float(weights[1]) / float(sum(weights))
    inner, lengths = (first * second).sum(dtype=torch.float64), first.double().norm() * second.double().norm()
    cosine = float(inner / lengths) if lengths > 0 else 1.0
    if abs(cosine) > NEARLY_PARALLEL:
        return (1 - t) * first + t * second
    angle = torch.arccos(torch.tensor(cosine, dtype=torch.float64))
    share = torch.sin(torch.stack([(1 - t) * angle, t * angle])) / torch.sin(angle)
    return float(share[0]) * first + float(share[1]) * second
