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
    demonstrator: Any = env.unwrapped
    for thought in demonstrator.demonstrate(np.random.default_rng(seed), mistaken=mistaken):
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
        said = {" ".join(sorted(action.split())) for action in actions}
        assert all(
            t.endswith(": find") or " ".join(sorted(t.removeprefix("want ").replace(":", "").split())) in said
            for t in thoughts
        )
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


def test_notes_tell_what_is_here_what_is_carried_and_what_was_not_looked_into() -> None:
    env = household(notes=True)
    observation, info = env.reset(options={"game": "embedded/train/pick_and_place_simple/1"})
    unseen = noted(observation["text"])
    goable = {command.removeprefix("go to ") for command in info["legal_actions"] if command.startswith("go to ")}
    assert goable <= unseen
    for thought in env.unwrapped.demonstrate(np.random.default_rng(0)):  # type: ignore[attr-defined]
        observation, _, terminated, _, info = env.step(thought.action)
        lines = observation["text"].splitlines()
        assert [line.partition(":")[0] for line in lines] == ["Not seen", "Here", "Carrying", "Task"]
        verb, _, name = thought.action.partition(" ")
        if verb == "open":
            assert name in unseen
            assert name not in noted(observation["text"])
            assert f"{name} open: " in lines[1]
        elif verb == "take":
            assert lines[2] == f"Carrying: {name.partition(' from ')[0]}"
        assert noted(observation["text"]) <= unseen
        unseen = noted(observation["text"])
        if terminated:
            break
    assert info["success"]
    env.close()
    with pytest.raises(OptionError, match="scene_text"):
        household(notes=True, scene_text=False)


def noted(text: str) -> set[str]:
    """The receptacles that notes say were not looked into."""
    listed = text.splitlines()[0].removeprefix("Not seen: ")
    found = set()
    for part in listed.split(", ") if listed != "nothing" else ():
        kind, *numbers = part.split(" ")
        for some in numbers:
            first, _, last = some.partition("-")
            found |= {f"{kind} {n}" for n in range(int(first), int(last or first) + 1)}
    return found


def test_the_vocabulary_covers_what_is_told_and_said() -> None:
    pieces = sorted(vocabulary(), key=len, reverse=True)
    assert len(set(pieces)) == len(pieces)
    env = household(notes=True)
    for seed in range(6):
        observation, _ = env.reset(seed=seed)
        for thought in env.unwrapped.demonstrate(np.random.default_rng(0)):  # type: ignore[attr-defined]
            for text in (observation["text"], thought.plan, thought.action):
                rest = text
                while rest:
                    piece = next((piece for piece in pieces if rest.startswith(piece)), None)
                    assert piece is not None, rest
                    rest = rest.removeprefix(piece)
            observation, _, terminated, truncated, _ = env.step(thought.action)
            if terminated or truncated:
                break
    env.close()
