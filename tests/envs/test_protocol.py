"""The protocols of the papers around one and the same game."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import pytest

import gtr_envs  # noqa: F401 - registers the environments
from gtr_envs.errors import OptionError, ResetNeededError, UnknownNameError
from gtr_envs.wrappers import PROTOCOLS, Protocol, TextAction

SIXES = {"numbers": [6, 6, 6, 6]}
WIN = ["6", "+", "6", "+", "6", "+", "6", "="]


def _game(env_id: str = "Points24-v0", **switches: Any) -> Any:
    return Protocol(TextAction(gym.make(env_id, image_size=64)), **switches)


def _play(env: Any, actions: list[str], **reset: Any) -> tuple[list[float], tuple[bool, bool], dict[str, Any]]:
    env.reset(**reset)
    rewards, ends, info = [], (False, False), {}
    for action in actions:
        _, reward, terminated, truncated, info = env.step(action)
        rewards.append(reward)
        ends = (terminated, truncated)
        if any(ends):
            break
    return rewards, ends, info


def test_without_switches_nothing_changes() -> None:
    rewards, ends, info = _play(_game(), ["1", *WIN], options=SIXES)
    assert rewards == [-1, 0, 0, 0, 0, 0, 0, 0, 10]
    assert ends == (True, False)
    assert (info["success"], info["won"]) == (True, True)
    assert "early_stop" not in info
    assert "format_reward" not in info


@pytest.mark.parametrize("early_stop", ["penalty", "hopeless"])
def test_a_penalty_cuts_the_episode(early_stop: str) -> None:
    env = _game(early_stop=early_stop)
    rewards, ends, info = _play(env, ["6", "+", "1", "6"], options=SIXES)
    assert rewards == [0, 0, -1]
    assert ends == (False, True)
    assert (info["early_stop"], info["success"]) == ("penalty", False)
    with pytest.raises(ResetNeededError, match="the protocol has cut it"):
        env.step("6")
    assert _play(env, WIN, options=SIXES)[1:][0] == (True, False)


def test_a_hopeless_formula_is_stopped_at_the_token_that_makes_it_so() -> None:
    rewards, ends, info = _play(_game(early_stop="hopeless"), ["6", "/", "6", "+"], options=SIXES)
    assert rewards == [0, -1]
    assert ends == (False, True)
    assert info["early_stop"] == "hopeless"
    rewards, ends, info = _play(_game(early_stop="penalty"), ["6", "/", "6", "+"], options=SIXES)
    assert (rewards, ends) == ([0, 0, 0, 0], (False, False))


def test_any_winning_plan_may_be_followed_to_its_end() -> None:
    rewards, ends, info = _play(_game(early_stop="hopeless"), ["6", "*", "6", "-", "6", "-", "6", "="], options=SIXES)
    assert (sum(rewards), ends, info["success"]) == (10, (True, False), True)


def test_the_end_of_the_game_itself_is_no_early_stop() -> None:
    rewards, ends, info = _play(_game(early_stop="hopeless"), ["6", "="], options=SIXES)
    assert (rewards, ends) == ([0, -1], (True, False))
    assert "early_stop" not in info


@pytest.mark.parametrize(("n_illegal", "success"), [(9, True), (10, False)])
def test_by_return_nine_illegal_numbers_are_forgiven_and_ten_are_not(n_illegal: int, success: bool) -> None:
    _, _, info = _play(_game(success="return"), ["1"] * n_illegal + WIN, options=SIXES)
    assert (info["success"], info["won"]) == (success, True)


def test_by_return_one_wrong_move_on_the_number_line_is_a_failure_although_the_target_is_reached() -> None:
    env = _game("NumberLine-v0", success="return")
    _, ends, info = _play(env, ["-", "+", "+"], options={"current": 1, "target": 2})
    assert (ends, info["won"], info["success"]) == ((True, False), True, False)


def test_the_form_of_the_text_is_paid_for_and_told_apart() -> None:
    env = _game(format_reward=(3.0, -2.0), success="return")
    rewards, _, info = _play(env, ["6", "I append six", "1", *WIN[1:]], options=SIXES)
    assert rewards == [3, -3, 2, *[3] * 6, 13]
    assert info["format_reward"] == 3
    assert info["success"] is True
    rewards, _, info = _play(env, ["6", "="], options=SIXES)
    assert rewards == [3, 2]
    assert info["success"] is False  # the form alone is no success


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_paper_has_its_protocol(name: str) -> None:
    env = _game(**PROTOCOLS[name])
    rewards, ends, info = _play(env, ["1", *WIN], options=SIXES)
    form = PROTOCOLS[name].get("format_reward", (0.0, 0.0))[0]
    expected = {"rl4vlm": (9.0, True), "gtr": (-1.0 + form, False), "gtr-turbo": (-1.0 + form, False)}
    assert (sum(rewards), info["success"]) == expected[name]
    assert ends == ((True, False) if name == "rl4vlm" else (False, True))


def test_the_public_ids_can_be_counted_as_the_papers_do() -> None:
    env: Any = Protocol(gym.make("gym_cards/Points24-v0"), success="return", early_stop="penalty")
    env.reset(options={"cards": ["H6", "D6", "C6", "S6"]})
    _, reward, terminated, truncated, info = env.step(0)
    assert (reward, terminated, truncated, info["success"]) == (-1, False, True, False)
    assert "won" not in info


def test_the_wrapped_environment_is_a_proper_one() -> None:
    env = Protocol(gym.make("Points24-v0", image_size=64), early_stop="hopeless", success="return")
    assert env.spec is not None
    assert gym.make(env.spec).get_wrapper_attr("_early_stop") == "hopeless"


@pytest.mark.parametrize(
    ("switches", "error", "message"),
    [
        ({"early_stop": "penalti"}, UnknownNameError, r"Did you mean 'penalty'"),
        ({"success": "return > 0"}, UnknownNameError, r"expected one of \['return', 'won'\]"),
        ({"format_reward": 3}, OptionError, "two finite numbers"),
        ({"format_reward": (1, float("inf"))}, OptionError, "two finite numbers"),
    ],
)
def test_unusable_switches_are_refused(switches: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _game(**switches)


def test_switches_that_the_environment_cannot_serve_are_refused() -> None:
    with pytest.raises(TypeError, match="built on VisionTextEnv"):
        Protocol(gym.make("gym_cards/Points24-v0"), early_stop="hopeless")
    with pytest.raises(TypeError, match="use TextAction"):
        Protocol(gym.make("Points24-v0"), format_reward=(1, 0))
