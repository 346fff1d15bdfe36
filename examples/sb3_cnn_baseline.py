"""A stock PPO of Stable-Baselines3 with a CNN learns NumberLine-v0 from pixels.

Needs `pip install "gtr-suite[agents]"`, which brings Stable-Baselines3 and torch. What to expect: the default 10 240
steps take about half a minute on one core, and 72 to 89 % of the test episodes are then played without a wrong move
(three seeds; 27 % at random). `--steps 20480` gave 98 to 100 %. `benchmarks/sb3_number_line.py` measures with care.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

import gtr_envs  # noqa: F401 - importing it registers the environments
from gtr_envs.wrappers import ImageOnly

TEST_SEEDS = 2_000_000  # reset seeds from here on are kept for tests
# Episodes are short and rewards come at once, so that the future counts little and many small updates pay.
SETTINGS: dict[str, Any] = {
    "n_steps": 128,
    "batch_size": 256,
    "n_epochs": 4,
    "learning_rate": 5e-4,
    "gamma": 0.9,
    "ent_coef": 0.01,
}


def make_env() -> gym.Env[Any, Any]:
    """Make the environment as Stable-Baselines3 takes it: a picture, uint8 [84, 84, 3], and nothing else."""
    return ImageOnly(gym.make("NumberLine-v0", image_size=84))


def measure(act: Callable[[Any], int], n_episodes: int) -> tuple[float, float]:
    """Play test episodes.

    Args:
        act: Picture to action.
        n_episodes: How many, one per seed.

    Returns:
        Share of episodes that reached the target, and share that did so without a wrong move. Only the second one
        needs reading: going one way, and turning round when punished, always arrives.
    """
    env = make_env()
    reached, clean = [], []
    for seed in range(TEST_SEEDS, TEST_SEEDS + n_episodes):
        picture, info = env.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            picture, reward, terminated, truncated, info = env.step(act(picture))
            total += float(reward)
            over = terminated or truncated
        reached.append(info["success"])
        clean.append(total == 1)
    return float(np.mean(reached)), float(np.mean(clean))


def main() -> None:
    """Measure, learn, measure again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_240, help="environment steps of training (default: 10240)")
    parser.add_argument("--episodes", type=int, default=200, help="episodes of each evaluation (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the network and of training (default: 0)")
    arguments = parser.parse_args()

    rng = np.random.default_rng(arguments.seed)
    reached, clean = measure(lambda _picture: int(rng.integers(2)), arguments.episodes)
    print(f"at random:            target reached {reached:6.1%}, without a wrong move {clean:6.1%}")

    vector = make_vec_env(make_env, n_envs=8, seed=arguments.seed)
    model = PPO("CnnPolicy", vector, seed=arguments.seed, device="cpu", **SETTINGS)
    model.learn(arguments.steps)

    reached, clean = measure(lambda picture: int(model.predict(picture, deterministic=True)[0]), arguments.episodes)
    print(f"after {model.num_timesteps:6} steps:   target reached {reached:6.1%}, without a wrong move {clean:6.1%}")


if __name__ == "__main__":
    main()
