"""All that a streaming merge needs to know of the past: a few sums per entry, whatever the number of checkpoints.

A linear merge needs ``sum w_i t_i``. TIES needs four sums of the trimmed task vectors ``t_i`` with weights ``w_i``::

    P = sum w_i max(t_i, 0)      cP = sum w_i [t_i > 0]
    N = sum w_i min(t_i, 0)      cN = sum w_i [t_i < 0]
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from gtr_agents.merging.rules import TIE_TOLERANCE, TiesRules, frequency_sign, resolve_zeros
from gtr_agents.merging.state_dict import compute_dtype


class Accumulators:
    """What the sums of all methods can do; subclasses are dataclasses of tensors of one shape and type."""

    __slots__ = ()

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """Return the names of the sums, as in saved files."""
        return tuple(item.name for item in fields(cls))  # type: ignore[arg-type]

    @classmethod
    def zeros(cls, like: Tensor) -> Self:
        """Return the sums of no checkpoint, on the device of ``like``."""
        dtype = compute_dtype(like)
        return cls(*(torch.zeros_like(like, dtype=dtype) for _ in cls.field_names()))

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums by name; the live ones, not copies."""
        return {name: getattr(self, name) for name in self.field_names()}

    def decay(self, factor: float) -> None:
        """Multiply the weight of everything added so far, in place."""
        for tensor in self.tensors().values():
            tensor.mul_(factor)

    def add(self, vector: Tensor, weight: float) -> None:
        """Add one task vector, sparse or not, with a weight >= 0, in place."""
        raise NotImplementedError

    def remove(self, vector: Tensor, weight: float, least: float) -> None:
        """Take out what was added, in place.

        Args:
            vector: What was added, exactly.
            weight: Its current weight.
            least: The smallest positive weight among what stays; infinite if nothing stays.
        """
        raise NotImplementedError

    def merged(self, rules: TiesRules, total_weight: float) -> Tensor:
        """Return the merged task vector, a new tensor."""
        raise NotImplementedError


@dataclass(slots=True)
class LinearSums(Accumulators):
    """The sum of one tensor, of its shape, in float32 (float64 for a float64 tensor)."""

    total: Tensor
    """Weighted sum of the entries."""

    def add(self, vector: Tensor, weight: float) -> None:
        """Add one task vector in place."""
        self.total.add_(vector, alpha=weight)

    def remove(self, vector: Tensor, weight: float, least: float) -> None:
        """Subtract one task vector in place."""
        self.total.sub_(vector, alpha=weight)
        if least == float("inf"):
            self.total.zero_()

    def merged(self, rules: TiesRules, total_weight: float) -> Tensor:  # noqa: ARG002 - there is nothing to elect
        """Return the weighted mean; 0 without weight."""
        return self.total / (total_weight or 1.0)


@dataclass(slots=True)
class Sums(Accumulators):
    """The four sums of one tensor; every field has the tensor's shape, in float32 (float64 for a float64 tensor)."""

    positive: Tensor
    """Weighted sum of the positive entries."""
    negative: Tensor
    """Weighted sum of the negative entries."""
    positive_mass: Tensor
    """Weight of the checkpoints whose entry is positive."""
    negative_mass: Tensor
    """Weight of the checkpoints whose entry is negative."""

    def add(self, vector: Tensor, weight: float) -> None:
        """Add one trimmed task vector in place.

        Args:
            vector: The tensor's shape and type.
            weight: Its weight, >= 0.
        """
        # One temporary for all four, of the merge's type: fresh memory costs more than the arithmetic.
        part = vector.clamp(min=0)
        self.positive.add_(part, alpha=weight)
        self.negative.add_(torch.clamp(vector, max=0, out=part), alpha=weight)
        self.positive_mass.add_(torch.gt(vector, 0, out=part), alpha=weight)
        self.negative_mass.add_(torch.lt(vector, 0, out=part), alpha=weight)

    def remove(self, vector: Tensor, weight: float, least: float) -> None:
        """Subtract one trimmed task vector in place.

        A mass is a sum of weights of what stays, so it is 0 or at least the smallest of them: what is below half of
        that is the rounding of a 0. Left there, it would divide the rounding of a sum and give anything.
        """
        part = vector.clamp(min=0)
        self.positive.sub_(part, alpha=weight).clamp_(min=0)
        self.negative.sub_(torch.clamp(vector, max=0, out=part), alpha=weight).clamp_(max=0)
        self.positive_mass.sub_(torch.gt(vector, 0, out=part), alpha=weight)
        self.negative_mass.sub_(torch.lt(vector, 0, out=part), alpha=weight)
        for total, mass in ((self.positive, self.positive_mass), (self.negative, self.negative_mass)):
            nothing = mass < 0.5 * least
            total.masked_fill_(nothing, 0.0)
            mass.masked_fill_(nothing, 0.0)

    def sign(self, rules: TiesRules) -> Tensor:
        """Return the elected sign of every entry: -1, 0 or 1."""
        if rules.election == "total":
            sign = torch.sign(self.positive + self.negative)
        else:
            sign = frequency_sign(self.positive_mass, self.negative_mass)
        return resolve_zeros(sign, rules.zero)

    def mean(self, total_weight: float) -> Tensor:
        """Return the weighted mean of all vectors that were added; 0 without weight."""
        return (self.positive + self.negative) / (total_weight or 1.0)

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


N_EVIDENCE = 8
"""How many numbers :func:`evidence` gives."""


def evidence(sums: Sums, merged: Tensor, rules: TiesRules, total_weight: float) -> Tensor:
    """Return what one tensor contributes to :func:`diagnostics`.

    Args:
        sums: Of the tensor, after all checkpoints.
        merged: The merged task vector, of the tensor's shape.
        rules: How signs are elected.
        total_weight: Weight of all checkpoints together.

    Returns:
        (8,), float64, on the CPU; the contributions of several tensors are added.
    """
    plus, minus = sums.positive_mass, sums.negative_mass
    mass = plus + minus
    has_mass = mass > 0
    share = mass.masked_fill(~has_mass, 1.0)
    sign = sums.sign(rules)
    elected = torch.where(sign > 0, plus, torch.where(sign < 0, minus, torch.zeros_like(minus)))
    parts = (
        (torch.maximum(plus, minus) / share).sum(dtype=torch.float64),
        (elected / share).sum(dtype=torch.float64),
        has_mass.sum(),
        torch.tensor(mass.numel()),
        torch.minimum(sums.positive, -sums.negative).sum(dtype=torch.float64),
        (sums.positive - sums.negative).sum(dtype=torch.float64),
        merged.double().square().sum(),
        sums.mean(total_weight).double().square().sum(),
    )
    return torch.stack([part.double().cpu() for part in parts])


def diagnostics(evidence: Tensor) -> dict[str, float]:
    """Tell from added contributions of :func:`evidence` how well checkpoints agree.

    Args:
        evidence: (8,).

    Returns:
        What :meth:`StreamingTies.diagnostics` lists; 0 where undefined.
    """
    agreement, elected, covered, entries, conflict, magnitude, merged_square, mean_square = evidence.tolist()
    return {
        "agreement": _ratio(agreement, covered),
        "elected_agreement": _ratio(elected, covered),
        "conflict_mass": _ratio(conflict, magnitude),
        "coverage": _ratio(covered, entries),
        "norm_ratio": _ratio(merged_square, mean_square) ** 0.5,
    }


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else 0.0
