"""The rules of Points24."""

from __future__ import annotations

from itertools import product
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtr_envs.cards import arithmetic
from gtr_envs.cards.points24 import Points24Env
from gtr_envs.cards.solver import is_solvable, solve
from gtr_envs.errors import DealError, OptionError, UnknownNameError
from gtr_envs.wrappers import TextAction


def play(hand: list[int], tokens: list[str], **kwargs: Any) -> tuple[list[float], tuple[bool, bool], dict[str, Any]]:
    """Rewards, (terminated, truncated) and the last info of an episode; every earlier step must not end it."""
    env = TextAction(Points24Env(image_size=64, **kwargs))
    env.reset(seed=0, options={"numbers": hand})
    rewards = []
    ending = (False, False)
    info: dict[str, Any] = {}
    for token in tokens:
        assert ending == (False, False)
        _, reward, *ends, info = env.step(token)
        ending = (ends[0], ends[1])
        rewards.append(reward)
    return rewards, ending, info


TERMINATED, TRUNCATED = (True, False), (False, True)
GOLDEN = [
    ("plain", "10 6 10 4", "( 6 * 4 ) + 10 - 10 =", [0] * 9 + [10], TERMINATED),
    ("plain sum", "6 6 6 6", "6 + 6 + 6 + 6 =", [0] * 7 + [10], TERMINATED),
    ("wrong value", "6 6 6 6", "6 + 6 + 6 - 6 =", [0] * 7 + [-1], TERMINATED),
    ("number missing", "1 2 3 4", "2 * 3 * 4 =", [0] * 5 + [-1], TERMINATED),
    ("empty", "1 2 3 4", "=", [-1], TERMINATED),
    ("overflow", "1 2 3 4", "( " * 21 + "(", [0] * 21 + [-1], TRUNCATED),
    ("overflow by the end", "1 2 3 4", "( " * 21 + "=", [0] * 21 + [-1], TRUNCATED),
    ("last place", "1 2 3 4", "( " * 20 + "=", [0] * 20 + [-1], TERMINATED),
    ("leading blanks", "10 6 10 4", "3 3 ( 6 * 4 ) + 10 - 10 =", [-1, -1] + [0] * 9 + [10], TERMINATED),
    ("blank between", "10 6 10 4", "6 3 * 4 + 10 - 10 =", [0, -1] + [0] * 6 + [10], TERMINATED),
    ("float, exact enough", "1 5 5 5", "( 5 - 1 / 5 ) * 5 =", [0] * 9 + [10], TERMINATED),
    ("float rounding", "3 3 8 8", "8 / ( 3 - 8 / 3 ) =", [0] * 9 + [10], TERMINATED),
    ("float rounding, one form", "1 4 5 6", "4 / ( 1 - 5 / 6 ) =", [0] * 9 + [10], TERMINATED),
    ("digits join", "2 4 1 1", "2 4 * 1 * 1 =", [0, -1, 0, 0, 0, 0, -1], TERMINATED),
    ("digits join, unsolvable", "1 1 1 3", "1 1 + 1 3 =", [0, -1, 0, 0, -1, -1], TERMINATED),
    ("blank between digits", "2 4 1 1", "2 9 4 * 1 * 1 =", [0, -1, -1, 0, 0, 0, 0, -1], TERMINATED),
    ("power", "5 2 1 1", "5 * * 2 - 1 * 1 =", [0, 0, -1, 0, 0, 0, 0, 0, -1], TERMINATED),
    ("floor division", "10 5 2 1", "10 * 5 / / 2 - 1 =", [0, 0, 0, 0, -1, 0, 0, 0, 10], TERMINATED),
    ("floor division to score", "3 3 8 8", "3 * 8 + 3 / / 8 =", [0] * 6 + [-1, 0, -1], TERMINATED),
    ("unary sign", "4 6 1 1", "- 4 * 6 * - 1 * 1 =", [-1, 0, 0, 0, 0, -1, 0, 0, 0, 10], TERMINATED),
    ("bracket as a call", "1 2 3 4", "2 ( =", [0, -1, -1], TERMINATED),
    ("towers of powers", "9 9 9 1", "9 * * 9 * * 9 =", [0, 0, -1, 0, 0, -1, 0, -1], TERMINATED),
]


@pytest.mark.parametrize(
    ("hand", "tokens", "rewards", "ending"), [row[1:] for row in GOLDEN], ids=[row[0] for row in GOLDEN]
)
def test_golden_episodes(hand: str, tokens: str, rewards: list[float], ending: tuple[bool, bool]) -> None:
    played = play([int(number) for number in hand.split()], tokens.split())
    assert played[:2] == (rewards, ending)


def test_an_overflow_leaves_the_formula_unchanged() -> None:
    *_, info = play([1, 2, 3, 4], ["("] * 22)
    assert info["formula"] == ["("] * 21
    assert info["success"] is False


def test_the_tokens_are_in_the_published_order() -> None:
    assert Points24Env().action_tokens == (*map(str, range(1, 11)), "+", "-", "*", "/", "(", ")", "=")
    with_ranks = Points24Env(face_cards="rank")
    assert with_ranks.action_tokens == (*map(str, range(1, 14)), "+", "-", "*", "/", "(", ")", "=")
    assert with_ranks.action_space.n == 20


def test_the_text_shows_the_formula_without_blanks() -> None:
    env = TextAction(Points24Env(image_size=64))
    assert env.reset(seed=0, options={"numbers": [5, 10, 1, 1]})[0]["text"] == ""
    texts = [env.step(token)[0]["text"] for token in ("(", "5", "3", "-", "10")]
    assert texts == ["(", "(5", "(5", "(5-", "(5-10"]


def test_info_tells_the_hand_and_what_is_legal() -> None:
    env = TextAction(Points24Env(image_size=64))
    _, info = env.reset(seed=0, options={"cards": ["HT", "D6", "DQ", "S4"]})
    assert info["numbers"] == [10, 6, 10, 4]
    assert info["cards"] == ["HT", "D6", "DQ", "S4"]
    assert info["solvable"] is True
    assert info["legal_actions"] == ["4", "6", "10", "("]
    assert info["action_mask"].tolist() == [0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0]
    info = env.step("4")[4]
    assert info["legal_actions"] == ["+", "-", "*", "/", "="]
    assert info["legal"] is True
    assert env.step("4")[4]["legal"] is False


def test_the_value_of_the_formula_is_told_at_the_end() -> None:
    assert play([1, 2, 3, 4], [*"1/2", "="])[2]["formula_value"] == 0.5
    assert play([1, 1, 3, 4], [*"3/(1-1)", "="])[2]["formula_value"] is None
    assert play([1, 1, 3, 4], ["("] * 22)[2].get("formula_value") is None


def test_a_division_by_zero_is_a_wrong_formula() -> None:
    rewards, ending, info = play([1, 1, 3, 4], [*"3/(1-1)*4", "="])
    assert (rewards[-1], ending, info["legal"], info["success"]) == (-1, TERMINATED, True, False)


def test_illegal_actions_can_end_the_episode() -> None:
    rewards, ending, info = play([1, 2, 3, 4], ["1", "1"], illegal="terminate")
    assert (rewards, ending, info["success"]) == ([0, -1], TERMINATED, False)


def test_an_episode_can_be_won_after_the_longest_formula_only() -> None:
    padded = "(" * 6 + "6+6+6+6" + ")" * 6
    assert play([6, 6, 6, 6], [*padded, "="])[0][-1] == 10  # 19 entries
    assert play([6, 6, 6, 6], ["1", *padded, "="])[0][-1] == 10  # 20 entries, one of them a blank
    rewards, ending, _ = play([6, 6, 6, 6], ["1", "1", *padded, "="])  # 21 entries
    assert (rewards[-1], ending) == (-1, TRUNCATED)


def test_the_length_limit_can_be_chosen() -> None:
    assert play([6, 6, 6, 6], [*"6+6+6+6", "="], max_tokens=8)[0][-1] == 10
    assert play([1, 2, 3, 4], ["("] * 9, max_tokens=8)[:2] == ([0] * 8 + [-1], TRUNCATED)


def test_face_cards_can_count_their_rank() -> None:
    env = Points24Env(image_size=64, face_cards="rank")
    _, info = env.reset(seed=0, options={"cards": ["HK", "DQ", "SJ", "CA"]})
    assert info["numbers"] == [13, 12, 11, 1]
    assert "J counts 11" in env.instructions
    assert play([13, 11, 1, 1], ["13", "+", "11", "*", "1", "*", "1", "="], face_cards="rank")[0][-1] == 10


def test_another_target_can_be_chosen() -> None:
    assert play([1, 2, 3, 4], [*"1+2+3+4", "="], target=10)[0][-1] == 10
    assert play([1, 2, 3, 4], [*"1*2*3*4", "="], target=10)[0][-1] == -1
    assert "has the value 10" in Points24Env(target=10).instructions


def test_only_solvable_hands_are_dealt_on_request() -> None:
    env = Points24Env(image_size=64, deal="solvable")
    hands = [env.reset(seed=seed)[1] for seed in range(60)]
    assert all(info["solvable"] and is_solvable(info["numbers"]) for info in hands)
    assert not all(Points24Env(image_size=64).reset(seed=seed)[1]["solvable"] for seed in range(60))


def test_a_wish_for_a_hand_that_does_not_exist_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "MAX_DEALS", 500)
    env = Points24Env(image_size=64, deal="solvable", target=10**6)
    with pytest.raises(DealError, match="none in 500 deals; check target=1000000"):
        env.reset(seed=0)


def test_held_out_hands_are_never_dealt_but_can_be_chosen() -> None:
    # Everything is held out but four hands, so that a deal is wanted once in 7000 times.
    kept = set(product((5, 6), (1,), (5, 6), (1,)))
    holdout = [hand for hand in product(range(1, 14), repeat=4) if hand not in kept]
    env = Points24Env(image_size=64, holdout=holdout)
    for seed in range(3):
        _, info = env.reset(seed=seed)
        assert tuple(info["numbers"]) in kept
    assert env.reset(options={"numbers": [2, 2, 2, 2]})[1]["numbers"] == [2, 2, 2, 2]


def test_holding_everything_out_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "MAX_DEALS", 500)
    env = Points24Env(image_size=64, holdout=list(product(range(1, 14), repeat=4)))
    with pytest.raises(DealError, match="the 28561 held-out hands"):
        env.reset(seed=0)


def test_a_holdout_far_from_the_deals_changes_nothing() -> None:
    plain, other = Points24Env(image_size=64), Points24Env(image_size=64, holdout=[(1, 1, 1, 1)])
    assert [plain.reset(seed=s)[1]["cards"] for s in range(9)] == [other.reset(seed=s)[1]["cards"] for s in range(9)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"numbers": [1, 2, 3]}, "4 whole numbers from 1 to 10"),
        ({"numbers": [1, 2, 3, 11]}, "Name face cards with options"),
        ({"numbers": [1, 2, 3, 0]}, "whole numbers"),
        ({"numbers": [1, 2, 3, 4.0]}, "whole numbers"),
        ({"numbers": [1, 2, 3, True]}, "whole numbers"),
        ({"numbers": "1234"}, "whole numbers"),
        ({"numbers": None}, "whole numbers"),
        ({"cards": ["HT", "D6", "DQ"]}, "4 names such as 'HT'"),
        ({"cards": "HTD6"}, "4 names"),
        ({"cards": ["HT", "D6", "DQ", "S1"]}, "'S1'"),
        ({"cards": ["HT", "D6", "DQ", 4]}, "got 4"),
        ({"cards": ["HT", "D6", "DQ", "S4"], "numbers": [1, 2, 3, 4]}, "got both"),
    ],
)
def test_unusable_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Points24Env(image_size=64).reset(seed=0, options=options)


def test_an_unknown_option_is_refused_with_the_nearest_match() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'numbers'"):
        Points24Env(image_size=64).reset(options={"number": [1, 2, 3, 4]})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"deal": "solveable"}, "Did you mean 'solvable'"),
        ({"face_cards": "eleven"}, "face_cards"),
        ({"illegal": "ignore"}, "illegal"),
        ({"render_mode": "ansi"}, "render_mode"),
        ({"image_size": 63}, "from 64 to 1024"),
        ({"image_size": 96.0}, "image_size"),
        ({"render_size": 10}, "render_size"),
        ({"target": 2.5}, "target"),
        ({"max_tokens": 7}, "at least 8"),
        ({"holdout": [(1, 2, 3)]}, "holdout"),
        ({"holdout": [(1, 2, 3, 14)]}, "from 1 to 13"),
    ],
)
def test_unusable_arguments_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Points24Env(**kwargs)


def test_the_expert_knows_how_much_room_is_left() -> None:
    env = TextAction(Points24Env(image_size=64))
    env.reset(options={"numbers": [6, 6, 6, 6]})
    for _ in range(13):
        env.step("1")
    assert env.unwrapped.expert_action() == "6"  # 13 blanks and 7 tokens are 20 entries
    env.step("1")
    assert env.unwrapped.expert_action() is None


def test_the_expert_has_nothing_to_say_before_and_after_an_episode() -> None:
    env = TextAction(Points24Env(image_size=64))
    assert env.unwrapped.expert_action() is None
    env.reset(options={"numbers": [6, 6, 6, 6]})
    for token in [*"6+6+6+6", "="]:
        env.step(token)
    assert env.unwrapped.expert_action() is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 10), min_size=4, max_size=4).filter(is_solvable), st.randoms(use_true_random=False))
def test_every_solution_can_be_played_and_scores(hand: list[int], choice: Any) -> None:
    solution = choice.choice(solve(hand))
    rewards, ending, info = play(hand, [*solution, "="])
    assert (rewards, ending) == ([0] * len(solution) + [10], TERMINATED)
    assert info["success"] is True


def plans(hand: list[int], prefix: str = "", n_plans: int = 200, **kwargs: Any) -> list[list[str]]:
    """Demonstrations from one position."""
    env = TextAction(Points24Env(image_size=64))
    env.reset(options={"numbers": hand})
    for token in prefix:
        env.step(token)
    rng = np.random.default_rng(0)
    return [env.unwrapped.plan(rng, **kwargs) for _ in range(n_plans)]


def test_a_plan_wins_and_is_mostly_the_first_solution() -> None:
    drawn = plans([6, 2, 3, 4])
    assert all(play([6, 2, 3, 4], tokens)[2]["success"] for tokens in drawn[:20])
    first = [*solve([2, 3, 4, 6])[0], "="]
    assert 0.6 < drawn.count(first) / len(drawn) < 0.8
    assert len({tuple(tokens) for tokens in drawn}) > 10


def test_a_mistaken_plan_is_well_formed_and_hardly_ever_wins() -> None:
    drawn = plans([1, 2, 7, 7], mistaken=True)
    assert all(sorted(filter(str.isdigit, tokens)) == ["1", "2", "7", "7"] for tokens in drawn)
    endings = [play([1, 2, 7, 7], tokens) for tokens in drawn]
    assert all(min(rewards[:-1]) == 0 and ending == TERMINATED for rewards, ending, _ in endings)
    assert sum(info["success"] for *_, info in endings) < 20
    assert plans([1, 1, 1, 1], n_plans=1) == plans([1, 1, 1, 1], n_plans=1, mistaken=True)


def test_a_plan_goes_on_from_the_formula_or_gives_up() -> None:
    assert plans([3, 3, 8, 8], "8/(", n_plans=1) == [["3", "-", "8", "/", "3", ")", "="]]
    assert plans([3, 3, 8, 8], "3", n_plans=1) == [[]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(0, 16), min_size=22, max_size=22), st.booleans())
def test_no_sequence_of_actions_raises_or_pays_for_a_hopeless_hand(
    seed: int, actions: list[int], legal_only: bool
) -> None:
    env = Points24Env(image_size=64)
    _, info = env.reset(seed=seed)
    for number in actions:
        tokens = info["legal_actions"] if legal_only else env.action_tokens
        token = tokens[number % len(tokens)]
        _, reward, terminated, truncated, info = env.step(env.action_tokens.index(token))
        assert reward in (0.0, -1.0) or (reward == 10.0 and info["solvable"])
        assert not legal_only or info["legal"]
        if terminated or truncated:
            return
    raise AssertionError("no episode is longer than 22 steps")


def test_a_hopeless_hand_never_pays_whatever_is_handed_in() -> None:
    env = TextAction(Points24Env(image_size=64))
    for tokens in ("1+1+1+1", "(1+1+1)*1", "1+1", "1", "((1)+1+1)/1"):
        env.reset(options={"numbers": [1, 1, 1, 1]})
        rewards = [env.step(token)[1] for token in [*tokens, "="]]
        assert rewards[-1] == -1


def test_it_is_made_by_its_id_with_its_arguments() -> None:
    env = gym.make("Points24-v0", image_size=96, render_mode="rgb_array", deal="solvable")
    observation, info = env.reset(seed=7)
    assert observation["image"].shape == (96, 96, 3)
    assert env.render().shape == (300, 300, 3)  # type: ignore[union-attr]
    assert info["solvable"]
