"""Text as actions."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

import gtr_envs
from gtr_envs.cards.points24 import Points24Env
from gtr_envs.wrappers import TextAction


def make() -> TextAction:
    """A small Points24 with text actions."""
    return TextAction(gym.make("Points24-v0", image_size=64))


def test_a_name_plays_the_action_and_blanks_around_it_do_not_matter() -> None:
    env = make()
    env.reset(options={"numbers": [10, 1, 1, 1]})
    assert env.step(" 10\n")[0]["text"] == "10"


@pytest.mark.parametrize("text", ["", "seven", "11", "1 0", "=24", "\x00", "☃", "6 6", "(6)"])
def test_other_text_is_an_illegal_action(text: str) -> None:
    env = make()
    env.reset(options={"numbers": [6, 1, 1, 1]})
    observation, reward, terminated, truncated, info = env.step(text)
    assert (reward, terminated, truncated, info["legal"]) == (-1, False, False, False)
    assert observation["text"] == ""


def test_an_action_that_is_no_text_is_refused() -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(TypeError, match="expected an action as text, got 3"):
        env.step(3)  # type: ignore[arg-type]


def test_only_environments_with_named_actions_can_be_wrapped() -> None:
    with pytest.raises(TypeError, match="VisionTextEnv"):
        TextAction(gym.make("CartPole-v1"))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=5) | st.sampled_from([*"123456789+-*/()= ", "10", "**", "//"]), max_size=22))
def test_no_text_raises_or_pays_for_a_hopeless_hand(texts: list[str]) -> None:
    env = TextAction(Points24Env(image_size=64))
    env.reset(seed=0, options={"numbers": [1, 1, 1, 3]})
    for text in texts:
        _, reward, terminated, truncated, _ = env.step(text)
        assert reward <= 0
        if terminated or truncated:
            return


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # that the checked environment is wrapped, which is the point
def test_gymnasium_accepts_the_wrapper() -> None:
    check_env(TextAction(Points24Env(image_size=64)), skip_render_check=True)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_text_survives_vector_environments(asynchronous: bool) -> None:
    makers = [make, make]
    disabled = AutoresetMode.DISABLED
    vector = (
        AsyncVectorEnv(makers, shared_memory=False, autoreset_mode=disabled)
        if asynchronous
        else SyncVectorEnv(makers, autoreset_mode=disabled)
    )
    observation, _ = vector.reset(seed=0, options={"numbers": [6, 6, 6, 6]})
    assert observation["text"] == ("", "")
    observation, rewards, *_, info = vector.step(("(", "nonsense"))
    assert observation["text"] == ("(", "")
    assert rewards.tolist() == [0, -1]
    assert list(info["legal_actions"]) == [["6", "("], ["6", "("]]
    observation, _ = vector.reset(options={"reset_mask": np.array([True, False])})
    assert observation["text"][0] == ""
    vector.close()


def test_the_wrapper_is_found_from_the_package() -> None:
    assert gtr_envs.wrappers.TextAction is TextAction
