"""TIES as public implementations compute it: for parity tests only, slow, and all tensors at once.

====================  ========================  ================  ========================  ======================
step                  ours                      original          mergekit                  peft
====================  ========================  ================  ========================  ======================
vector                each tensor               all as one        each tensor               each tensor
kept                  ``int(d n)``, at least 1  ``int(d n) + 1``  ``int(d n)``, at least 1  ``int(d n)``, may be 0
equal magnitudes      all kept                  all kept          as many as fit            as many as fit
weights               yes                       none              yes                       not in the election
``frequency`` counts  weights                   (none)            checkpoints               checkpoints
undecided             0                         majority of all   positive                  positive
divisor               agreeing weight           agreeing count    agreeing weight           agreeing count
====================  ========================  ================  ========================  ======================

Some versions of mergekit refuse a density that would keep nothing instead of keeping one entry. *original* is the code
of the TIES paper's authors, its mean variant; *mergekit* its ``ties`` with ``normalize``; *peft* the function
``peft.utils.merge_utils.ties`` on deltas (its ``add_weighted_adapter`` hands it LoRA factors instead). Written from
their documented behaviour and compared with peft's function in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gtr_agents.errors import MergeError, unknown_name
from gtr_agents.merging.rules import TiesRules, frequency_sign
from gtr_agents.merging.trim import check_density, n_kept, trim, trim_below


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where one implementation of TIES differs from another."""

    flat: bool = False
    """All tensors of a checkpoint are one vector."""
    trim: str = "ours"
    """``"ours"``, ``"one more"`` (than the density asks for) or ``"count"`` (exactly as many, equal ones or not)."""
    least: int = 1
    """How many entries are kept at least, for ``trim="count"``."""
    weighted: bool = True
    """Weights count at all."""
    weighted_election: bool = True
    """Weights count in the election by ``total``."""
    weighted_frequency: bool = False
    """Weights count in the election by ``frequency``."""
    undecided: str = "positive"
    """``"zero"``, ``"positive"`` or ``"majority"``; if the majority is undecided too, the negative side."""
    divisor: str = "weight"
    """``"weight"`` or ``"count"`` of what agrees."""


DIALECTS = {
    "ours": Dialect(weighted_frequency=True, undecided="zero"),
    "original": Dialect(flat=True, trim="one more", weighted=False, undecided="majority", divisor="count"),
    "mergekit": Dialect(trim="count"),
    "peft": Dialect(trim="count", least=0, weighted_election=False, divisor="count"),
}
"""Name to differences."""


def dialect_ties(
    vectors: Sequence[Sequence[Tensor]], weights: Sequence[float], rules: TiesRules, dialect: str
) -> list[Tensor]:
    """Merge task vectors as another implementation would.

    Args:
        vectors: For every checkpoint its tensors; the same shapes and one type throughout.
        weights: One per checkpoint, >= 0.
        rules: Density and election; the other switches must be at their defaults, a dialect fixes them.
        dialect: A name in :data:`DIALECTS`.

    Returns:
        The merged tensors.

    Raises:
        UnknownNameError: If there is no such dialect.
        MergeError: If a rule is set that the dialect fixes, or weights differ where it has none.
    """
    if dialect not in DIALECTS:
        raise unknown_name("dialect", dialect, DIALECTS)
    settings = DIALECTS[dialect]
    if rules != TiesRules(rules.density, rules.election):
        raise MergeError(f"dialect {dialect!r} fixes everything but density and election; got {rules}")
    if not settings.weighted and len(set(weights)) > 1:
        raise MergeError(f"dialect {dialect!r} knows no weights; expected equal ones, got {list(weights)!r}")
    if not settings.flat:
        return [_merge(tensors, weights, rules, settings) for tensors in zip(*vectors, strict=True)]
    flat = _merge([torch.cat([t.reshape(-1) for t in tensors]) for tensors in vectors], weights, rules, settings)
    pieces = flat.split([t.numel() for t in vectors[0]])
    return [piece.reshape(t.shape) for piece, t in zip(pieces, vectors[0], strict=True)]


def _merge(vectors: Sequence[Tensor], weights: Sequence[float], rules: TiesRules, dialect: Dialect) -> Tensor:
    trimmed = torch.stack([_trim(vector, rules.density, dialect) for vector in vectors])
    shares = weights if dialect.weighted else [1.0] * len(weights)
    weight = torch.tensor(shares, dtype=trimmed.dtype, device=trimmed.device).reshape(-1, *[1] * (trimmed.dim() - 1))
    positive, negative = (trimmed > 0).to(trimmed.dtype), (trimmed < 0).to(trimmed.dtype)
    if rules.election == "total":
        sign = torch.sign(((weight if dialect.weighted_election else 1.0) * trimmed).sum(0))
    else:
        counted = weight if dialect.weighted_frequency else torch.ones_like(weight)
        sign = frequency_sign((counted * positive).sum(0), (counted * negative).sum(0))
    if dialect.undecided != "zero":
        majority = torch.sign(sign.sum()) if dialect.undecided == "majority" else torch.ones(())
        sign = torch.where(sign == 0, 1.0 if majority > 0 else -1.0, sign)
    agrees = torch.where(sign > 0, positive, torch.where(sign < 0, negative, torch.zeros_like(negative)))
    divisor = ((weight if dialect.divisor == "weight" else 1.0) * agrees).sum(0)
    return (weight * trimmed * agrees).sum(0) / divisor.masked_fill(divisor == 0, 1.0)


def _trim(vector: Tensor, density: float, dialect: Dialect) -> Tensor:
    check_density(density)
    if dialect.trim == "ours" or density == 1.0:
        return trim(vector, density)
    magnitude = vector.abs().flatten()
    if dialect.trim == "one more":
        k = min(int(density * vector.numel()) + 1, vector.numel())
        return trim_below(vector, magnitude.sort(descending=True).values[k - 1])
    k = n_kept(vector.numel(), density) if dialect.least else int(density * vector.numel())
    mask = torch.zeros_like(magnitude)
    mask[magnitude.topk(k).indices] = 1.0
    return vector * mask.reshape(vector.shape)
