"""The rules of EZPoints."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from gtr_envs.cards.ezpoints import PRODUCT_HANDS, SUM_HANDS, EZPointsEnv
from gtr_envs.cards.solver import is_solvable
from gtr_envs.errors import UnknownNameError
from gtr_envs.wrappers import TextAction

GOLDEN = [
    ("10 2", "10 + 2 =", [0, 0, 0, 10], (True, False)),
    ("10 2", "+ 10 + 2 =", [-1, 0, 0, 0, 10], (True, False)),
    ("10 2", "10 + + 2 =", [0, 0, -1, 0, 10], (True, False)),
    ("3 9", "1 1 3 + 9 =", [-1, -1, 0, 0, 0, 10], (True, False)),
    ("3 9", "1 1 1 3 + 9 =", [-1, -1, -1, 0, 0, 0, -1], (False, True)),
    ("3 9", "9 9 3 =", [0, -1, -1, -1], (True, False)),
    ("3 4", "3 * 4 =", [0, 0, 0, 10], (True, False)),
    ("3 4", "3 + 4 =", [0, 0, 0, -1], (True, False)),
    ("6 6", "6 =", [0, -1], (True, False)),
]


@pytest.mark.parametrize(("hand", "tokens", "rewards", "ending"), GOLDEN)
def test_golden_episodes(hand: str, tokens: str, rewards: list[float], ending: tuple[bool, bool]) -> None:
    env = TextAction(EZPointsEnv(image_size=64))
    env.reset(seed=0, options={"numbers": [int(number) for number in hand.split()]})
    steps = [env.step(token) for token in tokens.split()]
    assert [step[1] for step in steps] == rewards
    assert steps[-1][2:4] == ending
    assert not any(step[2] or step[3] for step in steps[:-1])


def test_the_tokens_are_in_the_published_order() -> None:
    assert EZPointsEnv().action_tokens == (*map(str, range(1, 11)), "+", "*", "=")


def dealt(n_hands: int, **kwargs: Any) -> list[dict[str, Any]]:
    """Infos of many deals."""
    env = EZPointsEnv(image_size=64, **kwargs)
    env.reset(seed=0)
    return [env.reset()[1] for _ in range(n_hands)]


def shares(infos: list[dict[str, Any]]) -> dict[tuple[int, ...], float]:
    """How often each pair of values was dealt."""
    counts = Counter(tuple(sorted(info["numbers"])) for info in infos)
    return {hand: count / len(infos) for hand, count in counts.items()}


PUBLISHED = {
    (2, 10): 3 / 8,
    (5, 7): 1 / 6,
    (3, 9): 1 / 8,
    (4, 8): 1 / 8,
    (2, 6): 1 / 12,
    (3, 4): 1 / 12,
    (6, 6): 1 / 24,
}
BALANCED = {**dict.fromkeys(SUM_HANDS, 1 / 10), **dict.fromkeys(PRODUCT_HANDS, 1 / 4)}


@pytest.mark.parametrize(("deal", "expected"), [("published", PUBLISHED), ("balanced", BALANCED)])
def test_hands_are_dealt_with_their_probabilities(deal: str, expected: dict[tuple[int, ...], float]) -> None:
    # 4000 deals: the standard deviation of a share is at most 0.008.
    assert shares(dealt(4000, deal=deal)) == pytest.approx(expected, abs=0.03)


def test_exactly_the_hands_of_the_tables_make_twelve_without_an_ace() -> None:
    pairs = [(a, b) for a in range(2, 11) for b in range(a, 11) if is_solvable([a, b], 12, operators=("+", "*"))]
    assert sorted(SUM_HANDS + PRODUCT_HANDS) == pairs


@pytest.mark.parametrize("deal", ["published", "balanced"])
def test_every_hand_is_solvable_by_the_named_operator_and_the_order_is_random(deal: str) -> None:
    infos = dealt(300, deal=deal)
    for info in infos:
        first, second = info["numbers"]
        assert info["solvable"]
        assert (first + second if info["operator"] == "+" else first * second) == 12
    assert {(2, 10), (10, 2)} <= {tuple(info["numbers"]) for info in infos}


def test_only_one_card_of_a_published_hand_can_be_a_face() -> None:
    infos = dealt(400)
    faces = [sum(name[1] in "JQK" for name in info["cards"]) for info in infos]
    assert set(faces) == {0, 1}
    assert {name[1] for info in infos for name in info["cards"]} == set("23456789TJQK")


def test_a_ten_of_a_balanced_hand_is_any_card_that_counts_ten() -> None:
    names = [name for info in dealt(400, deal="balanced") for name in info["cards"]]
    tens = Counter(name[1] for name in names if name[1] in "TJQK")
    assert sorted(tens) == sorted("TJQK")
    assert max(tens.values()) < 3 * min(tens.values())


def test_a_chosen_hand_may_need_no_operator_that_exists() -> None:
    _, info = EZPointsEnv(image_size=64).reset(options={"numbers": [1, 2]})
    assert (info["operator"], info["solvable"]) == (None, False)


def test_held_out_hands_are_never_dealt() -> None:
    tens = [(2, ten) for ten in (10, 11, 12, 13)] + [(ten, 2) for ten in (10, 11, 12, 13)]
    assert (2, 10) not in shares(dealt(200, holdout=tens))


def test_an_unknown_deal_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="'balanced', 'published'"):
        EZPointsEnv(deal="even")


def test_the_instructions_name_the_goal() -> None:
    assert "has the value 12" in EZPointsEnv().instructions
