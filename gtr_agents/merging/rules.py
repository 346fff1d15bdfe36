"""How TIES is set: which rules there are, what they mean, and the check that a setting makes sense."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gtr_agents.errors import MergeError, unknown_name
from gtr_agents.merging.trim import check_density

ELECTIONS = ("total", "frequency")
"""How a sign is elected: by the weighted sum of the entries, or by the weighted count of their signs."""

ZERO_RULES = ("zero", "positive", "majority")
"""What an undecided election gives: 0, the positive side, or the side that won most entries of the tensor."""

TRIM_SCOPES = ("tensor", "global")
"""Whether each tensor is trimmed alone, or all tensors of a checkpoint by one threshold."""

TIE_TOLERANCE = 1e-6
"""Relative difference of sign counts below which a ``frequency`` election is a tie."""


def check_election(election: str) -> None:
    """Raise :class:`UnknownNameError` if there is no such election rule."""
    if election not in ELECTIONS:
        raise unknown_name("election rule", election, ELECTIONS)


@dataclass(frozen=True, slots=True)
class TiesRules:
    """All switches of TIES as this package computes it.

    Raises:
        MergeError: If density or min_mass is outside its range.
        UnknownNameError: If there is no such election rule, zero rule or trim scope.
    """

    density: float = 0.8
    """Share of each task vector that is kept, in (0, 1]."""
    election: str = "total"
    """One of :data:`ELECTIONS`."""
    zero: str = "zero"
    """One of :data:`ZERO_RULES`; only ``"zero"`` and ``"majority"`` keep ``merge(-x) = -merge(x)``."""
    min_mass: float = 0.0
    """Entries whose agreeing weight is below this share of the total weight become 0; in [0, 1], 0 is off."""
    trim_scope: str = "tensor"
    """One of :data:`TRIM_SCOPES`."""

    def __post_init__(self) -> None:
        check_density(self.density)
        check_election(self.election)
        if self.zero not in ZERO_RULES:
            raise unknown_name("zero rule", self.zero, ZERO_RULES)
        if not 0.0 <= self.min_mass <= 1.0:
            raise MergeError(f"min_mass must be in [0, 1], got {self.min_mass!r}")
        if self.trim_scope not in TRIM_SCOPES:
            raise unknown_name("trim scope", self.trim_scope, TRIM_SCOPES)


def frequency_sign(positive_mass: Tensor, negative_mass: Tensor) -> Tensor:
    """Elect signs by weighted counts; counts that differ only by rounding are a tie.

    Args:
        positive_mass: Weight of the positive entries, any shape.
        negative_mass: Weight of the negative entries, the same shape.

    Returns:
        -1, 0 (a tie) or 1 for every entry.
    """
    difference = positive_mass - negative_mass
    undecided = difference.abs() <= TIE_TOLERANCE * (positive_mass + negative_mass)
    return torch.where(undecided, torch.zeros_like(difference), torch.sign(difference))


def resolve_zeros(sign: Tensor, zero: str) -> Tensor:
    """Decide undecided elections.

    Args:
        sign: Elected signs of one tensor, -1, 0 or 1.
        zero: One of :data:`ZERO_RULES`.

    Returns:
        Signs of the same shape; 0 stays under ``"zero"``, and under ``"majority"`` if that is undecided too.
    """
    if zero == "zero":
        return sign
    winner = torch.ones_like(sign) if zero == "positive" else torch.sign(sign.sum()).expand_as(sign)
    return torch.where(sign == 0, winner, sign)
