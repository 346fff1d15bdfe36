"""How rewards become advantages: GAE over one trajectory, normalisation over a rollout.

A trajectory ends at its last step and says what follows by its bootstrap value (0 after a termination,
V(next) after a truncation or a cut), so no mask is needed and nothing can leak into the next episode. All
arithmetic is in float64.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gtr_agents.types import Trajectory

Float64Array = NDArray[np.float64]
Placement = Literal["reward", "advantage"]


def gae(
    rewards: ArrayLike, values: ArrayLike, bootstrap_value: float, *, gamma: float = 0.9, lam: float = 0.95
) -> tuple[Float64Array, Float64Array]:
    """Compute generalised advantage estimates of one trajectory (arXiv 1506.02438, eq. 16).

    Args:
        rewards: Reward of every step, [N].
        values: V of the state each step was taken in, [N].
        bootstrap_value: V of the state after the last step: exactly 0 if the last step terminated the
            episode.
        gamma: Discount, in [0, 1].
        lam: GAE lambda, in [0, 1].

    Returns:
        Advantages before normalisation and value targets, both float64 [N].

    Raises:
        ValueError: If rewards and values differ in length.
    """
    reward = np.asarray(rewards, dtype=np.float64)
    value = np.asarray(values, dtype=np.float64)
    if reward.shape != value.shape or reward.ndim != 1:
        raise ValueError(f"expected one reward and one value per step, got shapes {reward.shape} and {value.shape}")
    delta = reward + gamma * np.append(value[1:], bootstrap_value) - value
    advantages = np.zeros_like(delta)
    following = 0.0
    for t in reversed(range(len(delta))):
        following = delta[t] + gamma * lam * following
        advantages[t] = following
    return advantages, advantages + value


def trajectory_advantages(
    trajectory: Trajectory, *, gamma: float = 0.9, lam: float = 0.95, placement: Placement = "reward"
) -> tuple[Float64Array, Float64Array]:
    """Compute advantages and value targets of a trajectory from its three kinds of reward.

    Args:
        trajectory: Its steps carry ``reward``, ``format_reward``, ``guidance_reward`` and the predicted
            value.
        gamma: Discount, in [0, 1].
        lam: GAE lambda, in [0, 1].
        placement: Where the guidance enters: ``"reward"`` before GAE (GTR-Turbo, Algorithm 2),
            ``"advantage"`` onto the advantage only, not into the value target (the displayed equation of the
            paper).

    Returns:
        Advantages before normalisation and value targets, both float64 [N].

    Raises:
        ValueError: If the placement is neither of the two.
    """
    if placement not in ("reward", "advantage"):
        raise ValueError(f"expected placement 'reward' or 'advantage', got {placement!r}")
    steps = trajectory.steps
    rewards = np.array([step.reward + step.format_reward for step in steps], dtype=np.float64)
    guidance = np.array([step.guidance_reward for step in steps], dtype=np.float64)
    values = [step.response.value for step in steps]
    shaped = rewards + guidance if placement == "reward" else rewards
    advantages, returns = gae(shaped, values, trajectory.bootstrap_value, gamma=gamma, lam=lam)
    return (advantages, returns) if placement == "reward" else (advantages + guidance, returns)


def normalise(advantages: ArrayLike, eps: float = 1e-5) -> Float64Array:
    """Shift and scale advantages over a whole rollout to mean 0 and standard deviation 1.

    Args:
        advantages: Raw advantages of all steps of the rollout, [N].
        eps: Added to the standard deviation.

    Returns:
        Normalised advantages, float64 [N], with the n-1 standard deviation; zeros if there are fewer than two
        steps.
    """
    value = np.asarray(advantages, dtype=np.float64)
    if value.size < 2:
        return np.zeros_like(value)
    result: Float64Array = (value - value.mean()) / (value.std(ddof=1) + eps)
    return result
