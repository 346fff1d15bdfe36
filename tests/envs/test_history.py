"""Earlier steps in the text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from gtr_envs.cards.points24 import Points24Env
from gtr_envs.core import IllegalText
from gtr_envs.errors import InvalidActionError, OptionError
from gtr_envs.wrappers import History, ImageOnly, TextAction

HAND = {"numbers": [6, 6, 6, 6]}
ABOVE: Callable[..., Any] = lambda **kwargs: History(TextAction(Points24Env(image_size=64)), **kwargs)  # noqa: E731
BELOW: Callable[..., Any] = lambda **kwargs: TextAction(History(Points24Env(image_size=64), **kwargs))  # noqa: E731


@pytest.mark.parametrize("make", [ABOVE, BELOW])
def test_the_last_steps_stand_before_the_text_in_the_documented_form(make: Callable[..., Any]) -> None:
    env = make(k=2)
    assert env.reset(seed=0, options=HAND)[0]["text"] == "Now: "
    texts = [env.step(token)[0]["text"] for token in ("(", "6", "nonsense", "*")]
    assert texts == [
        "Before: \nAction: (\nNow: (",
        "Before: \nAction: (\nBefore: (\nAction: 6\nNow: (6",
        "Before: (\nAction: 6\nBefore: (6\nAction: nonsense\nNow: (6",
        "Before: (6\nAction: nonsense\nBefore: (6\nAction: *\nNow: (6*",
    ]


def test_indices_are_written_by_their_names() -> None:
    env = History(gym.make("Points24-v0", image_size=64), k=1)
    env.reset(seed=0, options=HAND)
    assert env.step(14)[0]["text"] == "Before: \nAction: (\nNow: ("
    assert env.step(env.action_space.sample(env.unwrapped.action_mask))[0]["text"].startswith("Before: (\n")  # type: ignore[attr-defined]
    assert env.step(IllegalText("seven"))[0]["text"].splitlines()[1] == "Action: seven"


def test_a_reset_forgets_the_last_episode() -> None:
    env = ABOVE()
    env.reset(seed=0, options=HAND)
    env.step("6")
    assert env.reset()[0]["text"] == "Now: "
    assert env.step("(")[0]["text"] == "Before: \nAction: (\nNow: ("


def test_a_refused_action_is_not_remembered() -> None:
    env = History(Points24Env(image_size=64))
    env.reset(seed=0)
    with pytest.raises(InvalidActionError):
        env.step(99)
    assert env.step(14)[0]["text"] == "Before: \nAction: (\nNow: ("


def test_an_action_cannot_look_like_another_line_and_is_cut_when_too_long() -> None:
    env = ABOVE(k=1, action_length=12)
    env.reset(seed=0)
    assert env.step("x\nNow: 24")[0]["text"] == "Before: \nAction: x Now: 24\nNow: "
    assert env.step("\N{SNOWMAN}\t6")[0]["text"] == "Before: \nAction: ??6\nNow: "
    assert env.step("1234567890123")[0]["text"] == "Before: \nAction: 123456789...\nNow: "
    assert env.step("123456789012")[0]["text"] == "Before: \nAction: 123456789012\nNow: "


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(4, 30),
    st.booleans(),
    st.lists(st.text(max_size=80) | st.sampled_from([*"(6+-*/)", "10"]), max_size=25),
)
def test_the_text_space_contains_every_text(k: int, action_length: int, above: bool, texts: list[str]) -> None:
    env = (ABOVE if above else BELOW)(k=k, action_length=action_length)
    observation, _ = env.reset(seed=0, options=HAND)
    assert env.observation_space.contains(observation)
    for text in texts:
        observation, _, terminated, truncated, _ = env.step(text)
        assert env.observation_space.contains(observation)
        if terminated or truncated:
            return


def test_the_longest_text_just_fits() -> None:
    env = ABOVE(k=3, action_length=10)
    longest = 3 * (len("Before: \n") + 42 + len("Action: \n") + 10) + len("Now: ") + 42
    assert env.observation_space["text"].max_length == longest


def test_other_characters_of_the_inner_space_are_kept() -> None:
    class AccentedEnv(Points24Env):
        __doc__ = Points24Env.__doc__

        def __init__(self) -> None:
            super().__init__(image_size=64)
            text = gym.spaces.Text(50, min_length=0, charset="é")
            self.observation_space = gym.spaces.Dict({**self.observation_space.spaces, "text": text})

        def _text(self) -> str:
            return "é"

    env = History(AccentedEnv())
    assert env.reset(seed=0)[0]["text"] == "Now: é"
    assert env.observation_space.contains(env.step(14)[0])


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # that the checked environment is wrapped, which is the point
def test_gymnasium_accepts_the_wrapper() -> None:
    check_env(History(Points24Env(image_size=64)), skip_render_check=True)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_history_survives_vector_environments(asynchronous: bool) -> None:
    makers = [ABOVE, BELOW]
    vector = AsyncVectorEnv(makers, shared_memory=False) if asynchronous else SyncVectorEnv(makers)
    assert vector.reset(seed=0, options=HAND)[0]["text"] == ("Now: ", "Now: ")
    assert vector.step(("(", "nonsense"))[0]["text"] == (
        "Before: \nAction: (\nNow: (",
        "Before: \nAction: nonsense\nNow: ",
    )
    vector.close()


def test_unusable_arguments_and_environments_are_refused() -> None:
    with pytest.raises(OptionError, match="k as a whole number of at least 1, got 0"):
        ABOVE(k=0)
    with pytest.raises(OptionError, match="action_length as a whole number of at least 4, got True"):
        ABOVE(action_length=True)
    for env in (gym.make("CartPole-v1"), ImageOnly(Points24Env(image_size=64))):
        with pytest.raises(TypeError, match="text under 'text'"):
            History(env)
