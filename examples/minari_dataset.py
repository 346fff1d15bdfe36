"""Write expert episodes as a dataset of Minari, load it, and look at it: offline data for imitation or offline RL.

Needs `pip install "gtr-suite[datasets]"`. Every episode keeps its seed, and the dataset knows its environment, so that
everything in it can be played again.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
from minari.data_collector import EpisodeBuffer

from gtr_envs.registration import ENVS


def record(env: gym.Env[Any, Any], seed: int, number: int) -> EpisodeBuffer:
    """Play one episode as the expert.

    Args:
        env: What is played; takes indices of actions.
        seed: Picks the episode.
        number: Which episode of the dataset this is.

    Returns:
        The episode in columns. There is one observation more than there are actions: the last one.
    """
    game: Any = env.unwrapped
    observation, _ = env.reset(seed=seed)
    observations = {name: [part] for name, part in observation.items()}
    actions, rewards, terminations, truncations = [], [], [], []
    over = False
    while not over:
        action = game.action_tokens.index(game.expert_action() or game.legal_actions[0])
        observation, reward, terminated, truncated, _ = env.step(action)
        for name, part in observation.items():
            observations[name].append(part)
        actions.append(action)
        rewards.append(float(reward))
        terminations.append(terminated)
        truncations.append(truncated)
        over = terminated or truncated
    # Minari's DataCollector does all this by itself, if you have jax: pip install "minari[create]".
    return EpisodeBuffer(number, seed, None, observations, actions, rewards, terminations, truncations)


def write(dataset_id: str, env_id: str, n_episodes: int) -> None:
    """Record episodes and write the dataset."""
    # Hands that cannot be won would end without an expert; they are dealt again where the game can.
    options: dict[str, Any] = {"deal": "solvable"} if env_id == "Points24-v0" else {}
    env = gym.make(env_id, image_size=96, **options)
    minari.create_dataset_from_buffers(
        dataset_id,
        [record(env, seed, number) for number, seed in enumerate(range(n_episodes))],
        env=env,
        eval_env=env,
        # Minari's default keeps JPEGs, which are smaller, but not the pictures that the player saw.
        jpeg_encoding=False,
        algorithm_name="expert",
        description=f"Episodes of the expert in {env_id}, reset seeds from 0 on.",
        author="you",
        author_email="you@example.org",
        code_permalink="https://example.org/minari_dataset.py",
        requirements=["gtr-suite"],
    )
    env.close()


def look(dataset_id: str) -> None:
    """Load a dataset, tell what is in it, and play its first episode again."""
    dataset = minari.load_dataset(dataset_id)
    print(f"{dataset_id}: {dataset.total_episodes} episodes, {dataset.total_steps} steps")
    env = dataset.recover_environment()
    game: Any = env.unwrapped
    episode = dataset[0]
    print("pictures:", episode.observations["image"].shape, "actions:", episode.actions.shape)
    seed = next(iter(dataset.storage.get_episode_metadata([0])))["seed"]
    env.reset(seed=seed)
    for t, action in enumerate(episode.actions):
        text, token = episode.observations["text"][t], game.action_tokens[action]
        observation, reward, *_ = env.step(action)
        same = (observation["image"] == episode.observations["image"][t + 1]).all()
        print(f"  {text!r:24} {token:>3}   reward {reward:+.0f}   {'as recorded' if same else 'NOT as recorded'}")
    env.close()


def main() -> None:
    """Write the dataset unless it is there, and look at it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", choices=ENVS, default="Points24-v0", help="what to play (default: Points24-v0)")
    parser.add_argument("--episodes", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--folder", type=Path, default=Path("datasets"), help="where to (default: datasets)")
    arguments = parser.parse_args()
    os.environ["MINARI_DATASETS_PATH"] = str(arguments.folder.resolve())
    dataset_id = f"gtr/{arguments.env.removesuffix('-v0').lower()}-expert-v0"
    if dataset_id in minari.list_local_datasets():
        print(f"{dataset_id} is there already; remove {arguments.folder} to record it anew")
    else:
        write(dataset_id, arguments.env, arguments.episodes)
    look(dataset_id)


if __name__ == "__main__":
    main()
