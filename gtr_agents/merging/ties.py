"""TIES merging (arXiv 2306.01708) in delta space: trim, elect a sign, average what agrees.

``ties_merge`` does it in one go over all checkpoints of one tensor, :class:`StreamingTies` one checkpoint at a time.

Differences from the paper on purpose: the sign is elected after weighting, the average divides by the
agreeing weight (not the count), trimming looks at one tensor, keeps at least one entry and all equal
magnitudes at the threshold, and an undecided election gives 0. What public implementations do instead stands in
:mod:`gtr_agents.merging.dialects`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gtr_agents.merging.rules import TIE_TOLERANCE, TiesRules, check_election, frequency_sign, resolve_zeros
from gtr_agents.merging.streaming import StreamingTies
from gtr_agents.merging.trim import check_density, trim

__all__ = ["StreamingTies", "check_density", "check_election", "elect_and_average", "ties_merge", "trim"]


def ties_merge(
    vectors: Sequence[Tensor], weights: Sequence[float], *, density: float = 0.8, election: str = "total"
) -> Tensor:
    """Merge task vectors of one tensor by TIES; all of them are in memory at once.

    Args:
        vectors: Task vectors of equal shape, at least one.
        weights: One per vector, >= 0; only their ratios matter.
        density: Share of each vector kept by :func:`trim`.
        election: ``"total"`` or ``"frequency"``.

    Returns:
        The merged task vector.

    Raises:
        MergeError: If density is outside (0, 1].
        UnknownNameError: If there is no such election rule.
    """
    rules = TiesRules(density, election)
    return elect_and_average([trim(vector, density) for vector in vectors], weights, rules)


def elect_and_average(trimmed: Sequence[Tensor], weights: Sequence[float], rules: TiesRules) -> Tensor:
    """Elect a sign per entry and average the entries that have it: TIES after its trim.

    Args:
        trimmed: Task vectors of equal shape, at least one.
        weights: One per vector, >= 0; only their ratios matter.
        rules: Election, zero rule and least mass; the rest was done before.

    Returns:
        The merged task vector; 0 where nothing agrees.
    """
    stack = torch.stack(list(trimmed))
    weight = torch.tensor(weights, dtype=stack.dtype, device=stack.device).reshape(-1, *[1] * trimmed[0].dim())
    weighted = weight * stack
    if rules.election == "total":
        sign = torch.sign(weighted.clamp(min=0).sum(0) + weighted.clamp(max=0).sum(0))
    else:
        sign = frequency_sign((weight * (stack > 0)).sum(0), (weight * (stack < 0)).sum(0))
    sign = resolve_zeros(sign, rules.zero)
    agrees = (torch.sign(stack) == sign) & (sign != 0)
    mass = (weight * agrees).sum(0)
    merged = (weighted * agrees).sum(0)
    usable = mass > 0
    if rules.min_mass > 0:
        usable &= mass >= rules.min_mass * float(sum(weights)) * (1 - TIE_TOLERANCE)
    return torch.where(usable, merged / mass.masked_fill(mass == 0, 1.0), torch.zeros_like(merged))
