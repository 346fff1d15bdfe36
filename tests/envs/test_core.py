"""What every vision-text environment shares."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from gtr_envs.cards.points24 import Points24Env
from gtr_envs.core import IllegalText
from gtr_envs.errors import EnvironmentClosedError, InvalidActionError, ResetNeededError
from gtr_envs.spaces import text_space, vision_text_space


def test_the_observation_space_contains_every_observation() -> None:
    env = Points24Env(image_size=64)
    observation, info = env.reset(seed=0)
    while True:
        assert env.observation_space.contains(observation)
        observation, _, terminated, truncated, info = env.step(int(np.flatnonzero(info["action_mask"])[-1]))
        if terminated or truncated:
            break
    assert env.observation_space.contains(observation)


def test_the_text_space_holds_blanks_newlines_and_nothing() -> None:
    space = text_space(20)
    assert all(space.contains(text) for text in ("", "a b", "go to shelf 1\nlook", '{"x": 1}'))
    assert not space.contains("x" * 21)
    assert not space.contains("☃")


def test_the_vision_text_space_is_height_width_colour() -> None:
    image = vision_text_space(64, 5)["image"]
    assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8)


@pytest.mark.parametrize("action", [-1, 17, 99, 1.0, "=", None, [1]])
def test_an_action_outside_the_space_is_refused(action: object) -> None:
    env = Points24Env(image_size=64)
    env.reset(seed=0)
    with pytest.raises(InvalidActionError, match="action index from 0 to 16"):
        env.step(action)


@pytest.mark.parametrize("action", [14, np.int64(14), np.array(14)])
def test_whole_numbers_of_every_kind_are_actions(action: object) -> None:
    env = Points24Env(image_size=64)
    env.reset(seed=0)
    assert env.step(action)[0]["text"] == "("


def test_text_is_found_among_the_names_or_stays_text() -> None:
    env = Points24Env(image_size=64)
    assert [env.action_from_text(text) for text in ("1", "10", " = ")] == [0, 9, 16]
    assert env.action_from_text("eleven") == IllegalText("eleven")


def test_an_action_before_reset_or_after_the_end_is_refused() -> None:
    env = Points24Env(image_size=64)
    with pytest.raises(ResetNeededError, match="call reset"):
        env.step(0)
    env.reset(seed=0)
    env.step(16)
    with pytest.raises(ResetNeededError):
        env.step(0)
    env.reset()
    env.step(14)


def test_a_closed_environment_is_refused_and_closing_twice_is_allowed() -> None:
    env = Points24Env(image_size=64, render_mode="rgb_array")
    env.reset(seed=0)
    env.close()
    env.close()
    for call in (env.reset, env.render, lambda: env.step(0)):
        with pytest.raises(EnvironmentClosedError, match="make a new one"):
            call()


def test_rendering_needs_an_episode_and_a_mode() -> None:
    with pytest.raises(ResetNeededError):
        Points24Env(image_size=64, render_mode="rgb_array").render()
    env = Points24Env(image_size=64)
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="without a render mode"):
        assert env.render() is None


@pytest.mark.parametrize(("image_size", "render_size", "side"), [(96, None, 300), (400, None, 400), (96, 128, 128)])
def test_the_side_of_rendered_frames(image_size: int, render_size: int | None, side: int) -> None:
    env = Points24Env("rgb_array", image_size=image_size, render_size=render_size)
    assert env.reset(seed=0)[0]["image"].shape == (image_size, image_size, 3)
    frame = env.render()
    assert frame is not None
    assert frame.shape == (side, side, 3)


def test_pictures_are_independent_of_each_other() -> None:
    env = Points24Env(image_size=64)
    first = env.reset(seed=0)[0]["image"]
    kept = first.copy()
    first[...] = 0
    env.step(14)
    assert np.array_equal(env.reset(seed=0)[0]["image"], kept)


def test_the_window_follows_the_game() -> None:
    env = gym.make("Points24-v0", image_size=64, render_mode="human")
    env.reset(seed=0)
    env.step(14)
    assert env.render() is None
    env.close()


def test_an_end_after_an_episode_keeps_the_phase_of_a_new_reset() -> None:
    env = Points24Env(image_size=64)
    assert not env.is_running
    env.reset(seed=0)
    assert env.is_running
    env.step(16)
    assert not env.is_running
