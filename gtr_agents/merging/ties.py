"""TIES merging (arXiv 2306.01708) in delta space: trim, elect a sign, average what agrees.

``ties_merge`` does it in one go over all checkpoints, ``StreamingTies`` one checkpoint at a time.

Differences from the paper on purpose: the sign is elected after weighting, the average divides by the
agreeing weight (not the count), trimming looks at one tensor, keeps at least one entry and all equal
magnitudes at the threshold, and an undecided election gives 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from gtr_agents.errors import MergeError, unknown_name
from gtr_agents.merging.state_dict import (
    StateDict,
    add_delta,
    check_compatible,
    compute_dtype,
    copy_state,
    state_hash,
    task_vector,
)

ELECTIONS = ("total", "frequency")
"""How a sign is elected: by the weighted sum of the entries, or by the weighted count of their signs."""

TIE_TOLERANCE = 1e-6
"""Relative difference of sign counts below which a ``frequency`` election is a tie."""


def trim(vector: Tensor, density: float) -> Tensor:
    """Keep the entries of largest magnitude and set the others to 0.

    Args:
        vector: A task vector, any shape.
        density: Share kept, in (0, 1]; ``max(1, int(density * n))`` entries and those equal to the smallest
            of them.

    Returns:
        A tensor of the same shape and type.

    Raises:
        MergeError: If density is outside (0, 1].
    """
    check_density(density)
    n = vector.numel()
    k = max(1, int(density * n))
    if k >= n:
        return vector
    magnitude = vector.abs()
    threshold = magnitude.flatten().kthvalue(n - k + 1).values
    return torch.where(magnitude >= threshold, vector, torch.zeros_like(vector))


def check_density(density: float) -> None:
    """Raise :class:`MergeError` if density is outside (0, 1]."""
    if not 0.0 < density <= 1.0:
        raise MergeError(f"density must be in (0, 1], got {density!r}")


def check_election(election: str) -> None:
    """Raise :class:`UnknownNameError` if there is no such election rule."""
    if election not in ELECTIONS:
        raise unknown_name("election rule", election, ELECTIONS)


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
    """
    check_election(election)
    stack = torch.stack([trim(vector, density) for vector in vectors])
    weight = torch.tensor(weights, dtype=stack.dtype, device=stack.device).reshape(-1, *[1] * vectors[0].dim())
    weighted = weight * stack
    if election == "total":
        sign = torch.sign(weighted.clamp(min=0).sum(0) + weighted.clamp(max=0).sum(0))
    else:
        sign = _frequency_sign((weight * (stack > 0)).sum(0), (weight * (stack < 0)).sum(0))
    agrees = (torch.sign(stack) == sign) & (sign != 0)
    mass = (weight * agrees).sum(0)
    merged = (weighted * agrees).sum(0)
    return torch.where(mass > 0, merged / mass.masked_fill(mass == 0, 1.0), torch.zeros_like(merged))


def _frequency_sign(positive_mass: Tensor, negative_mass: Tensor) -> Tensor:
    difference = positive_mass - negative_mass
    undecided = difference.abs() <= TIE_TOLERANCE * (positive_mass + negative_mass)
    return torch.where(undecided, torch.zeros_like(difference), torch.sign(difference))


@dataclass(slots=True)
class _Accumulator:
    """All that TIES needs to know of the past of one tensor; every field has the tensor's shape."""

    positive: Tensor
    """Weighted sum of the positive entries."""
    negative: Tensor
    """Weighted sum of the negative entries."""
    positive_mass: Tensor
    """Weight of the checkpoints whose entry is positive."""
    negative_mass: Tensor
    """Weight of the checkpoints whose entry is negative."""

    @classmethod
    def zeros(cls, like: Tensor) -> _Accumulator:
        dtype = compute_dtype(like)
        return cls(*(torch.zeros_like(like, dtype=dtype) for _ in range(4)))

    def tensors(self) -> dict[str, Tensor]:
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def add(self, trimmed: Tensor, weight: float) -> None:
        self.positive.add_(trimmed.clamp(min=0), alpha=weight)
        self.negative.add_(trimmed.clamp(max=0), alpha=weight)
        # A Python float times a bool tensor would be float32 even in a float64 merge.
        self.positive_mass.add_((trimmed > 0).to(trimmed.dtype), alpha=weight)
        self.negative_mass.add_((trimmed < 0).to(trimmed.dtype), alpha=weight)

    def sign(self, election: str) -> Tensor:
        if election == "total":
            return torch.sign(self.positive + self.negative)
        return _frequency_sign(self.positive_mass, self.negative_mass)

    def merged(self, election: str) -> Tensor:
        sign = self.sign(election)
        total = torch.where(sign > 0, self.positive, self.negative)
        mass = torch.where(sign > 0, self.positive_mass, self.negative_mass)
        # A mass can be 0 beside a sum that is not once decay has pushed it out of the float range.
        usable = (sign != 0) & (mass > 0)
        return torch.where(usable, total / mass.masked_fill(mass == 0, 1.0), torch.zeros_like(total))


class StreamingTies:
    """TIES over any number of checkpoints with constant memory and constant work per checkpoint.

    Trimming looks at one checkpoint only, election and average need only sums, so four sums per entry replace
    the whole history; the result equals :func:`ties_merge` over all checkpoints with their current weights.
    Accumulators are float32 (float64 for a float64 base) on the device of the base.

    Args:
        base: The model at the start of the run; copied. Zeros if checkpoints are deltas already.
        density: Share of each task vector kept, in (0, 1].
        election: ``"total"`` or ``"frequency"``.

    Raises:
        MergeError: If the density is outside (0, 1] or the base is not finite.
        UnknownNameError: If there is no such election rule.
    """

    def __init__(self, base: StateDict, density: float = 0.8, election: str = "total") -> None:
        check_density(density)
        check_election(election)
        check_compatible(base, base, "base")
        self.density = density
        self.election = election
        self.total_weight = 0.0
        self.members: dict[str, float] = {}
        self._base = copy_state(base)
        self._sums = {
            name: _Accumulator.zeros(tensor) for name, tensor in self._base.items() if tensor.is_floating_point()
        }

    @property
    def base(self) -> dict[str, Tensor]:
        """The base; do not change its tensors."""
        return self._base

    def add(
        self,
        checkpoint: StateDict,
        weight: float = 1.0,
        id: str | None = None,
        *,
        decay: float = 1.0,
    ) -> None:
        """Add one checkpoint; nothing is changed if it is refused.

        Args:
            checkpoint: The same tensors as the base.
            weight: Its weight beside the current ones, >= 0.
            id: Unique name; numbered if None.
            decay: Factor for :meth:`decay`, applied to the earlier checkpoints once this one is accepted.

        Raises:
            MergeError: If the id was added before, weight or decay are outside their range, or the tensors do
                not fit or are not finite.
        """
        name = id if id is not None else f"checkpoint-{len(self.members) + 1}"
        if name in self.members:
            raise MergeError(f"checkpoint {name!r} was added before; it must not count twice")
        if not 0.0 <= weight < float("inf"):
            raise MergeError(f"the weight of a checkpoint must be finite and >= 0, got {weight!r}")
        check_compatible(self._base, checkpoint, f"checkpoint {name!r}")
        if decay != 1.0:
            self.decay(decay)
        for key, accumulator in self._sums.items():
            accumulator.add(trim(task_vector(self._base[key], checkpoint[key]), self.density), weight)
        self.members[name] = weight
        self.total_weight += weight

    def decay(self, factor: float) -> None:
        """Multiply the weight of everything added so far by a factor in [0, 1].

        Args:
            factor: ``1 - alpha`` before each new checkpoint gives an exponential moving average.

        Raises:
            MergeError: If the factor is outside [0, 1].
        """
        if not 0.0 <= factor <= 1.0:
            raise MergeError(f"the decay factor must be in [0, 1], got {factor!r}")
        for accumulator in self._sums.values():
            for tensor in accumulator.tensors().values():
                tensor.mul_(factor)
        self.members = {name: weight * factor for name, weight in self.members.items()}
        self.total_weight *= factor

    def merged(self, lam: float = 1.0) -> dict[str, Tensor]:
        """Return base plus ``lam`` times the merged task vector, in the base's types.

        Args:
            lam: Scale of the merged task vector.

        Returns:
            New tensors; those that are not floating point are copies of the base's.
        """
        return {
            name: add_delta(tensor, self._sums[name].merged(self.election), lam)
            if name in self._sums
            else tensor.clone()
            for name, tensor in self._base.items()
        }

    def diagnostics(self) -> dict[str, float]:
        """Summarise how well the checkpoints agree, from the sums alone.

        Returns:
            ``agreement`` (share of the larger sign, mean over entries with mass), ``elected_agreement``
            (share of the elected sign), ``conflict_mass`` (0 none, 0.5 complete), ``coverage`` (share of
            entries with mass) and ``norm_ratio`` (norm of the merge over norm of the linear mean of the
            trimmed vectors); 0 where undefined.
        """
        sums = torch.zeros(8, dtype=torch.float64)
        for accumulator in self._sums.values():
            sums += torch.stack([value.double().cpu() for value in self._partial_sums(accumulator)])
        agreement, elected, covered, entries, conflict, magnitude, merged_square, mean_square = sums.tolist()
        return {
            "agreement": _ratio(agreement, covered),
            "elected_agreement": _ratio(elected, covered),
            "conflict_mass": _ratio(conflict, magnitude),
            "coverage": _ratio(covered, entries),
            "norm_ratio": _ratio(merged_square, mean_square) ** 0.5,
        }

    def _partial_sums(self, sums: _Accumulator) -> tuple[Tensor, ...]:
        """Return one tensor's contributions to the eight sums behind :meth:`diagnostics`."""
        plus, minus = sums.positive_mass, sums.negative_mass
        mass = plus + minus
        has_mass = mass > 0
        share = mass.masked_fill(~has_mass, 1.0)
        sign = sums.sign(self.election)
        elected = torch.where(sign > 0, plus, torch.where(sign < 0, minus, torch.zeros_like(minus)))
        mean = (sums.positive + sums.negative) / (self.total_weight or 1.0)
        return (
            (torch.maximum(plus, minus) / share).sum(dtype=torch.float64),
            (elected / share).sum(dtype=torch.float64),
            has_mass.sum(),
            torch.tensor(mass.numel()),
            torch.minimum(sums.positive, -sums.negative).sum(dtype=torch.float64),
            (sums.positive - sums.negative).sum(dtype=torch.float64),
            sums.merged(self.election).double().square().sum(),
            mean.double().square().sum(),
        )

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return everything but the base: accumulator tensors by name, and JSON-ready settings.

        Returns:
            Tensors named ``FIELD/NAME`` (the live ones, not copies), and the settings with the base's hash.
        """
        tensors = {
            f"{field}/{name}": tensor
            for name, accumulator in self._sums.items()
            for field, tensor in accumulator.tensors().items()
        }
        return tensors, {
            "density": self.density,
            "election": self.election,
            "members": dict(self.members),
            "total_weight": self.total_weight,
            "base_hash": state_hash(self._base),
        }

    def load_state_dict(self, tensors: StateDict, settings: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned, bit for bit.

        Args:
            tensors: The accumulator tensors.
            settings: The settings.

        Raises:
            MergeError: If base, density, election rule or tensors are not those of this object.
        """
        own, expected = self.state_dict()
        for key in ("base_hash", "density", "election"):
            if settings.get(key) != expected[key]:
                raise MergeError(f"saved {key} must be {expected[key]!r}, got {settings.get(key)!r}")
        check_compatible(own, tensors, "saved accumulators")
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
        self.members = {str(name): float(weight) for name, weight in settings["members"].items()}
        self.total_weight = float(settings["total_weight"])


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else 0.0
