"""What is observed: picture, text or both, of one and the same game."""

from __future__ import annotations

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import gtr_envs  # noqa: F401 - registers the environments
from gtr_envs.cards import duel
from gtr_envs.errors import OptionError, UnknownNameError
from gtr_envs.registration import ENVS
from gtr_envs.testing import check_vision_text_env


def _played(env_id: str, **kwargs: Any) -> list[Any]:
    """Everything an environment says in a seeded random walk over several episodes."""
    env, rng = gym.make(env_id, image_size=64, **kwargs), np.random.default_rng(4)
    said: list[Any] = [env.reset(seed=9)]
    for _ in range(60):
        said.append(env.step(int(rng.integers(env.action_space.n))))  # type: ignore[attr-defined]
        if said[-1][2] or said[-1][3]:
            said.append(env.reset())
    return said


def _told(said: list[Any]) -> list[str]:
    return [json.dumps(entry[1:], default=lambda value: value.tolist()) for entry in said]


@pytest.mark.parametrize("env_id", ENVS)
def test_the_game_is_the_same_whatever_is_observed(env_id: str) -> None:
    both, image, text = (_played(env_id, observe=observe) for observe in ("both", "image", "text"))
    assert _told(both) == _told(image) == _told(text)
    assert {frozenset(entry[0]) for entry in both} == {frozenset({"image", "text"})}
    assert {frozenset(entry[0]) for entry in image} == {frozenset({"image"})}
    assert {frozenset(entry[0]) for entry in text} == {frozenset({"text"})}
    for ours, theirs in zip(both, image, strict=True):
        assert np.array_equal(ours[0]["image"], theirs[0]["image"])


@pytest.mark.parametrize("env_id", ENVS)
@pytest.mark.parametrize("observe", ["image", "text"])
def test_the_contract_holds_for_half_of_the_observation(env_id: str, observe: str) -> None:
    check_vision_text_env(env_id, image_size=64, observe=observe)


@pytest.mark.parametrize("env_id", ENVS)
def test_states_that_look_different_read_different(env_id: str) -> None:
    pictures = [entry[0]["image"].tobytes() for entry in _played(env_id, observe="image")]
    texts = [entry[0]["text"] for entry in _played(env_id, observe="text")]
    assert len(set(texts)) >= len(set(pictures)) > 1
    assert len(set(zip(texts, pictures, strict=True))) == len(set(texts))


@pytest.mark.parametrize(
    ("env_id", "options", "actions", "text"),
    [
        ("Points24-v0", {"cards": ["HT", "D6", "CA", "S4"]}, ["(", "6"], "cards: HT D6 CA S4\nformula: (6"),
        ("EZPoints-v0", {"cards": ["HT", "D2"]}, ["10", "+"], "cards: HT D2\nformula: 10+"),
        ("NumberLine-v0", {"current": 1, "target": 4}, ["+"], "target: 4\ncurrent: 2\nmoves: +"),
        (
            "VisualBlackjack-v0",
            {"cards": {"dealer": ["HQ", "D4"], "player": ["CA", "CA"]}},
            [],
            "dealer: HQ ??\nplayer: CA CA\nmoves: ",
        ),
    ],
)
def test_the_text_tells_what_the_picture_shows(
    env_id: str, options: dict[str, Any], actions: list[str], text: str
) -> None:
    env: Any = gym.make(env_id, observe="text")
    said = env.reset(options=options)[0]["text"]
    for action in actions:
        said = env.step(env.unwrapped.action_from_text(action))[0]["text"]
    assert said == text
    assert "The text shows" in env.unwrapped.instructions


def test_the_hidden_card_of_the_dealer_is_told_at_the_end_only() -> None:
    env: Any = gym.make("VisualBlackjack-v0", observe="text")
    env.reset(seed=1, options={"cards": {"dealer": ["HQ", "D9"], "player": ["CK", "CA"]}})
    assert env.step(0)[0]["text"] == "dealer: HQ D9\nplayer: CK CA\nmoves: stand"


def test_the_longest_texts_fit_into_their_spaces() -> None:
    env: Any = gym.make("VisualBlackjack-v0", observe="text").unwrapped
    observation, _ = env.reset(options={"cards": {"dealer": ["CA", "CA"], "player": ["CA", "CA"]}})
    while env.is_running:
        observation = env.step(1)[0]
        assert observation in env.observation_space
    line: Any = gym.make("NumberLine-v0", observe="text", max_position=1000).unwrapped
    line.reset(options={"current": 1000, "target": 0})
    for _ in range(1999):
        observation = line.step(1)[0]
    assert observation in line.observation_space


@pytest.mark.parametrize("observe", ["both", "image", "text"])
def test_both_players_of_a_duel_observe_alike(observe: str) -> None:
    race = duel.parallel_env(observe=observe, image_size=64)
    observations, _ = race.reset(seed=1, options={"cards": ["HT", "D6", "CA", "S4"]})
    for agent, observation in observations.items():
        assert observation in race.observation_space(agent)
        assert set(observation) == ({"image", "text"} if observe == "both" else {observe})
    if observe == "text":
        assert observations["player_0"]["text"] == "cards: HT D6 CA S4\nme:  them: "


def test_an_unknown_kind_of_observation_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown observe: expected one of .*got 'pixels'"):
        gym.make("Points24-v0", observe="pixels")


@pytest.mark.parametrize("env_id", ENVS)
def test_an_unknown_argument_is_refused_with_the_nearest_one(env_id: str) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown argument: .*got 'imagesize'. Did you mean 'image_size'"):
        gym.make(env_id, imagesize=64)


@pytest.mark.parametrize("size", [63, 1025, 64.0, "64"])
def test_a_picture_has_sixty_four_to_a_thousand_and_twenty_four_pixels(size: Any) -> None:
    with pytest.raises(OptionError, match="image_size as a whole number from 64 to 1024"):
        gym.make("Points24-v0", image_size=size)


@pytest.mark.parametrize("env_id", ENVS)
@pytest.mark.parametrize("size", [64, 101, 1024])
def test_the_extreme_sizes_can_be_drawn(env_id: str, size: int) -> None:
    env = gym.make(env_id, image_size=size)
    assert env.reset(seed=1)[0]["image"].shape == (size, size, 3)
