"""Baselines from several episodes of the same task: what the other attempts achieved from the same state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gtr_agents.types import Trajectory

State = tuple[int, str]
"""A state within a task: the seed of the task, and the text observation."""


def returns_to_go(rewards: Sequence[float], gamma: float, bootstrap_value: float = 0.0) -> NDArray[np.float64]:
    """Discounted sum of what follows each step, this step's reward included; float64 [N]."""
    result = np.empty(len(rewards))
    following = bootstrap_value
    for t in reversed(range(len(rewards))):
        following = rewards[t] + gamma * following
        result[t] = following
    return result


def tree_advantages(
    trajectories: Sequence[Trajectory], *, gamma: float = 1.0, prior_weight: float = 1.0
) -> list[NDArray[np.float64]]:
    """Compare each step with the other episodes that passed through the same state.

    Episodes of one seed are attempts at the same task. They share their first state, and often more: the same text
    observation means the same state, so the attempts form a tree. The value of a state is the mean return-to-go of the
    *other* attempts that came through it (leave-one-out, so the baseline does not depend on the step's own outcome),
    shrunk towards the value of the state before it where few came through::

        v(s_t) = (sum of others' returns-to-go from s_t + w * v(s_{t-1})) / (number of others + w)

    Credit falls where attempts part: after a decision that cannot be mended all attempts fail alike and nothing is
    blamed. A task on which all attempts agree gives 0 everywhere, and so does one with a single attempt. The idea is
    that of GiGPO's anchor states (arXiv 2505.10978), with shrinkage instead of a sum of two levels.

    Args:
        trajectories: complete episodes, several per seed; their steps carry all three rewards.
        gamma: discount, in [0, 1].
        prior_weight: w, how many attempts the value of the parent state counts for; > 0.

    Returns:
        For each trajectory its advantages before normalisation, float64 [N].
    """
    to_go = [
        returns_to_go([s.reward + s.format_reward + s.guidance_reward for s in t.steps], gamma, t.bootstrap_value)
        for t in trajectories
    ]
    total, count = _sums(trajectories, to_go)
    advantages = []
    for trajectory, returns in zip(trajectories, to_go, strict=True):
        own_total, own_count = _sums([trajectory], [returns])  # an attempt may come back to a state
        baseline, weight, result = 0.0, 0.0, np.zeros(len(returns))
        for t, (step, value) in enumerate(zip(trajectory.steps, returns, strict=True)):
            state = (trajectory.seed, step.prompt.text)
            others = count[state] - own_count[state]
            if others + weight > 0:
                baseline = (total[state] - own_total[state] + weight * baseline) / (others + weight)
                result[t] = value - baseline
                weight = prior_weight
        advantages.append(result)
    return advantages


def _sums(
    trajectories: Sequence[Trajectory], to_go: Sequence[NDArray[np.float64]]
) -> tuple[dict[State, float], dict[State, int]]:
    """Add up the returns-to-go from every state, and count its visits."""
    total: dict[State, float] = defaultdict(float)
    count: dict[State, int] = defaultdict(int)
    for trajectory, returns in zip(trajectories, to_go, strict=True):
        for step, value in zip(trajectory.steps, returns, strict=True):
            total[trajectory.seed, step.prompt.text] += value
            count[trajectory.seed, step.prompt.text] += 1
    return total, count
