"""Points24 pays for solved hands and for nothing else: all hands, all formulas, and a search for loopholes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement, permutations, product
from typing import Any

import numpy as np
import pytest

from gtr_envs.cards.formula import FormulaError, evaluate
from gtr_envs.cards.points24 import Points24Env
from gtr_envs.cards.solver import is_solvable, solve

# Measuring the coverage of these long searches would take more time than they do, and other tests cover the same lines.
pytestmark = pytest.mark.no_cover
HANDS = list(combinations_with_replacement(range(1, 11), 4))
SOLVABLE = [hand for hand in HANDS if is_solvable(hand)]
IMPOSSIBLE = [hand for hand in HANDS if not is_solvable(hand)]
OPERATORS = ("+", "-", "*", "/")
SHAPES = ("((a.b).c).d", "(a.(b.c)).d", "(a.b).(c.d)", "a.((b.c).d)", "a.(b.(c.d))")
"""All ways to combine four operands in an order."""


def env() -> Any:
    return Points24Env(observe="text")


def play(game: Any, hand: Sequence[int], tokens: Sequence[str]) -> tuple[float, bool]:
    """The last reward and whether it was a success."""
    game.reset(options={"numbers": list(hand)})
    for token in tokens:
        _, reward, terminated, truncated, info = game.step(game.action_from_text(token))
        if terminated or truncated:
            return reward, info["success"]
    return 0.0, False


def formulas(hand: Sequence[int]) -> Iterator[list[str]]:
    """Every formula over a hand: all orders, operators and shapes, each operation in brackets."""
    for order in sorted(set(permutations(hand))):
        for operators in product(OPERATORS, repeat=3):
            for shape in SHAPES:
                numbers, signs = iter(map(str, order)), iter(operators)
                yield [next(numbers) if c.isalpha() else next(signs) if c == "." else c for c in shape]


def test_there_are_as_many_hands_as_published() -> None:
    assert (len(HANDS), len(SOLVABLE), len(IMPOSSIBLE)) == (715, 566, 149)


@pytest.mark.parametrize("which", [0, -1], ids=["first", "last"])
def test_every_solvable_hand_is_won_by_the_answer_of_the_solver(which: int) -> None:
    game = env()
    for hand in SOLVABLE:
        assert play(game, hand, [*solve(hand)[which], "="]) == (10.0, True), hand


def test_every_solvable_hand_is_won_by_the_expert_in_any_order_of_its_cards() -> None:
    game, rng = env(), np.random.default_rng(0)
    for hand in SOLVABLE:
        game.reset(options={"numbers": [int(number) for number in rng.permutation(hand)]})
        rewards = []
        while game.is_running:
            rewards.append(game.step(game.action_from_text(game.expert_action()))[1])
        assert rewards == [0.0] * (len(rewards) - 1) + [10.0], hand


def test_three_three_eight_eight_pays() -> None:
    assert play(env(), [3, 3, 8, 8], [*"8/(3-8/3)", "="]) == (10.0, True)


def test_no_formula_at_all_makes_an_impossible_hand_worth_the_target() -> None:
    n_formulas = 0
    for hand in IMPOSSIBLE:
        for tokens in formulas(hand):
            n_formulas += 1
            try:
                value = evaluate(tokens)
            except FormulaError:  # a division by zero
                continue
            assert value != 24, (hand, tokens)
    assert n_formulas == 461_440  # 1442 orders, 64 times operators, 5 shapes


def test_the_same_enumeration_finds_every_solvable_hand() -> None:
    """Otherwise the test above would prove nothing."""
    for hand in SOLVABLE[::40]:
        assert any(_is_24(tokens) for tokens in formulas(hand)), hand


def _is_24(tokens: list[str]) -> bool:
    try:
        return evaluate(tokens) == 24
    except FormulaError:
        return False


def disturbed(rng: np.random.Generator, hand: Sequence[int], tokens: Sequence[str]) -> list[str]:
    """Something like a formula: numbers of the hand joined, powers, signs, blanks, brackets and foreign tokens."""
    made: list[str] = []
    for number in rng.permutation(hand):
        made += [str(number), *rng.choice(OPERATORS, size=rng.choice(4, p=[0.25, 0.5, 0.2, 0.05]))]
    for _ in range(rng.integers(5)):
        made.insert(int(rng.integers(len(made) + 1)), str(rng.choice(tokens)))
    return [*made, "="]


def test_a_search_for_loopholes_in_impossible_hands_finds_none() -> None:
    game, rng = env(), np.random.default_rng(5)
    tried = 0
    for hand in IMPOSSIBLE:
        for _ in range(150):
            tokens = disturbed(rng, hand, game.action_tokens)
            assert play(game, hand, tokens)[0] <= 0, (hand, tokens)
            tried += 1
    assert tried == 22_350


def test_the_same_search_wins_hands_that_can_be_won() -> None:
    game, rng = env(), np.random.default_rng(5)
    wins = sum(play(game, (4, 6, 6, 8), disturbed(rng, (4, 6, 6, 8), game.action_tokens))[1] for _ in range(3000))
    assert wins > 0


@pytest.mark.parametrize(
    ("hand", "text"),
    [
        ((1, 1, 1, 3), "1 1 + 1 3 ="),
        ((1, 1, 2, 5), "5 * * 2 - 1 * 1 ="),
        ((1, 1, 2, 4), "2 4 * 1 * 1 ="),
        ((3, 3, 8, 8), "3 * 8 + 3 / / 8 ="),
    ],
)
def test_the_published_loopholes_pay_nothing(hand: tuple[int, ...], text: str) -> None:
    assert play(env(), hand, text.split()) == (-1.0, False)


@pytest.mark.parametrize(
    ("hand", "text"), [((1, 2, 5, 10), "10 * 5 / / 2 - 1 ="), ((1, 1, 4, 6), "- 4 * 6 * - 1 * 1 =")]
)
def test_where_an_honest_formula_remains_the_loophole_costs_its_penalty(hand: tuple[int, ...], text: str) -> None:
    game = env()
    game.reset(options={"numbers": list(hand)})
    rewards = [game.step(game.action_from_text(token))[1] for token in text.split()]
    assert rewards.count(-1.0) == text.count("/ /") + text.count("- 4") + text.count("* -")
    assert rewards[-1] == 10.0
