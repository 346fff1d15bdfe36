"""A random and a perfect player at Points24, and a picture of the table. Needs the core package only, no torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import gtr_envs  # noqa: F401 - importing it registers the environments
from gtr_envs.wrappers import TextAction
from gtr_envs.wrappers.pictures import png_bytes


def play(env: gym.Env[Any, Any], seed: int, rng: np.random.Generator | None = None) -> tuple[str, float]:
    """Play one hand: at random among the legal actions if a generator is given, else as the expert.

    Args:
        env: takes actions as text.
        seed: picks the hand.
        rng: source of the random player's choices.

    Returns:
        What was played, and the sum of the rewards.
    """
    expert: Any = env.unwrapped
    _, info = env.reset(seed=seed)
    played: list[str] = []
    total, over = 0.0, False
    while not over:
        action = expert.expert_action() if rng is None else str(rng.choice(info["legal_actions"]))
        _, reward, terminated, truncated, info = env.step(action)
        played.append(action)
        total += float(reward)
        over = terminated or truncated
    return "".join(played), total


def main() -> None:
    """Play one hand twice and save how the table looked at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=7, help="picks the hand (default: 7)")
    seed = parser.parse_args().seed
    env = TextAction(gym.make("Points24-v0", deal="solvable", render_mode="rgb_array"))
    _, info = env.reset(seed=seed)
    print("cards:          ", *info["cards"])
    print("random player:   {}   return {:+.0f}".format(*play(env, seed=seed, rng=np.random.default_rng(0))))
    print("perfect player:  {}   return {:+.0f}".format(*play(env, seed=seed)))

    frame: Any = env.render()
    Path("points24.png").write_bytes(png_bytes(frame))
    print("saved points24.png")
    env.close()


if __name__ == "__main__":
    main()
