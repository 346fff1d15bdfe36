"""All that TIES needs to know of the past: four sums per entry, whatever the number of checkpoints.

For trimmed task vectors ``t_i`` with weights ``w_i`` (reference for the sums: ``docs/merging.md``)::

    P = sum w_i max(t_i, 0)      cP = sum w_i [t_i > 0]
    N = sum w_i min(t_i, 0)      cN = sum w_i [t_i < 0]
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from gtr_agents.merging.rules import TIE_TOLERANCE, TiesRules, frequency_sign, resolve_zeros
from gtr_agents.merging.state_dict import compute_dtype


@dataclass(slots=True)
class Sums:
    """The four sums of one tensor; every field has the tensor's shape, in float32 (float64 for a float64 tensor)."""

    positive: Tensor
    """Weighted sum of the positive entries."""
    negative: Tensor
    """Weighted sum of the negative entries."""
    positive_mass: Tensor
    """Weight of the checkpoints whose entry is positive."""
    negative_mass: Tensor
    """Weight of the checkpoints whose entry is negative."""

    @classmethod
    def zeros(cls, like: Tensor) -> Sums:
        """Return the sums of no checkpoint, on the device of ``like``."""
        dtype = compute_dtype(like)
        return cls(*(torch.zeros_like(like, dtype=dtype) for _ in range(4)))

    def tensors(self) -> dict[str, Tensor]:
        """Return the four tensors by field name; the live ones, not copies."""
        return {name: getattr(self, name) for name in FIELDS}

    def add(self, trimmed: Tensor, weight: float) -> None:
        """Add one trimmed task vector in place.

        Args:
            trimmed: The tensor's shape and type.
            weight: Its weight, >= 0.
        """
        # One temporary for all four, of the merge's type: fresh memory costs more than the arithmetic.
        part = trimmed.clamp(min=0)
        self.positive.add_(part, alpha=weight)
        self.negative.add_(torch.clamp(trimmed, max=0, out=part), alpha=weight)
        self.positive_mass.add_(torch.gt(trimmed, 0, out=part), alpha=weight)
        self.negative_mass.add_(torch.lt(trimmed, 0, out=part), alpha=weight)

    def decay(self, factor: float) -> None:
        """Multiply the weight of everything added so far, in place."""
        for tensor in self.tensors().values():
            tensor.mul_(factor)

    def sign(self, rules: TiesRules) -> Tensor:
        """Return the elected sign of every entry: -1, 0 or 1."""
        if rules.election == "total":
            sign = torch.sign(self.positive + self.negative)
        else:
            sign = frequency_sign(self.positive_mass, self.negative_mass)
        return resolve_zeros(sign, rules.zero)

    def merged(self, rules: TiesRules, total_weight: float) -> Tensor:
        """Return the merged task vector: the weighted mean of the entries that have the elected sign.

        Args:
            rules: How signs are elected.
            total_weight: Weight of all checkpoints together, for ``min_mass``.

        Returns:
            A new tensor; 0 where nothing agrees.
        """
        sign = self.sign(rules)
        wins = sign > 0
        total = torch.where(wins, self.positive, self.negative)
        mass = torch.where(wins, self.positive_mass, self.negative_mass)
        # A mass can be 0 beside a sum that is not once decay has pushed it out of the float range.
        useless = (sign == 0) | (mass <= 0)
        if rules.min_mass > 0:
            useless |= mass < rules.min_mass * total_weight * (1 - TIE_TOLERANCE)
        return total.div_(mass.masked_fill_(useless, 1.0)).masked_fill_(useless, 0.0)


FIELDS = tuple(item.name for item in fields(Sums))
"""Names of the four sums, as in saved files."""
