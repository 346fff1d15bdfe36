"""Measures how many random steps Points24 makes a second on one core, beside a plain copy of the same bytes.

Run ``python benchmarks/points24_speed.py``; it prints one JSON object. Steps include resets, the wrappers that
``gymnasium.make`` adds, and the picture of every observation.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time

import gymnasium as gym
import numpy as np

import gtr_envs


def steps_per_second(image_size: int, n_steps: int, seed: int) -> float:
    """Play uniformly random actions.

    Args:
        image_size: Side of the picture in pixels.
        n_steps: How many steps to play.
        seed: Seed of the environment and of the actions.

    Returns:
        Steps a second, resets included.
    """
    env = gym.make("Points24-v0", image_size=image_size)
    env.reset(seed=seed)
    actions = np.random.default_rng(seed).integers(17, size=n_steps)
    begin = time.perf_counter()
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    return n_steps / (time.perf_counter() - begin)


def copies_per_second(image_size: int, n_copies: int) -> float:
    """Copy a picture of the same size, the least that handing out independent pictures can cost.

    Args:
        image_size: Side of the picture in pixels.
        n_copies: How many copies to make.

    Returns:
        Copies a second.
    """
    picture = np.zeros((image_size, image_size, 3), dtype=np.uint8)
    begin = time.perf_counter()
    for _ in range(n_copies):
        picture.copy()
    return n_copies / (time.perf_counter() - begin)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20_000, help="random steps a measurement")
    parser.add_argument("--repeats", type=int, default=3, help="measurements; the best one is reported")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    result: dict[str, object] = {
        "benchmark": "points24_speed",
        "version": gtr_envs.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "steps": options.steps,
    }
    for size in (300, 96):
        # Side by side: both are taken in the same second, so that a busy machine slows both.
        pairs = [
            (steps_per_second(size, options.steps, options.seed), copies_per_second(size, options.steps))
            for _ in range(options.repeats)
        ]
        result[f"steps_per_second_{size}px"] = round(max(steps for steps, _ in pairs))
        result[f"copies_per_second_{size}px"] = round(max(copies for _, copies in pairs))
    json.dump(result, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
