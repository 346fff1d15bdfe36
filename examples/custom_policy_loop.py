"""An agent of your own: what it needs to know of the environments, and how its success is measured. No torch.

The agent here is a dreamer: when it sees a hand it imagines a number of random formulas without brackets, and plays one
that makes 24 if there is any among them. Put your model where ``plan`` is.
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import numpy as np

import gtr_envs  # noqa: F401 - importing it registers the environments
from gtr_envs.cards.formula import evaluate
from gtr_envs.wrappers import TextAction

FIRST_SEED = 2_000_000  # reset seeds from here on are kept for tests; the same hands for every agent


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


def success_rate(ideas: int, n_hands: int) -> float:
    """Play fixed hands.

    Args:
        ideas: how many formulas the agent imagines.
        n_hands: how many hands it plays.

    Returns:
        The share that was won.
    """
    env = TextAction(gym.make("Points24-v0", image_size=96))
    rng = np.random.default_rng(0)
    won = 0
    for seed in range(FIRST_SEED, FIRST_SEED + n_hands):
        _, info = env.reset(seed=seed)
        for action in plan(info["numbers"], rng, ideas):
            _, _, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                break
        won += info["success"]
    env.close()
    return won / n_hands


def main() -> None:
    """Measure agents with more and less imagination."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hands", type=int, default=300, help="how many hands are played (default: 300)")
    n_hands = parser.parse_args().hands
    for ideas in (1, 10, 100):
        print(f"{ideas:4} ideas: wins {success_rate(ideas, n_hands):.1%} of {n_hands} hands")


if __name__ == "__main__":
    main()
