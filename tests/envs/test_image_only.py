"""Pictures without text."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from gtr_envs.cards.points24 import Points24Env
from gtr_envs.wrappers import ImageOnly, TextAction


def test_the_observation_is_the_picture_and_the_rest_is_untouched() -> None:
    plain, wrapped = gym.make("Points24-v0", image_size=64), ImageOnly(gym.make("Points24-v0", image_size=64))
    (seen, info), (picture, same_info) = plain.reset(seed=3), wrapped.reset(seed=3)
    assert np.array_equal(picture, seen["image"])
    assert info["cards"] == same_info["cards"]
    picture, reward, terminated, truncated, info = wrapped.step(16)
    assert np.array_equal(picture, plain.step(16)[0]["image"])
    assert (reward, terminated, truncated, info["success"]) == (-1, True, False, False)


def test_the_space_is_a_box_of_bytes_that_contains_the_pictures() -> None:
    env = ImageOnly(Points24Env(image_size=64))
    assert env.observation_space == spaces.Box(0, 255, (64, 64, 3), np.uint8)
    assert env.observation_space.contains(env.reset(seed=0)[0])


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # that the checked environment is wrapped, which is the point
def test_gymnasium_accepts_the_wrapper() -> None:
    check_env(ImageOnly(Points24Env(image_size=64)), skip_render_check=True)


def test_actions_can_still_be_texts() -> None:
    env = TextAction(ImageOnly(Points24Env(image_size=64)))
    env.reset(options={"numbers": [6, 6, 6, 6]})
    assert env.step("6")[4]["formula"] == ["6"]


def test_an_environment_without_pictures_is_refused() -> None:
    with pytest.raises(TypeError, match="picture under 'image'"):
        ImageOnly(gym.make("CartPole-v1"))
    with pytest.raises(TypeError, match="picture under 'image'"):
        ImageOnly(ImageOnly(Points24Env(image_size=64)))


def test_the_specification_survives_json() -> None:
    env = ImageOnly(gym.make("Points24-v0", image_size=64))
    assert env.spec is not None
    again = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert again.observation_space == env.observation_space
