"""Which merge methods exist, and the one function that merges whole state dicts with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from gtr_agents.errors import MergeError, unknown_name
from gtr_agents.merging.dare import drop, mask_generator
from gtr_agents.merging.dialects import DIALECTS, dialect_ties
from gtr_agents.merging.linear import ema_weights, linear_merge, sma_weights
from gtr_agents.merging.rules import TiesRules
from gtr_agents.merging.shards import ShardedState, write_shards
from gtr_agents.merging.slerp import slerp
from gtr_agents.merging.state_dict import StateDict, add_delta, check_compatible, check_weights, task_vector
from gtr_agents.merging.streaming import StreamingLinear, StreamingTies
from gtr_agents.merging.ties import elect_and_average
from gtr_agents.merging.trim import checkpoint_threshold, trim, trim_below

__all__ = [
    "DIALECTS",
    "MERGE_METHODS",
    "MergeMethod",
    "ShardedState",
    "StreamingLinear",
    "StreamingTies",
    "TiesRules",
    "ema_weights",
    "merge",
    "sma_weights",
    "write_shards",
]


@dataclass(frozen=True, slots=True)
class MergeMethod:
    """A way to merge the task vectors of one tensor: make each of them sparse, then combine them."""

    combine: Callable[[Sequence[Tensor], Sequence[float], TiesRules], Tensor]
    """(task vectors, weights, rules) to merged task vector; what it does not need of the rules it ignores."""
    sparsify: str = "nothing"
    """``"nothing"``, ``"trim"`` (keep the largest) or ``"drop"`` (keep at random and rescale)."""


MERGE_METHODS = {
    "linear": MergeMethod(lambda vectors, weights, _rules: linear_merge(vectors, weights)),
    "slerp": MergeMethod(lambda vectors, weights, _rules: slerp(vectors, weights)),
    "ties": MergeMethod(elect_and_average, "trim"),
    "dare_linear": MergeMethod(lambda vectors, weights, _rules: linear_merge(vectors, weights), "drop"),
    "dare_ties": MergeMethod(elect_and_average, "drop"),
}
"""Name to method."""


def merge(
    base: StateDict,
    checkpoints: Sequence[StateDict],
    *,
    method: str = "ties",
    weights: Sequence[float] | None = None,
    density: float = 0.8,
    lam: float = 1.0,
    election: str = "total",
    zero: str = "zero",
    min_mass: float = 0.0,
    trim_scope: str = "tensor",
    seed: int = 0,
    ids: Sequence[str] | None = None,
    dialect: str = "ours",
) -> dict[str, Tensor]:
    """Merge checkpoints of one run, as task vectors, onto their common base.

    Args:
        base: The model at the start of the run.
        checkpoints: Later models, oldest first; the same tensors as the base. Mappings that read their tensors when
            asked for them (:class:`ShardedState`) keep memory at one tensor of each.
        method: Name in :data:`MERGE_METHODS`.
        weights: One per checkpoint, >= 0; only their ratios matter. Equal if None.
        density: Share of each task vector that TIES and DARE keep, in (0, 1].
        lam: Scale of the merged task vector.
        election: TIES sign rule, ``"total"`` or ``"frequency"``.
        zero: What an undecided election gives: ``"zero"``, ``"positive"`` or ``"majority"``.
        min_mass: TIES entries whose agreeing weight is below this share of all weight become 0; 0 is off.
        trim_scope: ``"tensor"`` trims each tensor alone, ``"global"`` all tensors of a checkpoint by one threshold.
        seed: Of DARE's masks.
        ids: Names of the checkpoints; DARE's masks depend on them. Numbered ``checkpoint-1`` and on if None.
        dialect: Name in :data:`DIALECTS`; other than ``"ours"`` for comparisons with other libraries' TIES only.

    Returns:
        New tensors in the base's types; those that are not floating point are copies of the base's.

    Raises:
        UnknownNameError: If there is no such method, rule, scope or dialect.
        MergeError: If there is no checkpoint, or tensors, weights, ids or a range do not fit.
    """
    if method not in MERGE_METHODS:
        raise unknown_name("merge method", method, MERGE_METHODS)
    if not checkpoints:
        raise MergeError("expected at least one checkpoint to merge, got none")
    weights = sma_weights(len(checkpoints)) if weights is None else weights
    check_weights(weights, len(checkpoints))
    rules = TiesRules(density, election, zero, min_mass, trim_scope)
    ids = [f"checkpoint-{number}" for number in range(1, len(checkpoints) + 1)] if ids is None else ids
    if len(ids) != len(checkpoints) or len(set(ids)) < len(ids):
        raise MergeError(f"expected {len(checkpoints)} different ids, got {list(ids)!r}")
    for number, checkpoint in enumerate(checkpoints, start=1):
        check_compatible(base, checkpoint, f"checkpoint {number}")
    if dialect != "ours":
        return _merge_in_dialect(base, checkpoints, weights, rules, lam, method, dialect)
    sparsify = _sparsifier(base, checkpoints, MERGE_METHODS[method].sparsify, rules, seed, ids)
    merged = {}
    for name, start in base.items():
        if start.is_floating_point():
            vectors = [sparsify(task_vector(start, c[name]), i, name) for i, c in enumerate(checkpoints)]
            merged[name] = add_delta(start, MERGE_METHODS[method].combine(vectors, weights, rules), lam)
        else:
            merged[name] = start.clone()
    return merged


def _sparsifier(
    base: StateDict, checkpoints: Sequence[StateDict], kind: str, rules: TiesRules, seed: int, ids: Sequence[str]
) -> Callable[[Tensor, int, str], Tensor]:
    """Return the function (task vector, number of its checkpoint, name of its tensor) to sparse task vector."""
    if kind == "drop":
        return lambda vector, i, name: drop(vector, rules.density, mask_generator(seed, ids[i], name))
    if kind == "nothing":
        return lambda vector, _i, _name: vector
    if rules.trim_scope == "tensor" or rules.density == 1.0:
        return lambda vector, _i, _name: trim(vector, rules.density)
    thresholds = [checkpoint_threshold(base, checkpoint, rules.density) for checkpoint in checkpoints]
    return lambda vector, i, _name: trim_below(vector, thresholds[i])


def _merge_in_dialect(
    base: StateDict,
    checkpoints: Sequence[StateDict],
    weights: Sequence[float],
    rules: TiesRules,
    lam: float,
    method: str,
    dialect: str,
) -> dict[str, Tensor]:
    if method != "ties":
        raise MergeError(f"dialects differ in 'ties' only; expected that method, got {method!r}")
    names = sorted(name for name, start in base.items() if start.is_floating_point())
    vectors = [[task_vector(base[name], checkpoint[name]) for name in names] for checkpoint in checkpoints]
    deltas = dict(zip(names, dialect_ties(vectors, weights, rules, dialect), strict=True))
    return {
        name: add_delta(start, deltas[name], lam) if name in deltas else start.clone() for name, start in base.items()
    }
