"""An expert does a household task of ALFWorld, and a GIF shows how. Nothing is downloaded.

Needs ``gtr-suite[alfworld,video]``.
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium as gym
import imageio.v3 as imageio

import gtr_envs  # noqa: F401 - importing it registers the environments
from gtr_envs.wrappers import TextAction


def main() -> None:
    """Play one game and write it as a GIF."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="which game")
    parser.add_argument("--out", default="household.gif", help="where the GIF goes")
    options = parser.parse_args()

    env: gym.Env[Any, Any] = TextAction(gym.make("ALFWorld-v0", data="embedded", split="valid_unseen"))
    household: Any = env.unwrapped
    observation, info = env.reset(seed=options.seed)
    print(info["task"])
    frames, over = [observation["image"]], False
    while not over:
        command = household.expert_action()
        observation, reward, terminated, truncated, _ = env.step(command)
        over = terminated or truncated
        frames.append(observation["image"])
        print(f"> {command:45} reward {reward:+.2f}")
    env.close()
    imageio.imwrite(options.out, frames, duration=900, loop=0)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
