"""The environments in your own research: fixed hands, many games at once, and the protocol of a paper. No torch.

An experiment has to say on which hands it was measured, and what counted as a success. Four short functions show how:
splits by seed, splits by difficulty, a batch of environments, and the protocols of three papers. The player is an
expert who now and then slips; put your model where ``careless`` is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

import gtr_envs  # noqa: F401 - importing it registers the environments
from gtr_envs.cards.difficulty import BANDS
from gtr_envs.wrappers import PROTOCOLS, Curriculum, Protocol, TextAction

Env = gym.Env[Any, Any]
Player = Callable[[Env, Any], Any]

# Everybody trains on reset seeds below 1 000 000, tunes from there on, and reports from 2 000 000 on.
TEST_SEEDS = 2_000_000


def careless(mistake_rate: float, seed: int = 0) -> Player:
    """Make a player that slips now and then.

    Args:
        mistake_rate: Probability of a random action, also an illegal one, instead of the expert's.
        seed: Of the player's own randomness; the environment's generator belongs to the environment.

    Returns:
        The player: environment and observation to the index of an action.
    """
    rng = np.random.default_rng(seed)

    def act(env: Env, _observation: Any) -> int:
        # A model looks at observation["image"], uint8 [H, W, 3], and observation["text"]; this player looks behind
        # the cards.
        game: Any = env.unwrapped
        best = game.expert_action()
        if best is None or rng.random() < mistake_rate:
            return int(rng.integers(len(game.action_tokens)))
        return int(game.action_tokens.index(best))

    return act


def success_rate(env: Env, seeds: Iterable[int], player: Player) -> float:
    """Play one episode per seed: Gymnasium's usual loop.

    Args:
        env: What is played.
        seeds: Reset seeds; the same seed is the same hand, on every machine.
        player: Chooses the actions.

    Returns:
        Share of episodes that were a success.
    """
    wins = []
    for seed in seeds:
        observation, info = env.reset(seed=seed)
        over = False
        while not over:
            observation, _reward, terminated, truncated, info = env.step(player(env, observation))
            over = terminated or truncated
        wins.append(info["success"])
    return float(np.mean(wins))


def by_seed(mistake_rate: float, episodes: int) -> None:
    """The ordinary deal, of which 26.9 % cannot be won by anybody."""
    env = gym.make("Points24-v0", image_size=64)
    _, info = env.reset(seed=TEST_SEEDS)
    print("info tells:", ", ".join(sorted(info)))
    rate = success_rate(env, range(TEST_SEEDS, TEST_SEEDS + episodes), careless(mistake_rate))
    print(f"test seeds:        {rate:6.1%} of {episodes} hands")


def by_difficulty(mistake_rate: float, episodes: int) -> None:
    """Hands of one band, whose numbers never come in the training split: does the skill carry over?"""
    for band in BANDS:
        if band != "impossible":
            env = Curriculum(gym.make("Points24-v0", image_size=64), band, split="test")
            print(f"  {band:16} {success_rate(env, range(episodes), careless(mistake_rate)):6.1%}")


def in_a_batch(n_envs: int, n_steps: int) -> None:
    """Step many environments at once with random legal actions, and count what was played."""
    vector = gym.make_vec(
        "Points24-v0",
        num_envs=n_envs,
        # For Points24 there is a faster batch that plays alike: vectorization_mode="vector_entry_point", with
        # autoreset_mode=AutoresetMode.DISABLED as an argument of its own.
        vectorization_mode="sync",
        # Gymnasium's default mode spends a step without an action on every reset; here no step is lost.
        vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED},
        image_size=64,
    )
    rng = np.random.default_rng(0)
    observations, infos = vector.reset(seed=0)
    n_episodes = 0
    for _ in range(n_steps):
        # One mask per environment, int8 [n_envs, n_actions]: noise makes the choice, illegal actions are out of it.
        actions = np.where(infos["action_mask"] == 1, rng.random(infos["action_mask"].shape), -1).argmax(axis=1)
        observations, _rewards, terminated, truncated, infos = vector.step(actions)
        over = terminated | truncated
        if over.any():
            n_episodes += int(over.sum())
            observations, fresh = vector.reset(options={"reset_mask": over})
            infos["action_mask"] = np.where(over[:, None], fresh["action_mask"], infos["action_mask"])
    print(f"in a batch:        {n_envs} games at once, pictures {observations['image'].shape}, {n_episodes} finished")
    vector.close()


def by_protocol(mistake_rate: float, episodes: int) -> None:
    """The same player on the same hands, counted as in three papers: published rates do not compare as they stand."""
    for name, switches in PROTOCOLS.items():
        env = Protocol(TextAction(gym.make("Points24-v0", image_size=64)), **switches)
        player = careless(mistake_rate)

        def speak(env: Env, observation: Any, player: Player = player) -> str:
            """Say the action: these protocols also judge the form of what a model says."""
            game: Any = env.unwrapped
            return str(game.action_tokens[player(env, observation)])

        print(f"  {name:16} {success_rate(env, range(TEST_SEEDS, TEST_SEEDS + episodes), speak):6.1%}")


def main() -> None:
    """Measure a player in every way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mistake-rate", type=float, default=0.05, help="how often the player slips (default: 0.05)")
    parser.add_argument("--episodes", type=int, default=100, help="hands of each measurement (default: 100)")
    arguments = parser.parse_args()
    by_seed(arguments.mistake_rate, arguments.episodes)
    print("by difficulty, test split:")
    by_difficulty(arguments.mistake_rate, arguments.episodes)
    in_a_batch(n_envs=8, n_steps=100)
    print("by the protocol of a paper, test seeds:")
    by_protocol(arguments.mistake_rate, arguments.episodes)


if __name__ == "__main__":
    main()
