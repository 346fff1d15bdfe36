"""The compatibility ids of the public package: its rules, deals, numbers and pictures, and what we do differently."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import time
import warnings
from collections import Counter
from fractions import Fraction
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from scipy.stats import chisquare

from gtr_envs.cards.gym_cards.blackjack import GymCardsBlackjackEnv, points
from gtr_envs.cards.gym_cards.expression import MAX_LENGTH, ExpressionError, TooLargeError, evaluate_text
from gtr_envs.cards.gym_cards.number_line import GymCardsNumberLineEnv
from gtr_envs.cards.gym_cards.points import GymCardsEZPointsEnv, GymCardsFormulaEnv, GymCardsPoints24Env
from gtr_envs.cards.solver import is_solvable, solve
from gtr_envs.errors import (
    EnvironmentClosedError,
    InvalidActionError,
    OptionError,
    ResetNeededError,
    UnknownNameError,
)
from gtr_envs.registration import COMPAT_ENVS, ENVS, register_envs
from gtr_envs.testing import HEADINGS

TERMINATED, TRUNCATED = (True, False), (False, True)
RANK_OF = {1: "A", 10: "T"}


NO_PICTURE = np.zeros((300, 300, 3), np.uint8)


class BlindPoints24(GymCardsPoints24Env):
    """The game without its pictures, for tests that look at the rules only and play many episodes."""

    def _draw(self) -> Any:
        return NO_PICTURE


class BlindEZPoints(GymCardsEZPointsEnv):
    """As above."""

    _draw = BlindPoints24._draw


class BlindNumberLine(GymCardsNumberLineEnv):
    """As above."""

    _draw = BlindPoints24._draw


def hand_of(numbers: list[int]) -> list[str]:
    """Names of hearts with the given values, at most 10."""
    return ["H" + RANK_OF.get(number, str(number)) for number in numbers]


def play(env: GymCardsFormulaEnv, numbers: str, tokens: str) -> tuple[list[Any], tuple[bool, bool], dict[str, Any]]:
    """Rewards, (terminated, truncated) and the last info of an episode that goes on until the last token."""
    _, info = env.reset(options={"cards": hand_of([int(number) for number in numbers.split()])})
    rewards, ending = [], (False, False)
    for token in tokens.split():
        assert ending == (False, False), f"{tokens} ended early"
        _, reward, *ends, info = env.step(env.action_tokens.index(token))
        ending = (ends[0], ends[1])
        rewards.append(reward)
    return rewards, ending, info


# --- every id ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", COMPAT_ENVS)
def test_gymnasium_is_content_and_warns_of_nothing(env_id: str) -> None:
    check_env(gym.make(env_id).unwrapped)


@pytest.mark.parametrize("env_id", COMPAT_ENVS)
def test_the_observation_is_a_picture_and_the_limit_is_the_published_one(env_id: str) -> None:
    env = gym.make(env_id)
    assert env.observation_space == spaces.Box(0, 255, (300, 300, 3), np.uint8)
    assert env.spec is not None
    assert (env.spec.max_episode_steps, env.spec.kwargs) == (300, {})


@pytest.mark.parametrize("env_id", COMPAT_ENVS)
def test_the_class_docstring_is_a_page(env_id: str) -> None:
    page = inspect.getdoc(type(gym.make(env_id).unwrapped)) or ""
    assert re.findall(r"^## (.+)$", page, flags=re.MULTILINE) == list(HEADINGS)


def walk(env_id: str, seed: int) -> list[Any]:
    """Everything that sixty seeded random actions make an environment say."""
    env = gym.make(env_id)
    env.action_space.seed(seed)
    said: list[Any] = [env.reset(seed=seed)]
    for _ in range(60):
        said.append(env.step(env.action_space.sample()))
        if said[-1][2] or said[-1][3]:
            said.append(env.reset())
    return said


@pytest.mark.parametrize("env_id", COMPAT_ENVS)
def test_the_seed_decides_everything(env_id: str) -> None:
    for ours, theirs in zip(walk(env_id, 4), walk(env_id, 4), strict=True):
        assert (ours[0] == theirs[0]).all()
        assert ours[1:] == theirs[1:]
    env = gym.make(env_id)
    assert len({str(env.reset(seed=seed)[1]) for seed in range(10)}) > 3


@pytest.mark.parametrize("env_id", COMPAT_ENVS)
def test_what_is_handed_out_stays_and_can_be_spoiled(env_id: str) -> None:
    env, untouched = gym.make(env_id), gym.make(env_id)
    (picture, info), _ = env.reset(seed=6), untouched.reset(seed=6)
    kept = copy.deepcopy(info)
    first = env.step(1)
    assert info == kept
    assert str(first[1:]) == str(untouched.step(1)[1:])
    for spoiled in (info, first[-1]):
        for value in spoiled.values():
            if isinstance(value, list):
                value.clear()
    picture[:] = first[0][:] = 0
    ours, theirs = (env.step(0), untouched.step(0)) if not first[2] else (env.reset(), untouched.reset())
    assert (ours[0] == theirs[0]).all()
    assert ours[1:] == theirs[1:]


@pytest.mark.parametrize("env_id", COMPAT_ENVS)
@pytest.mark.parametrize("action", [-1, 99, 0.5, "1", None, np.array([0])])
def test_an_action_outside_of_the_space_is_refused_with_the_names(env_id: str, action: Any) -> None:
    env = gym.make(env_id).unwrapped
    env.reset(seed=0)
    with pytest.raises(InvalidActionError, match=re.escape(repr(action))):
        env.step(action)


@pytest.mark.parametrize("env_id", COMPAT_ENVS)
def test_steps_out_of_order_are_refused(env_id: str) -> None:
    env = gym.make(env_id).unwrapped
    for call in (lambda: env.step(0), env.render):
        with pytest.raises(ResetNeededError, match="call reset"):
            call()
    env.reset(seed=0)
    while not any(env.step(env.action_space.n - 1)[2:4]):  # type: ignore[attr-defined]
        pass
    with pytest.raises(ResetNeededError, match="has ended"):
        env.step(0)
    env.close()
    env.close()
    for call in (lambda: env.step(0), env.reset, env.render):
        with pytest.raises(EnvironmentClosedError, match="make a new one"):
            call()


@pytest.mark.parametrize("env_id", COMPAT_ENVS)
def test_frames_are_returned_or_shown(env_id: str) -> None:
    env = gym.make(env_id, render_mode="rgb_array").unwrapped
    observation, _ = env.reset(seed=0)
    frame: Any = env.render()
    assert (frame == observation).all()
    shown = gym.make(env_id, render_mode="human").unwrapped
    shown.reset(seed=0)
    assert shown.render() is None
    twin = pickle.loads(pickle.dumps(shown))  # noqa: S301 - made on this line
    assert str(shown.step(1)[1:]) == str(twin.step(1)[1:])
    shown.close()
    twin.close()


@pytest.mark.parametrize("env_id", COMPAT_ENVS)
def test_unknown_names_are_refused(env_id: str) -> None:
    env_class: Any = type(gym.make(env_id).unwrapped)
    with pytest.raises(UnknownNameError, match="render_mode"):
        env_class(render_mode="ansi")
    with pytest.raises(UnknownNameError, match="reset option"):
        gym.make(env_id).reset(options={"card": []})


@pytest.mark.parametrize("env_id", COMPAT_ENVS)
def test_rendering_without_a_mode_is_warned_of(env_id: str) -> None:
    env = gym.make(env_id).unwrapped
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="without a render mode"):
        assert env.render() is None


@pytest.mark.parametrize("env_id", [*COMPAT_ENVS, *ENVS])
def test_an_id_that_is_registered_already_is_left_alone(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))
    monkeypatch.setattr(gym, "registry", gym.envs.registration.registry)
    del gym.registry[env_id]
    gym.register(env_id, "some.other.package:TheirEnv")
    register_envs()
    assert gym.registry[env_id].entry_point == "some.other.package:TheirEnv"


def test_the_public_package_replaces_ours_with_a_warning_and_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))
    monkeypatch.setattr(gym, "registry", gym.envs.registration.registry)
    for env_id in COMPAT_ENVS:
        with pytest.warns(UserWarning, match="Overriding environment gym_cards/"):
            gym.register(env_id, "gym_cards.envs:TheirEnv", max_episode_steps=300)
    register_envs()
    assert {gym.registry[env_id].entry_point for env_id in COMPAT_ENVS} == {"gym_cards.envs:TheirEnv"}


# --- the value of a text ----------------------------------------------------------------------------------------------


def python_value(text: str) -> Any:
    """What Python makes of a text; None if it raises or gives a tuple, which equals no number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the call of a number is warned of before it raises
        try:
            value = eval(text, {"__builtins__": {}})  # noqa: S307 - the published judge is what we compare with
        except Exception:  # noqa: BLE001 - the published judge catches everything
            return None
    return None if isinstance(value, tuple) else value


def our_value(text: str) -> Any:
    """What our reader makes of a text; None if it refuses, except for size."""
    try:
        return evaluate_text(text)
    except TooLargeError:
        raise
    except ExpressionError:
        return None


def same(left: Any, right: Any) -> bool:
    """Compare two values with their types, and floats with the sign of zero."""
    return type(left) is type(right) and (left == right if isinstance(left, int) else repr(left) == repr(right))


def random_tokens(rng: np.random.Generator) -> list[str]:
    """Up to 20 tokens of the game in any order."""
    vocabulary = [*map(str, range(1, 14)), *"+-*/()", " "]
    return [vocabulary[i] for i in rng.integers(len(vocabulary), size=rng.integers(1, 21))]


def plausible_tokens(rng: np.random.Generator, depth: int = 0) -> list[str]:
    """An expression as Python understands it, in which hardly anything is left out that the tokens allow."""
    kind = rng.integers(10 if depth < 3 else 3)
    if kind < 3:
        n_digits = 1 + int(rng.integers(8) == 0)
        return [str(number) for number in rng.integers(1, 11, size=n_digits)]
    if kind == 3:
        return ["+-"[rng.integers(2)], *plausible_tokens(rng, depth + 1)]
    if kind == 4:
        return ["(", *plausible_tokens(rng, depth + 1), ")"]
    if kind == 5:
        return [*plausible_tokens(rng, depth + 1), " ", *plausible_tokens(rng, depth + 1)]
    operator = [["+"], ["-"], ["*"], ["/"], ["*", "*"], ["/", "/"], [" ", "*", " "]][rng.integers(7)]
    return [*plausible_tokens(rng, depth + 1), *operator, *plausible_tokens(rng, depth + 1)]


def test_thirty_thousand_texts_have_the_value_that_python_gives() -> None:
    rng = np.random.default_rng(24)
    n_values = n_too_large = 0
    for i in range(30_000):
        text = "".join(plausible_tokens(rng) if i % 3 else random_tokens(rng))
        try:
            ours = our_value(text)
        except TooLargeError:
            n_too_large += 1  # not given to Python, which would not come back
            continue
        theirs = python_value(text)
        assert same(ours, theirs), text
        n_values += ours is not None
    assert n_values > 12_000
    assert n_too_large < 600


VALUES = [
    ("-2**2", -4),
    ("2**3**2", 512),
    ("2**-1", 0.5),
    ("2**-2**2", 0.0625),
    ("--2", 2),
    ("+-+2", -2),
    ("7//-2", -4),
    ("6/3", 2.0),
    ("9**9-9**9+24", 24),
    ("10**100//10**98", 100),
    ("(1-2)**10**9", 1),
    ("1**9**9", 1),
    (" 3*8", 24),
    ("3 * 8 ", 24),
    ("101+1", 102),
    ("8/(3-8/3)", 23.99999999999999),
    ("(-8)**(1/3)", (-8) ** (1 / 3)),
    ("(-1)**(1/2)*(-1)**(1/2)", (-1) ** (1 / 2) * (-1) ** (1 / 2)),
]


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_values_and_their_types(text: str, value: Any) -> None:
    assert same(evaluate_text(text), value)


NO_VALUES = [
    *("", " ", "+", "2 4", "* 2", "2* *3", "2/ /3", "2***3", "2///3", "2(3)", "(2)(3)", "2 (3)", "2()", "()"),
    *("(2", "2)", "(*2)", "1/0", "1//0", "(1-1)**-1", "10**309/1.0", "10**999/3", "2**10**3*(1/2)**-9999"),
    *("(-8)**(1/3)//2", "07", "2a", "2_0", "0x2", "\u0662", "1e3", "2;3", "2\n+3", "10**400**(1/1)"),
]


@pytest.mark.parametrize("text", NO_VALUES)
def test_texts_without_a_value(text: str) -> None:
    assert our_value(text) is None


@pytest.mark.parametrize(
    "text", ["9**9**9", "9**9**9**9", "-9**9**9", "10**10**10", "(10**99999)**99", "1" * (MAX_LENGTH + 1)]
)
def test_what_is_huge_is_refused_at_once(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(TooLargeError, match="expected"):
        evaluate_text(text)
    assert time.perf_counter() - start < 0.5


# --- the points games -------------------------------------------------------------------------------------------------

POINTS24 = [
    ("plain", "10 6 10 4", "( 6 * 4 ) + 10 - 10 =", [0] * 9 + [10], TERMINATED),
    ("plain sum", "6 6 6 6", "6 + 6 + 6 + 6 =", [0] * 7 + [10], TERMINATED),
    ("wrong value", "6 6 6 6", "6 + 6 + 6 - 6 =", [0] * 7 + [-1], TERMINATED),
    ("number missing", "1 2 3 4", "2 * 3 * 4 =", [0] * 5 + [-1], TERMINATED),
    ("empty", "1 2 3 4", "=", [-1], TERMINATED),
    ("overflow", "1 2 3 4", "( " * 21 + "(", [0] * 21 + [-1], TRUNCATED),
    ("overflow by the end", "1 2 3 4", "( " * 21 + "=", [0] * 21 + [-1], TRUNCATED),
    ("overflow by an illegal number", "1 2 3 4", "( " * 21 + "9", [0] * 21 + [-1], TRUNCATED),
    ("last place", "1 2 3 4", "( " * 20 + "=", [0] * 20 + [-1], TERMINATED),
    ("leading blanks", "10 6 10 4", "3 3 ( 6 * 4 ) + 10 - 10 =", [-1, -1] + [0] * 9 + [10], TERMINATED),
    ("blank between", "10 6 10 4", "6 3 * 4 + 10 - 10 =", [0, -1] + [0] * 6 + [10], TERMINATED),
    ("float, exact enough", "1 5 5 5", "( 5 - 1 / 5 ) * 5 =", [0] * 9 + [10], TERMINATED),
    ("float rounding", "3 3 8 8", "8 / ( 3 - 8 / 3 ) =", [0] * 9 + [-1], TERMINATED),
    ("float rounding, one form", "1 4 5 6", "4 / ( 1 - 5 / 6 ) =", [0] * 9 + [-1], TERMINATED),
    ("digits join", "2 4 1 1", "2 4 * 1 * 1 =", [0] * 6 + [10], TERMINATED),
    ("digits join, unsolvable", "1 1 1 3", "1 1 + 1 3 =", [0] * 5 + [10], TERMINATED),
    ("ten joins", "10 1 7 7", "10 1 - 7 * 7 =", [0] * 6 + [-1], TERMINATED),
    ("blank between digits", "2 4 1 1", "2 9 4 * 1 * 1 =", [0, -1, 0, 0, 0, 0, 0, -1], TERMINATED),
    ("blank between times signs", "5 2 1 1", "5 * 9 * 2 - 1 * 1 =", [0, 0, -1, 0, 0, 0, 0, 0, 0, -1], TERMINATED),
    ("blank between divisions", "3 3 8 8", "3 * 8 + 3 / 9 / 8 =", [0] * 6 + [-1, 0, 0, -1], TERMINATED),
    ("power", "5 2 1 1", "5 * * 2 - 1 * 1 =", [0] * 8 + [10], TERMINATED),
    ("floor division", "10 5 2 1", "10 * 5 / / 2 - 1 =", [0] * 8 + [10], TERMINATED),
    ("floor division to score", "3 3 8 8", "3 * 8 + 3 / / 8 =", [0] * 8 + [10], TERMINATED),
    ("unary sign", "4 6 1 1", "- 4 * 6 * - 1 * 1 =", [0] * 9 + [10], TERMINATED),
    ("bracket as a call", "1 2 3 4", "2 ( 3 ) * 4 * 1 =", [0] * 8 + [-1], TERMINATED),
    ("towers of powers", "9 9 9 10", "9 * * 9 * * 9 + 10 =", [0] * 9 + [-1], TERMINATED),
    ("division by zero", "6 6 1 1", "6 / ( 1 - 1 ) + 6 =", [0] * 9 + [-1], TERMINATED),
]


@pytest.mark.parametrize(
    ("hand", "tokens", "rewards", "ending"), [row[1:] for row in POINTS24], ids=[row[0] for row in POINTS24]
)
def test_golden_episodes_of_points24(hand: str, tokens: str, rewards: list[int], ending: tuple[bool, bool]) -> None:
    paid, ended, info = play(GymCardsPoints24Env(), hand, tokens)
    assert (paid, ended) == (rewards, ending)
    assert {type(reward) for reward in paid} == {int}
    assert all(type(entry) is int or entry in {*"+-*/() "} for entry in info["Formula"])
    assert len(info["Formula"]) == len(paid) - 1  # neither the end nor an action on a full formula is appended


EZPOINTS = [
    ("10 2", "10 + 2 =", [0, 0, 0, 10], TERMINATED),
    ("10 2", "+ 10 + 2 =", [0, 0, 0, 0, 10], TERMINATED),
    ("10 2", "10 + + 2 =", [0, 0, 0, 0, 10], TERMINATED),
    ("3 9", "1 1 3 + 9 =", [-1, -1, 0, 0, 0, 10], TERMINATED),
    ("3 9", "1 1 1 3 + 9 =", [-1, -1, -1, 0, 0, 0, -1], TRUNCATED),
    ("3 9", "9 9 3 =", [0, -1, 0, -1], TERMINATED),
    ("3 4", "3 * 4 =", [0, 0, 0, 10], TERMINATED),
    ("6 6", "6 =", [0, -1], TERMINATED),
    ("2 6", "+ + + + + + 2", [0, 0, 0, 0, 0, 0, -1], TRUNCATED),
]


@pytest.mark.parametrize(("hand", "tokens", "rewards", "ending"), EZPOINTS)
def test_golden_episodes_of_ezpoints(hand: str, tokens: str, rewards: list[int], ending: tuple[bool, bool]) -> None:
    paid, ended, _ = play(GymCardsEZPointsEnv(), hand, tokens)
    assert (paid, ended) == (rewards, ending)
    assert {type(reward) for reward in paid} == {int}


def test_the_tokens_are_in_the_published_order() -> None:
    tens, ranks = [*map(str, range(1, 11))], [*map(str, range(1, 14))]
    assert GymCardsPoints24Env().action_tokens == (*tens, "+", "-", "*", "/", "(", ")", "=")
    assert GymCardsPoints24Env(treat_face_cards_as_10=False).action_tokens == (
        *ranks,
        "+",
        "-",
        "*",
        "/",
        "(",
        ")",
        "=",
    )
    assert GymCardsEZPointsEnv().action_tokens == (*tens, "+", "*", "=")


def test_the_info_has_the_published_keys_and_types() -> None:
    env = GymCardsPoints24Env()
    _, info = env.reset(options={"cards": ["HT", "DA", "SQ", "C4"]})
    assert info == {"Cards": ["HT", "DA", "SQ", "C4"], "Numbers": [10, 1, 10, 4], "Formula": []}
    for token in ("10", "+", "8"):
        info = env.step(env.action_tokens.index(token))[-1]
    assert info["Formula"] == [10, "+", " "]
    ranks = GymCardsPoints24Env(treat_face_cards_as_10=False)
    assert ranks.reset(options={"cards": ["HT", "DA", "SQ", "CK"]})[1]["Numbers"] == [10, 1, 12, 13]


def test_the_target_can_be_chosen_and_the_deal_stays() -> None:
    assert play(GymCardsPoints24Env(target_points=10), "1 2 3 4", "1 + 2 + 3 + 4 =")[0][-1] == 10
    assert play(GymCardsEZPointsEnv(target_points=24), "10 2", "10 + 2 =")[0][-1] == -1
    for make in (GymCardsPoints24Env, GymCardsEZPointsEnv):
        with pytest.raises(OptionError, match="target_points as a number"):
            make(target_points="24")  # type: ignore[arg-type]


BAD_HANDS = [["H2"], "H2DT", None, ["H2", "D3", "X4", "S5"], ["H2", "D3", "C0", "S5"], {"H2": 1}]


@pytest.mark.parametrize("cards", BAD_HANDS, ids=str)
@pytest.mark.parametrize("env_id", [env_id for env_id in COMPAT_ENVS if "NumberLine" not in env_id])
def test_a_hand_that_cannot_be_laid_is_refused(env_id: str, cards: Any) -> None:
    with pytest.raises(OptionError, match="cards"):
        gym.make(env_id).reset(options={"cards": cards})


def published_step(formula: list[Any], numbers: list[int], token: str, max_tokens: int, target: int) -> Any:
    """The published rules written down once more, with Python as the judge; changes the formula."""
    if len(formula) > max_tokens - 1:
        return -1, False, True
    if token.isdigit():
        number = int(token)
        legal = formula.count(number) < numbers.count(number)
        formula.append(number if legal else " ")
        return (0 if legal else -1), False, False
    if token != "=":
        formula.append(token)
        return 0, False, False
    text = "".join(map(str, formula))
    n_used = len([entry for entry in formula if isinstance(entry, int)])
    return (10 if n_used == len(numbers) and python_value(text) == target else -1), True, False


def attempt(rng: np.random.Generator, numbers: list[int], vocabulary: tuple[str, ...]) -> list[str]:
    """A solution or the hand in some order with operators between, now and then disturbed, ``=`` at the end."""
    operators = [token for token in vocabulary if token in {"+", "-", "*", "/"}]
    solutions = (
        solve(sorted(numbers), 24 if len(numbers) == 4 else 12, operators=operators) if rng.random() < 0.2 else []
    )
    if solutions:
        tokens = list(solutions[rng.integers(len(solutions))])
    else:
        tokens = []
        for number in rng.permutation(numbers):
            tokens += [str(number), *rng.choice(operators, size=rng.choice(4, p=[0.15, 0.65, 0.15, 0.05]))]
        tokens = tokens[: -1 if rng.random() < 0.8 else None]
    for _ in range(rng.integers(3)):
        tokens.insert(int(rng.integers(len(tokens) + 1)), vocabulary[rng.integers(len(vocabulary) - 1)])
    return [*tokens, "="]


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("make", "n_cards", "max_tokens", "target"), [(BlindPoints24, 4, 21, 24), (BlindEZPoints, 2, 6, 12)]
)
def test_ten_thousand_episodes_go_as_published(make: Any, n_cards: int, max_tokens: int, target: int) -> None:
    rng = np.random.default_rng(12)
    env = make()
    n_won = n_truncated = 0
    for i in range(10_000):
        numbers = [int(number) for number in rng.integers(1, 11, size=n_cards)]
        env.reset(options={"cards": hand_of(numbers)})
        tokens = (
            attempt(rng, numbers, env.action_tokens) if i % 5 else list(rng.choice(env.action_tokens[:-1], size=22))
        )
        if "".join(tokens).count("**") > 1:
            continue  # Python might not come back from a tower of powers
        formula: list[Any] = []
        for token in tokens:
            expected = published_step(formula, numbers, token, max_tokens, target)
            _, reward, terminated, truncated, info = env.step(env.action_tokens.index(token))
            assert (reward, terminated, truncated, info["Formula"]) == (*expected, formula), (numbers, tokens)
            if terminated or truncated:
                break
        n_won += reward == 10
        n_truncated += truncated
    assert n_won > 200
    assert n_truncated > 1000


def test_joined_digits_win_an_unsolvable_hand() -> None:
    assert not is_solvable([1, 1, 1, 3], 24)
    assert play(GymCardsPoints24Env(), "1 1 1 3", "1 1 + 1 3 =")[0][-1] == 10


# --- deals ------------------------------------------------------------------------------------------------------------

N_DEALS = 200_000


def deals(env: Any) -> list[dict[str, Any]]:
    """Infos of many deals."""
    env.reset(seed=0)
    return [env.reset()[1] for _ in range(N_DEALS)]


def assert_fits(counts: Counter[Any], probabilities: dict[Any, Fraction]) -> None:
    """Check counts against exact probabilities; with a fixed seed the outcome is always the same."""
    assert sum(probabilities.values()) == 1
    assert set(counts) <= set(probabilities)
    n = counts.total()
    assert chisquare([counts[k] for k in probabilities], [float(n * p) for p in probabilities.values()]).pvalue > 0.01


@pytest.mark.no_cover
def test_points24_deals_uniform_and_independent_cards() -> None:
    infos = deals(BlindPoints24())
    cards = {suit + rank: Fraction(1, 52) for suit in "CDHS" for rank in "A23456789TJQK"}
    for place in range(4):
        assert_fits(Counter(info["Cards"][place] for info in infos), cards)
    pairs = {(a, b): Fraction(1, 169) for a in "A23456789TJQK" for b in "A23456789TJQK"}
    assert_fits(Counter((info["Cards"][0][1], info["Cards"][3][1]) for info in infos), pairs)
    solvable = sum(is_solvable(sorted(info["Numbers"]), 24) for info in infos[:20_000]) / 20_000
    assert solvable == pytest.approx(20876 / 28561, abs=0.01)


EZ_PAIRS = {
    (2, 10): Fraction(3, 8),
    (5, 7): Fraction(1, 6),
    (3, 9): Fraction(1, 8),
    (4, 8): Fraction(1, 8),
    (2, 6): Fraction(1, 12),
    (3, 4): Fraction(1, 12),
    (6, 6): Fraction(1, 24),
}


@pytest.mark.no_cover
def test_ezpoints_deals_its_pairs_with_the_published_probabilities() -> None:
    infos = deals(BlindEZPoints())
    assert_fits(Counter(tuple(sorted(info["Numbers"])) for info in infos), EZ_PAIRS)
    swapped = Counter(info["Numbers"][0] == 2 for info in infos if 2 in info["Numbers"])
    assert_fits(swapped, {True: Fraction(1, 2), False: Fraction(1, 2)})
    assert_fits(Counter(info["Cards"][0][0] for info in infos), {suit: Fraction(1, 4) for suit in "CDHS"})
    faces = Counter(sum(name[1] in "JQK" for name in info["Cards"]) for info in infos)
    assert_fits(faces, {0: Fraction(3, 4), 1: Fraction(1, 4)})


@pytest.mark.no_cover
def test_the_number_line_deals_its_pairs_with_the_published_skew() -> None:
    twice = {(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (5, 1)}
    pairs = {(c, t): Fraction(2 if (c, t) in twice else 1, 36) for c in range(6) for t in range(6) if c != t}
    infos = deals(BlindNumberLine())
    assert_fits(Counter((info["Current"], info["Target"]) for info in infos), pairs)


@pytest.mark.no_cover
def test_blackjack_deals_from_an_infinite_deck_without_a_pip_ten() -> None:
    infos = deals(GymCardsBlackjackEnv(is_pixel=False))
    hands = [info["Dealer Card"] + info["Player Card"] for info in infos]
    values = {value: Fraction(4 if value == 10 else 1, 13) for value in range(1, 11)}
    for place in range(4):
        assert_fits(Counter(hand[place][0] for hand in hands), values)
        assert_fits(Counter(hand[place][2] for hand in hands), {suit: Fraction(1, 4) for suit in "CDHS"})
    cards = [card for hand in hands for card in hand]
    assert_fits(Counter(face for value, face, _ in cards if value == 10), {face: Fraction(1, 3) for face in "JQK"})
    assert {(value, face) for value, face, _ in cards if value < 10} == {(1, "A"), *((n, str(n)) for n in range(2, 10))}


# --- the number line --------------------------------------------------------------------------------------------------


def line(current: int, target: int, actions: list[int]) -> list[tuple[Any, ...]]:
    """Reward, terminated, truncated and current number of every step."""
    env = GymCardsNumberLineEnv()
    env.reset(options={"current": current, "target": target})
    return [(*step[1:4], step[4]["Current"]) for step in map(env.step, actions)]


def test_golden_episodes_of_the_number_line() -> None:
    wrong = line(4, 2, [1] * 10)
    assert wrong == [(-1, False, False, 5)] * 9 + [(-1, False, True, 5)]
    assert line(4, 2, [0, 0]) == [(0, False, False, 3), (1, True, False, 2)]
    assert line(0, 3, [0, 1, 1]) == [(-1, False, False, 0), (0, False, False, 1), (0, False, False, 2)]
    assert type(wrong[0][0]) is int


def test_success_at_the_last_step_is_no_truncation_and_a_truncated_step_keeps_its_reward() -> None:
    assert line(0, 2, [0] * 8 + [1, 1])[-1] == (1, True, False, 2)
    assert line(0, 2, [0] * 9 + [1])[-1] == (0, False, True, 1)


def test_the_info_of_the_number_line_tells_both_numbers() -> None:
    env = GymCardsNumberLineEnv(max_position=9)
    assert env.reset(options={"current": 9, "target": 0})[1] == {"Target": 0, "Current": 9}


def test_a_line_of_two_numbers_begins_on_the_target_in_a_quarter_of_the_deals() -> None:
    env = BlindNumberLine(max_position=1)
    env.reset(seed=0)
    starts = Counter((info["Current"], info["Target"]) for info in (env.reset()[1] for _ in range(2000)))
    assert starts[0, 0] / 2000 == pytest.approx(1 / 4, abs=0.04)
    assert starts[1, 1] == 0
    while env.reset()[1] != {"Target": 0, "Current": 0}:
        pass
    assert env.step(0)[1:4] == (1, True, False)


@pytest.mark.parametrize("max_position", [0, -1, 2.0, True, "5"])
def test_a_line_without_numbers_is_refused(max_position: Any) -> None:
    with pytest.raises(OptionError, match="max_position as a whole number"):
        GymCardsNumberLineEnv(max_position=max_position)


@pytest.mark.parametrize(
    "options", [{"current": 1}, {"target": 1}, {"current": 1, "target": 6}, {"current": -1, "target": 2}]
)
def test_numbers_outside_of_the_line_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="whole numbers from 0 to 5"):
        GymCardsNumberLineEnv().reset(options=options)


def test_equal_numbers_are_refused() -> None:
    with pytest.raises(OptionError, match="different numbers"):
        GymCardsNumberLineEnv().reset(options={"current": 3, "target": 3})


# --- blackjack --------------------------------------------------------------------------------------------------------


def names(cards: list[tuple[int, str, str]]) -> str:
    """Suit first, as in the golden table."""
    return " ".join(suit + face for _, face, suit in cards)


BLACKJACK = [
    (0, "HQ D4", "CA CA", 1.0, "HQ D4 HQ", 0.0, "HQ"),
    (1, "H7 SJ", "S2 CJ", -1.0, "H7 SJ", 0.0, "D6"),
    (2, "DJ D4", "DJ H5", 1.0, "DJ D4 CK", -1.0, "CK"),
    (3, "CJ C4", "SQ CA", 1.0, "CJ C4 D9", 0.0, "D9"),
    (4, "SK S7", "SJ H6", -1.0, "SK S7", -1.0, "S9"),
]


@pytest.mark.parametrize("is_pixel", [True, False])
@pytest.mark.parametrize(("seed", "dealer", "player", "stand", "dealt", "hit", "card"), BLACKJACK)
def test_the_golden_random_stream_of_blackjack(
    seed: int, dealer: str, player: str, stand: float, dealt: str, hit: float, card: str, is_pixel: bool
) -> None:
    env = GymCardsBlackjackEnv(is_pixel=is_pixel)
    _, info = env.reset(seed=seed)
    assert (names(info["Dealer Card"]), names(info["Player Card"])) == (dealer, player)
    _, reward, *ending, info = env.step(0)
    assert (reward, ending, names(info["Dealer Card"])) == (stand, [True, False], dealt)
    assert type(reward) is float
    env.reset(seed=seed)
    _, reward, *ending, info = env.step(1)
    assert (reward, ending, names(info["Player Card"])) == (hit, [hit < 0, False], f"{player} {card}")
    assert type(reward) is float


def test_a_card_is_a_tuple_of_value_face_and_suit() -> None:
    _, info = GymCardsBlackjackEnv().reset(options={"cards": ["HQ", "D4", "CA", "C9"]})
    assert info == {"Dealer Card": [(10, "Q", "H"), (4, "4", "D")], "Player Card": [(1, "A", "C"), (9, "9", "C")]}
    assert [type(part) for part in info["Dealer Card"][0]] == [int, str, str]


def test_a_pip_ten_is_refused() -> None:
    with pytest.raises(OptionError, match="a ten is a jack, queen or king"):
        GymCardsBlackjackEnv().reset(options={"cards": ["HT", "D4", "CA", "C9"]})


STANDS = [
    ("HQ D9 CQ D9", 0.0),
    ("HQ D9 CQ DK", 1.0),
    ("HQ D9 CQ D8", -1.0),
    ("HA D6 CQ D8", 1.0),  # the dealer stands on a soft 17
    ("HA D6 CQ D6", -1.0),
    ("HA DQ CA DQ", 0.0),
]


@pytest.mark.parametrize(("cards", "reward"), STANDS)
@pytest.mark.parametrize("kwargs", [{}, {"natural": True}, {"sab": True}, {"natural": True, "sab": True}])
def test_standing_compares_points_and_the_dead_options_stay_dead(
    cards: str, reward: float, kwargs: dict[str, bool]
) -> None:
    env = GymCardsBlackjackEnv(**kwargs)
    env.reset(seed=0, options={"cards": cards.split()})
    _, paid, terminated, truncated, info = env.step(0)
    assert (paid, terminated, truncated) == (reward, True, False)
    assert len(info["Dealer Card"]) == 2


@pytest.mark.parametrize("kwargs", [{"natural": True}, {"sab": True}])
def test_a_natural_is_worth_no_more_than_a_win(kwargs: dict[str, bool]) -> None:
    env = GymCardsBlackjackEnv(**kwargs)
    env.reset(options={"cards": ["HQ", "D9", "CA", "DQ"]})
    assert env.step(0)[1] == 1.0


def test_points_of_hands_with_aces() -> None:
    ace, six, ten = (1, "A", "C"), (6, "6", "C"), (10, "K", "C")
    hands = {(ace, six): 17, (ace, ace): 12, (ace, six, ten): 17, (ace, ten): 21, (ace, ten, ten): 21, (ten, ten): 20}
    assert {hand: points(hand) for hand in hands} == hands


def test_the_symbolic_observation_never_tells_a_usable_ace() -> None:
    env = GymCardsBlackjackEnv(is_pixel=False)
    assert env.observation_space == spaces.Tuple((spaces.Discrete(32), spaces.Discrete(11), spaces.Discrete(2)))
    observation, _ = env.reset(options={"cards": ["HA", "D9", "CA", "D7"]})
    assert observation == (18, 1, 0)
    check_env(gym.make("gym_cards/Blackjack-v0", is_pixel=False).unwrapped)


# --- pictures ---------------------------------------------------------------------------------------------------------


def colors(frame: Any, left: int, top: int, width: int, height: int) -> set[tuple[int, ...]]:
    """Colours inside a rectangle."""
    return set(map(tuple, frame[top : top + height, left : left + width].reshape(-1, 3).tolist()))


TABLE, PAPER = (53, 101, 77), (252, 252, 248)


def test_cards_of_the_points_games_lie_where_they_lay() -> None:
    for env, width, height, lefts, top in (
        (GymCardsPoints24Env(), 67, 93, (5, 78, 152, 226), 103),
        (GymCardsEZPointsEnv(), 135, 189, (5, 153), 55),
    ):
        frame, _ = env.reset(seed=3)
        for left in lefts:
            inside = frame[top + height // 2, [left + 2, left + width - 3]]
            assert (inside == PAPER).all()
            outside = frame[[top - 1, top + height, top + height // 2], [left + 30, left + 30, left - 1]]
            assert (outside == TABLE).all()
            assert tuple(frame[top, left]) == TABLE  # round corners
        assert (frame[:top] == TABLE).all()


def test_the_formula_is_written_where_it_was_and_never_leaves_the_frame() -> None:
    env = GymCardsPoints24Env()
    frame, _ = env.reset(seed=3)
    assert colors(frame, 0, 235, 300, 65) == {TABLE}
    assert (255, 255, 255) in colors(frame, 10, 210, 70, 23)
    env.reset(options={"cards": ["HT", "DT", "ST", "CT"]})
    for token in ["+"] * 17 + ["10"] * 4:
        frame = env.step(env.action_tokens.index(token))[0]
    ink = np.flatnonzero((frame[240:263] != TABLE).any(axis=(0, 2)))
    assert ink[0] >= 10
    assert 250 < ink[-1] < 299
    easy = GymCardsEZPointsEnv()
    easy.reset(seed=3)
    frame = easy.step(easy.action_tokens.index("+"))[0]
    assert (255, 255, 255) in colors(frame, 10, 258, 140, 29)


def test_both_numbers_of_the_line_are_written() -> None:
    env = GymCardsNumberLineEnv()
    first, _ = env.reset(options={"current": 4, "target": 2})
    second = env.step(1)[0]
    changed = np.flatnonzero((first != second).any(axis=(1, 2)))
    assert changed.min() >= 180
    assert changed.max() < 232
    assert (0, 0, 0) in colors(first, 30, 60, 200, 52)
    assert tuple(first[0, 0]) == (255, 255, 255)


def frames_of_a_hand_of_six() -> list[Any]:
    """Pictures of one hand that grows from two cards to six."""
    env = GymCardsBlackjackEnv()
    env.reset(seed=0)
    while True:
        frames = [env.reset(options={"cards": ["HQ", "D4", "CA", "CA"]})[0]]
        terminated = False
        while not terminated and len(frames) < 5:
            frame, _, terminated, *_ = env.step(1)
            frames.append(frame)
        if len(frames) == 5:
            return frames


def test_the_fifth_card_of_blackjack_lies_outside_and_the_sixth_is_cut_off() -> None:
    frames = frames_of_a_hand_of_six()
    assert [colors(frame, 227, 150, 70, 98) == {TABLE} for frame in frames] == [True, True, False, False, False]
    assert (frames[2] == frames[3]).all()
    assert (frames[3][252:] == TABLE).all()
    assert tuple(frames[4][292, 8]) == PAPER
    assert (frames[4][:252] == frames[3][:252]).all()


def test_the_hidden_card_is_not_drawn_even_at_the_end() -> None:
    env = GymCardsBlackjackEnv()
    first, _ = env.reset(options={"cards": ["HQ", "D9", "CA", "CK"]})
    second, _ = env.reset(options={"cards": ["HQ", "SK", "CA", "CK"]})
    assert (first == second).all()
    assert (env.step(0)[0] == first).all()
