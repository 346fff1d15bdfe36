"""What a demonstrator of ALFWorld thinks and does, what a mistaken one gets wrong, and what tokenizers are told."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("alfworld")
pytest.importorskip("textworld")

from gtr_envs.alfworld.vocabulary import vocabulary
from gtr_envs.alfworld.wheel import TASK_TYPES
from gtr_envs.errors import OptionError
from gtr_envs.wrappers import TextAction

pytestmark = pytest.mark.alfworld


def household(**kwargs: Any) -> gym.Env[Any, Any]:
    return TextAction(gym.make("ALFWorld-v0", data="embedded", image_size=64, **kwargs))


def demonstrated(env: gym.Env[Any, Any], seed: int, *, mistaken: bool = False) -> tuple[bool, list[str], list[str]]:
    """Play a demonstration; returns whether it won, the thoughts and the actions."""
    _, info = env.reset(seed=seed)
    thoughts, actions = [], []
    for thought in env.unwrapped.demonstrate(np.random.default_rng(seed), mistaken=mistaken):  # type: ignore[attr-defined]
        assert thought.action in info["legal_actions"]
        assert thought.action in thought.words
        _, _, terminated, truncated, info = env.step(thought.action)
        thoughts.append(thought.plan)
        actions.append(thought.action)
        if terminated or truncated:
            break
    return bool(info.get("success")), thoughts, actions


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_a_demonstrator_that_looks_for_things_does_every_task(task_type: str) -> None:
    env = household(task_types=[task_type], games=2, max_steps=100)
    for seed in range(3):
        won, thoughts, actions = demonstrated(env, seed)
        assert won
        # What is wanted is either looked for, or a command that is carried out in the end.
        assert all(thought.startswith("find ") or thought in actions for thought in thoughts)
    env.close()


def test_a_mistaken_demonstrator_goes_wrong_in_several_ways() -> None:
    env = household(games=12, max_steps=100)
    results = [demonstrated(env, seed, mistaken=True) for seed in range(16)]
    assert not any(won for won, _, _ in results)
    assert any("move" in actions[-1] for _, _, actions in results if actions)
    assert len({tuple(actions) for _, _, actions in results}) > 8
    env.close()


def test_demonstrations_are_decided_by_seed_and_generator() -> None:
    env, other = household(games=12), household(games=12)
    assert [demonstrated(env, seed, mistaken=True) for seed in range(4)] == [
        demonstrated(other, seed, mistaken=True) for seed in range(4)
    ]
    env.close()
    other.close()


def test_a_demonstrator_mends_what_somebody_else_did_in_between() -> None:
    env, rng = household(games=12, max_steps=200), np.random.default_rng(0)
    for seed in range(4):
        _, info = env.reset(seed=seed)
        over = False
        for thought in env.unwrapped.demonstrate(rng):  # type: ignore[attr-defined]
            slip = rng.random() < 0.3
            action = str(rng.choice(info["legal_actions"])) if slip else thought.action
            _, _, terminated, truncated, info = env.step(action)
            over = terminated or truncated
            if over:
                break
        assert over
        assert info["success"], info["game"]
    env.close()


def test_few_games_are_drawn_when_few_are_asked_for() -> None:
    env = household(games=12, task_types=TASK_TYPES[:3])
    games = {env.reset(seed=seed)[1]["game"] for seed in range(60)}
    assert len(games) == 12
    assert {game.split("/")[2] for game in games} == set(TASK_TYPES[:3])
    env.close()
    with pytest.raises(OptionError, match="games"):
        household(games=2)


def test_the_places_are_listed_in_every_text_if_asked_for() -> None:
    env = household(places=True, history=-1)
    observation, info = env.reset(seed=3)
    listed = observation["text"].splitlines()[1]
    names = {command.removeprefix("go to ") for command in info["legal_actions"] if command.startswith("go to ")}
    told = set()
    for part in listed.removeprefix("Places: ").split(", "):
        kind, _, numbers = part.partition(" ")
        first, _, last = numbers.partition("-")
        told |= {f"{kind} {n}" for n in range(int(first), int(last or first) + 1)}
    assert names <= told
    assert len(told - names) <= 2  # where it stands there is nowhere to go
    observation = env.step(info["legal_actions"][0])[0]
    assert observation["text"].splitlines()[1] == listed
    env.close()


def test_the_vocabulary_covers_what_is_told_and_said() -> None:
    pieces = sorted(vocabulary(), key=len, reverse=True)
    assert len(set(pieces)) == len(pieces)
    env = household(places=True, history=-1)
    for seed in range(6):
        observation, info = env.reset(seed=seed)
        for thought in env.unwrapped.demonstrate(np.random.default_rng(0)):  # type: ignore[attr-defined]
            for text in (observation["text"], thought.plan, thought.action):
                rest = text
                while rest:
                    piece = next((piece for piece in pieces if rest.startswith(piece)), None)
                    assert piece is not None, rest
                    rest = rest.removeprefix(piece)
            observation, _, terminated, truncated, info = env.step(thought.action)
            if terminated or truncated:
                break
    env.close()
