"""Stable-Baselines3 takes the pictures; alone in its file, since importing it loads torch."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import pytest

from gtr_envs.registration import COMPAT_ENVS, ENVS
from gtr_envs.wrappers import ImageOnly


def check_without_warnings(env: gym.Env[Any, Any]) -> None:
    """Let Stable-Baselines3 check an environment; what it warns of is an error."""
    env_checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env_checker.check_env(env)


@pytest.mark.parametrize("env_id", ENVS)
def test_the_checker_of_stable_baselines_is_content_and_warns_of_nothing(env_id: str) -> None:
    check_without_warnings(ImageOnly(gym.make(env_id, image_size=64, render_mode="rgb_array")))


@pytest.mark.parametrize("env_id", COMPAT_ENVS)
def test_the_ids_of_the_public_package_are_pictures_without_a_wrapper(env_id: str) -> None:
    check_without_warnings(gym.make(env_id, render_mode="rgb_array"))


def test_a_cnn_policy_acts_on_the_pictures() -> None:
    ppo = pytest.importorskip("stable_baselines3").PPO
    env = ImageOnly(gym.make("Points24-v0", image_size=64))
    model = ppo("CnnPolicy", env, n_steps=4, batch_size=4, n_epochs=1, device="cpu").learn(4)
    action, _ = model.predict(env.reset(seed=0)[0])
    assert env.action_space.contains(action)
