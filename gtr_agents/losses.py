"""The training losses and the token-level KL estimators, as pure functions.

Axes: B steps (one response each), T response tokens (padded). Masks are True where a token counts; padding is
known by the mask only, never by a token id. All sums run in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gtr_agents.errors import unknown_name

Metrics = dict[str, Tensor]
Estimator = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def masked_sum(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum the marked entries in float32; what stands in the others, even NaN, does not matter.

    Args:
        values: Any shape.
        mask: Bool, broadcastable to ``values``; True marks an entry that counts.
        dim: Axis to reduce; all if None.

    Returns:
        The sum over ``dim``, or a scalar.
    """
    kept = torch.where(mask, values.float(), 0.0)
    return kept.sum() if dim is None else kept.sum(dim)


def masked_mean(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Average the marked entries in float32; 0 where nothing is marked; as :func:`masked_sum`."""
    mask = mask.expand_as(values)
    count = mask.sum() if dim is None else mask.sum(dim)
    return masked_sum(values, mask, dim) / count.clamp(min=1)


def turn_log_prob(log_probs: Tensor, thought_mask: Tensor, mask: Tensor, thought_coef: float) -> Tensor:
    """Compute one log-probability per environment step, thought tokens weighted (arXiv 2405.10292).

    Args:
        log_probs: Token log-probs at the sampling temperature, [B, T].
        thought_mask: True marks a thought token, False an action token, [B, T].
        mask: True marks a sampled token, False padding, [B, T].
        thought_coef: Weight of the thought tokens; 0 leaves the action only.

    Returns:
        float32 [B].
    """
    thought = masked_sum(log_probs, mask & thought_mask, dim=-1)
    action = masked_sum(log_probs, mask & ~thought_mask, dim=-1)
    return thought_coef * thought + action


def clipped_policy_loss(
    log_probs_new: Tensor,
    log_probs_old: Tensor,
    advantages: Tensor,
    clip_range: float = 0.1,
    ratio_guard: float = 10.0,
) -> tuple[Tensor, Metrics]:
    """Compute the clipped PPO surrogate with one ratio per step (arXiv 1707.06347, eq. 7).

    Args:
        log_probs_new: Turn log-probs under the current policy, [B].
        log_probs_old: The same under the policy that sampled, [B].
        advantages: Normalised advantages, [B].
        clip_range: The c of ``clip(ratio, 1 - c, 1 + c)``.
        ratio_guard: Above this ratio only the clipped term is used, so one outlier cannot dominate (RL4VLM
            code).

    Returns:
        The mean loss, and detached scalars ``clip_fraction``, ``approx_kl``, ``ratio_guard_fraction`` and
        ``ratio_error`` (largest absolute log-ratio).
    """
    losses, parts = _surrogate(log_probs_new, log_probs_old, advantages, clip_range, ratio_guard)
    metrics = {name: value.mean() for name, value in parts.items()}
    metrics["ratio_error"] = _largest((log_probs_new - log_probs_old).detach().float())
    return losses.mean(), metrics


def token_policy_loss(
    log_probs_new: Tensor,
    log_probs_old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_range: float = 0.1,
    ratio_guard: float = 10.0,
    *,
    clip_high: float | None = None,
    divisor: float | None = None,
) -> tuple[Tensor, Metrics]:
    """Compute the clipped PPO surrogate with one ratio per token (VL-DAC style, arXiv 2508.04280).

    Args:
        log_probs_new: Token log-probs under the current policy, [B, T].
        log_probs_old: The same under the policy that sampled, [B, T].
        advantages: Normalised advantages of the steps, copied to their tokens, [B]; or of every token, [B, T].
        mask: True marks a token that is trained, [B, T].
        clip_range: The c of ``clip(ratio, 1 - c, 1 + c)``.
        ratio_guard: As for :func:`clipped_policy_loss`.
        clip_high: The c of the upper bound, if it is another (DAPO, arXiv 2503.14476).
        divisor: Divide the sum over the tokens of a step by this, in the place of their number (Dr. GRPO, arXiv
            2503.20783).

    Returns:
        Mean over the tokens of a step, then over all B steps (a step without a marked token counts as 0), and
        the metrics of :func:`clipped_policy_loss`, over tokens.
    """
    # Padding may hold anything; its ratio is set to 1 before the exponential, not after, to keep gradients
    # finite.
    log_probs_new = torch.where(mask, log_probs_new, 0.0)
    log_probs_old = torch.where(mask, log_probs_old, 0.0)
    if advantages.ndim == 1:
        advantages = advantages.unsqueeze(-1)
    losses, parts = _surrogate(log_probs_new, log_probs_old, advantages, clip_range, ratio_guard, clip_high)
    metrics = {name: masked_mean(value, mask) for name, value in parts.items()}
    metrics["ratio_error"] = _largest((log_probs_new - log_probs_old).detach().float())
    per_step = masked_mean(losses, mask, dim=-1) if divisor is None else masked_sum(losses, mask, dim=-1) / divisor
    return per_step.mean(), metrics


def _surrogate(
    log_probs_new: Tensor,
    log_probs_old: Tensor,
    advantages: Tensor,
    clip_range: float,
    ratio_guard: float,
    clip_high: float | None = None,
) -> tuple[Tensor, Metrics]:
    """Return element-wise losses and what the metrics are averaged from."""
    clip_high = clip_range if clip_high is None else clip_high
    log_ratio = log_probs_new.float() - log_probs_old.float()
    # Beyond the guard only the clipped term is used; the clamp keeps exp() and its gradient finite there.
    ratio = log_ratio.clamp(max=math.log(ratio_guard) + 1.0).exp()
    clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_high) * advantages
    guarded = log_ratio > math.log(ratio_guard)
    objective = torch.where(guarded, clipped, torch.minimum(ratio * advantages, clipped))
    with torch.no_grad():
        parts = {
            "clip_fraction": ((ratio < 1.0 - clip_range) | (ratio > 1.0 + clip_high)).float(),
            "approx_kl": ratio - 1.0 - log_ratio,
            "ratio_guard_fraction": guarded.float(),
        }
    return -objective, parts


def _largest(values: Tensor) -> Tensor:
    return values.abs().max() if values.numel() else values.new_zeros(())


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float | None = 0.1) -> Tensor:
    """Compute half the squared value error, with the move away from the old value clipped.

    Args:
        values: Predicted now, [B].
        old_values: Predicted in the rollout, [B].
        returns: Value targets, [B].
        clip_range: Largest rewarded move, in units of the return; None trains on the plain squared error.

    Returns:
        The mean loss, a scalar.
    """
    values, old_values, returns = values.float(), old_values.float(), returns.float()
    error = (values - returns).square()
    if clip_range is not None:
        clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
        error = torch.maximum(error, (clipped - returns).square())
    return 0.5 * error.mean()


CLIP_CAP = 10.0
"""Largest token KL of the ``clip_cap`` estimator, in nats (reference code)."""

KL_ESTIMATORS: dict[str, Estimator] = {
    "clip": lambda k: np.maximum(k, 0.0),
    "clip_cap": lambda k: np.clip(k, 0.0, CLIP_CAP),
    "abs": np.abs,
    "k1": lambda k: k,
    "k2": lambda k: 0.5 * k * k,
    "k3": lambda k: np.expm1(-k) + k,
}
"""phi(k) with k = log p_student - log p_teacher of a sampled token; k1-k3 after
http://joschu.net/blog/kl-approx.html."""


def kl_terms(
    log_probs_student: NDArray[np.floating], log_probs_teacher: NDArray[np.floating], estimator: str = "clip"
) -> NDArray[np.float64]:
    """Estimate the reverse KL divergence from the teacher at every sampled token of an answer.

    Args:
        log_probs_student: Log-probs of the sampled tokens under the policy, at temperature 1, [T].
        log_probs_teacher: Log-probs of the same tokens under the teacher, at temperature 1, [T].
        estimator: Name in :data:`KL_ESTIMATORS`.

    Returns:
        The estimates in nats, float64 [T].

    Raises:
        UnknownNameError: If there is no such estimator.
    """
    if estimator not in KL_ESTIMATORS:
        raise unknown_name("KL estimator", estimator, KL_ESTIMATORS)
    return KL_ESTIMATORS[estimator](log_probs_student.astype(np.float64) - log_probs_teacher.astype(np.float64))


def reduce_terms(terms: NDArray[np.floating], mask: NDArray[np.bool_], reduce: str = "mean") -> float:
    """Reduce the marked tokens' terms to one number.

    Args:
        terms: One number per token, [T].
        mask: True marks a token that counts, [T].
        reduce: ``"mean"`` or ``"sum"``.

    Returns:
        The number; 0 if no token is marked.

    Raises:
        UnknownNameError: If there is no such reduction.
    """
    if reduce not in ("mean", "sum"):
        raise unknown_name("KL reduction", reduce, ("mean", "sum"))
    marked = terms[mask]
    if not marked.size:
        return 0.0
    return float(marked.mean() if reduce == "mean" else marked.sum())


def learning_rate_at(schedule: str, progress: float, start: float, end: float) -> float:
    """Return the learning rate at a share of the run.

    Args:
        schedule: ``"cosine"``, ``"linear"`` or ``"constant"``.
        progress: Share of the run that is done, in [0, 1].
        start: Rate at the beginning.
        end: Rate at the end; unused if constant.
    """
    if schedule == "constant":
        return start
    return cosine_learning_rate(progress, 1, start, end) if schedule == "cosine" else start + progress * (end - start)


def cosine_learning_rate(update: float, n_updates: float, start: float = 1e-5, end: float = 1e-9) -> float:
    """Return the learning rate of an update; it falls from ``start`` towards ``end`` and never rises again.

    Args:
        update: Index of the update, from 0.
        n_updates: Number of updates of the run, >= 1.
        start: Rate of update 0.
        end: Rate from update ``n_updates`` on.

    Returns:
        ``end + (start - end) / 2 * (1 + cos(pi * update / n_updates))``, clamped outside the run.
    """
    share = min(max(update / n_updates, 0.0), 1.0)
    return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * share))
