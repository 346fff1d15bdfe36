"""An agent of your own: what it needs to know of the environments, and how its success is measured. No torch.

The agent here is a dreamer: when it sees a hand it imagines a number of random formulas without brackets, and plays one
that makes 24 if there is any among them. Put your model where ``plan`` is.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np

import gtr_envs  # noqa: F401 - importing it registers the environments
from gtr_envs.cards.formula import evaluate
from gtr_envs.wrappers import TextAction

HANDS = range(1_000, 1_300)  # seeds of the hands that are played; the same hands for every agent


def plan(numbers: list[int], rng: np.random.Generator, ideas: int) -> list[str]:
    """Decide how to play a hand.

    Args:
        numbers: the four numbers; a model that is to be measured reads them off the picture instead.
        rng: source of the agent's randomness.
        ideas: how many formulas it imagines.

    Returns:
        The actions of the whole episode, as text.
    """
    formula: list[str] = []
    for _ in range(ideas):
        operators = [*rng.choice(["+", "-", "*", "/"], size=3), ""]
        formula = [str(token) for pair in zip(rng.permutation(numbers), operators, strict=True) for token in pair][:-1]
        if evaluate(formula) == 24:
            break
    return [*formula, "="]


def success_rate(ideas: int) -> float:
    """Play the fixed hands and return the share that was won."""
    env = TextAction(gym.make("Points24-v0", image_size=96))
    rng = np.random.default_rng(0)
    won = 0
    for seed in HANDS:
        _, info = env.reset(seed=seed)
        for action in plan(info["numbers"], rng, ideas):
            _, _, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                break
        won += info["success"]
    env.close()
    return won / len(HANDS)


if __name__ == "__main__":
    for ideas in (1, 10, 100):
        print(f"{ideas:4} ideas: wins {success_rate(ideas):.1%} of {len(HANDS)} hands")
