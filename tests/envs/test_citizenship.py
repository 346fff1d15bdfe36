"""Minari keeps what the expert plays, in every registered environment; and no id escapes the tests over the registry.

Gymnasium's checker runs in test_contract.py and test_gym_cards.py, PettingZoo's tests in test_duel.py, and the checker
of Stable-Baselines3 in test_image_only_sb3.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from gtr_envs.core import OBSERVE
from gtr_envs.registration import COMPAT_ENVS, ENVS, HOUSEHOLD_ENVS

SEEDS = range(3)


def test_every_id_of_the_package_stands_in_a_table_that_the_tests_go_through() -> None:
    ours = {env_id for env_id, spec in gym.registry.items() if str(spec.entry_point).startswith("gtr_envs.")}
    assert ours == {*ENVS, *HOUSEHOLD_ENVS, *COMPAT_ENVS}


def play_expert(env: gym.Env[Any, Any], seed: int) -> dict[str, Any]:
    """Play an episode as the expert, and return it in columns as Minari names them."""
    expert: Any = env.unwrapped
    observation, _ = env.reset(seed=seed)
    observations: dict[str, list[Any]] = {name: [part] for name, part in observation.items()}
    episode: dict[str, list[Any]] = {"actions": [], "rewards": [], "terminations": [], "truncations": []}
    over = False
    while not over:
        # Where nothing wins any more, as in a game of chance, it goes on with something legal.
        action = expert.action_from_text(expert.expert_action() or expert.legal_actions[0])
        observation, *step, _ = env.step(action)
        for name, part in observation.items():
            observations[name].append(part)
        for column, entry in zip(episode.values(), (action, *step), strict=True):
            column.append(entry)
        over = step[1] or step[2]
    return {"observations": observations, **episode}


def assert_same_episode(kept: Any, played: dict[str, Any]) -> None:
    """Compare an episode of a dataset with the one that was played, value by value."""
    for name in ("actions", "rewards", "terminations", "truncations"):
        assert list(getattr(kept, name)) == played[name], name
    assert kept.observations.keys() == played["observations"].keys()
    for name, column in played["observations"].items():
        assert len(kept.observations[name]) == len(column) == len(kept) + 1
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(column, kept.observations[name], strict=True))


# Minari asks for an author and more of that kind, which a test has not.
@pytest.mark.filterwarnings("ignore:.* is set to None:UserWarning")
@pytest.mark.parametrize("observe", OBSERVE)
@pytest.mark.parametrize("env_id", ENVS)
def test_minari_keeps_the_episodes_of_an_expert_unchanged(
    env_id: str, observe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari")
    buffers = pytest.importorskip("minari.data_collector")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = gym.make(env_id, image_size=64, observe=observe)
    played = [play_expert(env, seed) for seed in SEEDS]
    minari.create_dataset_from_buffers(
        "cards/expert-v0",
        [buffers.EpisodeBuffer(id=i, seed=seed, **played[i]) for i, seed in enumerate(SEEDS)],
        env=env,
        # Minari's default makes JPEGs of the pictures, which are smaller and not the same.
        jpeg_encoding=False,
    )

    dataset = minari.load_dataset("cards/expert-v0")
    assert dataset.observation_space == env.observation_space
    assert dataset.action_space == env.action_space
    again = dataset.recover_environment()
    assert again.spec == env.spec
    assert len(dataset) == len(SEEDS)
    for seed, kept, expected in zip(SEEDS, dataset.iterate_episodes(), played, strict=True):
        assert_same_episode(kept, expected)
        assert_same_episode(kept, play_expert(again, seed))
