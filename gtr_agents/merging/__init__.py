"""Which merge methods exist, and the one function that merges whole state dicts with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from gtr_agents.errors import MergeError, unknown_name
from gtr_agents.merging.linear import ema_weights, linear_merge, sma_weights
from gtr_agents.merging.state_dict import StateDict, add_delta, check_compatible, check_weights, task_vector
from gtr_agents.merging.ties import StreamingTies, check_density, check_election, ties_merge

__all__ = ["MERGE_METHODS", "StreamingTies", "ema_weights", "merge", "sma_weights"]

MergeMethod = Callable[[Sequence[Tensor], Sequence[float], float, str], Tensor]

MERGE_METHODS: dict[str, MergeMethod] = {
    "linear": lambda vectors, weights, _density, _election: linear_merge(vectors, weights),
    "ties": lambda vectors, weights, density, election: ties_merge(
        vectors, weights, density=density, election=election
    ),
}
"""Name to function: (task vectors of one tensor, weights, density, election rule) to merged task vector."""


def merge(
    base: StateDict,
    checkpoints: Sequence[StateDict],
    *,
    method: str = "ties",
    weights: Sequence[float] | None = None,
    density: float = 0.8,
    lam: float = 1.0,
    election: str = "total",
) -> dict[str, Tensor]:
    """Merge checkpoints of one run, as task vectors, onto their common base.

    Args:
        base: The model at the start of the run.
        checkpoints: Later models, oldest first; the same tensors as the base.
        method: Name in :data:`MERGE_METHODS`.
        weights: One per checkpoint, >= 0; only their ratios matter. Equal if None.
        density: Share of each task vector that TIES keeps, in (0, 1].
        lam: Scale of the merged task vector.
        election: TIES sign rule, ``"total"`` or ``"frequency"``.

    Returns:
        New tensors in the base's types; those that are not floating point are copies of the base's.

    Raises:
        UnknownNameError: If there is no such method or election rule.
        MergeError: If there is no checkpoint, or tensors, weights or density do not fit.
    """
    if method not in MERGE_METHODS:
        raise unknown_name("merge method", method, MERGE_METHODS)
    if not checkpoints:
        raise MergeError("expected at least one checkpoint to merge, got none")
    weights = sma_weights(len(checkpoints)) if weights is None else weights
    check_weights(weights, len(checkpoints))
    check_density(density)
    check_election(election)
    for number, checkpoint in enumerate(checkpoints, start=1):
        check_compatible(base, checkpoint, f"checkpoint {number}")
    merged = {}
    for name, start in base.items():
        if start.is_floating_point():
            vectors = [task_vector(start, checkpoint[name]) for checkpoint in checkpoints]
            delta = MERGE_METHODS[method](vectors, weights, density, election)
            merged[name] = add_delta(start, delta, lam)
        else:
            merged[name] = start.clone()
    return merged
