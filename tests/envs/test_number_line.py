"""The rules, the deal and the picture of NumberLine."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from gtr_envs.cards.number_line import NumberLineEnv, draw_number_line
from gtr_envs.core import IllegalText
from gtr_envs.errors import OptionError, UnknownNameError
from gtr_envs.testing import check_vision_text_env
from gtr_envs.wrappers import TextAction

PAIRS = [(current, target) for current in range(6) for target in range(6) if current != target]

GOLDEN = [
    (4, 2, "++++++++++", [-1] * 10, (False, True), 5),
    (4, 2, "--", [0, 1], (True, False), 2),
    (0, 5, "-+++++", [-1, 0, 0, 0, 0, 1], (True, False), 5),
    (1, 2, "-++", [-1, 0, 1], (True, False), 2),
    (3, 4, "-" * 9 + "+", [-1] * 9 + [0], (False, True), 1),
]


@pytest.mark.parametrize(("current", "target", "moves", "rewards", "ending", "last"), GOLDEN)
def test_golden_episodes(
    current: int, target: int, moves: str, rewards: list[float], ending: tuple[bool, bool], last: int
) -> None:
    env = TextAction(NumberLineEnv(image_size=64))
    env.reset(seed=0, options={"current": current, "target": target})
    steps = [env.step(move) for move in moves]
    assert [step[1] for step in steps] == rewards
    assert steps[-1][2:4] == ending
    assert not any(step[2] or step[3] for step in steps[:-1])
    assert steps[-1][0]["text"] == moves
    assert env.observation_space.contains(steps[-1][0])
    info = steps[-1][4]
    assert (info["current"], info["target"], info["success"]) == (last, target, last == target)


def test_the_tokens_are_in_the_published_order_and_always_legal() -> None:
    env = NumberLineEnv(image_size=64)
    assert env.action_tokens == ("-", "+")
    assert env.reset(options={"current": 0})[1]["legal_actions"] == ["-", "+"]


def test_every_unequal_pair_is_dealt_equally_often() -> None:
    env = NumberLineEnv(image_size=64)
    env.reset(seed=0)
    infos = [env.reset()[1] for _ in range(3000)]
    counts = Counter((info["current"], info["target"]) for info in infos)
    assert set(counts) == set(PAIRS)
    # Chi-square with 29 degrees of freedom; 58 is exceeded once in a thousand seeds.
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 58


def distances(max_position: int) -> dict[int, Fraction]:
    """Exact probabilities of the start distance."""
    n = max_position + 1
    return {d: Fraction(2 * (n - d), n * (n - 1)) for d in range(1, n)}


def test_the_start_distances_of_the_page_are_exact() -> None:
    counted = Counter(abs(current - target) for current, target in PAIRS)
    assert {d: Fraction(count, len(PAIRS)) for d, count in counted.items()} == distances(5)
    assert list(distances(5).values()) == [Fraction(k, 15) for k in (5, 4, 3, 2, 1)]


def test_a_fixed_number_leaves_the_other_uniform() -> None:
    env = NumberLineEnv(image_size=64, max_position=2)
    env.reset(seed=0)
    for name, other in (("current", "target"), ("target", "current")):
        counts = Counter(env.reset(options={name: 1})[1][other] for _ in range(400))
        assert set(counts) == {0, 2}
        assert abs(counts[0] - 200) < 60


class Played:
    """Exact results of a policy over all deals, from the steps of the environment itself."""

    def __init__(self, share_of_plus: Any) -> None:
        self.success = self.total = self.length = self.above_zero = Fraction(0)
        for current, target in PAIRS:
            self._play(current, target, share_of_plus)

    def _play(self, start: int, target: int, share_of_plus: Any) -> None:
        env = NumberLineEnv(image_size=64)
        weight = Fraction(1, len(PAIRS))
        states = {(start, 0): weight}
        for n_before in range(env.max_actions):
            following: dict[tuple[int, int], Fraction] = {}
            for (current, total), probability in states.items():
                for action, share in ((1, share_of_plus(current, target)), (0, 1 - share_of_plus(current, target))):
                    if not share:
                        continue
                    now = probability * share
                    reward, place, ending = one_step(env, current, target, action)
                    if ending or n_before + 1 == env.max_actions:
                        self.success += now * ending
                        self.total += now * (total + reward)
                        self.length += now * (n_before + 1)
                        self.above_zero += now * (total + reward > 0)
                    else:
                        following[place, total + reward] = following.get((place, total + reward), Fraction(0)) + now
            states = following


STEPS: dict[tuple[int, int, int], tuple[int, int, bool]] = {}


def one_step(env: NumberLineEnv, current: int, target: int, action: int) -> tuple[int, int, bool]:
    """Reward, new place and whether the target was reached."""
    key = (current, target, action)
    if key not in STEPS:
        env.reset(seed=0, options={"current": current, "target": target})
        _, reward, terminated, _, info = env.step(action)
        STEPS[key] = (int(reward), info["current"], terminated)
    return STEPS[key]


def test_the_best_player_takes_seven_thirds_of_a_move_and_always_gets_one() -> None:
    best = Played(lambda current, target: Fraction(target > current))
    assert (best.success, best.total, best.above_zero) == (1, 1, 1)
    assert best.length == Fraction(7, 3) == sum(d * share for d, share in distances(5).items())


def test_the_values_of_random_moves_on_the_page_are_exact() -> None:
    random = Played(lambda _current, _target: Fraction(1, 2))
    assert (random.success, random.total) == (Fraction(287, 480), Fraction(-13223, 5120))
    assert (random.length, random.above_zero) == (Fraction(48853, 7680), Fraction(43, 160))
    page = (NumberLineEnv.__doc__ or "").replace("\n    ", " ")
    assert "the target in 59.8 %" in page
    assert "return of -2.58 and 6.36 moves, and a return above 0 in 26.9 %" in page


@pytest.mark.parametrize("pair", PAIRS)
def test_the_expert_goes_straight_to_the_target(pair: tuple[int, int]) -> None:
    env = NumberLineEnv(image_size=64)
    env.reset(options=dict(zip(("current", "target"), pair, strict=True)))
    total, n_moves = 0.0, 0
    while (action := env.expert_action()) is not None:
        total += env.step(env.action_from_text(action))[1]
        n_moves += 1
    assert (total, n_moves) == (1, abs(pair[0] - pair[1]))


def test_the_expert_gives_up_when_too_few_actions_are_left() -> None:
    env = NumberLineEnv(image_size=64, max_position=2)
    assert env.expert_action() is None
    env.reset(options={"current": 0, "target": 2})
    advice = []
    for _ in range(4):
        advice.append(env.expert_action())
        env.step(0)
    assert advice == ["+", "+", "+", None]


def test_an_illegal_action_costs_and_moves_nothing_but_uses_up_an_action() -> None:
    env = NumberLineEnv(image_size=64, max_position=2)
    env.reset(options={"current": 0, "target": 2})
    for _ in range(3):
        observation, reward, terminated, truncated, info = env.step(IllegalText("up"))
        assert (observation["text"], reward, info["legal"], info["current"]) == ("", -1, False, 0)
        assert not terminated
        assert not truncated
    assert env.step(IllegalText("+1"))[2:4] == (False, True)


def test_an_illegal_action_can_end_the_episode() -> None:
    env = NumberLineEnv(image_size=64, illegal="terminate")
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(IllegalText("up"))
    assert (reward, terminated, truncated, info["success"]) == (-1, True, False, False)


@pytest.mark.parametrize("wrong", [1, 0, -3, 2.0, "5", True, None])
def test_an_unusable_line_is_refused(wrong: Any) -> None:
    with pytest.raises(OptionError, match="max_position as a whole number of at least 2"):
        NumberLineEnv(max_position=wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"current": 6}, r"'current'\] as a whole number from 0 to 5, got 6"),
        ({"target": -1}, "from 0 to 5, got -1"),
        ({"target": "4"}, "got '4'"),
        ({"target": None}, "got None"),
        ({"current": 2, "target": 2}, "unequal numbers"),
    ],
)
def test_unusable_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        NumberLineEnv(image_size=64).reset(options=options)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="illegal"):
        NumberLineEnv(illegal="ignore")
    with pytest.raises(UnknownNameError, match="Did you mean 'target'"):
        NumberLineEnv(image_size=64).reset(options={"targets": 1})


def test_the_largest_number_is_told_and_the_numbers_are_not() -> None:
    env = NumberLineEnv(image_size=64, max_position=9)
    before = env.instructions
    assert "from 0 to 9" in before
    env.reset(options={"current": 3, "target": 8})
    assert env.instructions == before
    texts = {env.reset(seed=seed)[0]["text"] for seed in range(5)}
    assert texts == {""}


@pytest.mark.parametrize("size", [64, 96, 300, 511])
def test_each_number_changes_its_own_sign_and_nothing_else(size: int) -> None:
    def rows_of(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
        rows = np.flatnonzero((first != second).any(axis=(1, 2)))
        return rows[0] / size, rows[-1] / size

    start = draw_number_line(2, 4, 5, "", size)
    top, bottom = rows_of(start, draw_number_line(2, 3, 5, "", size))
    assert 0.04 < top < bottom < 0.36
    top, bottom = rows_of(start, draw_number_line(1, 4, 5, "", size))
    assert 0.36 < top < bottom < 0.7
    top, bottom = rows_of(start, draw_number_line(2, 4, 5, "+-", size))
    assert 0.9 < top < bottom < 1


def test_all_positions_look_different_in_a_small_picture() -> None:
    pictures = [draw_number_line(current, 0, 20, "", 96).astype(int) for current in range(21)]
    for place, picture in enumerate(pictures):
        assert all((abs(other - picture).max(axis=2) > 60).sum() > 20 for other in pictures[place + 1 :])


def test_every_picture_is_independent() -> None:
    draw_number_line(2, 4, 5, "", 64)[...] = 0
    assert draw_number_line(2, 4, 5, "", 64).any()


@pytest.mark.parametrize("max_position", [2, 100])
def test_short_and_long_lines_keep_to_the_contract(max_position: int) -> None:
    check_vision_text_env("NumberLine-v0", image_size=64, max_position=max_position)
