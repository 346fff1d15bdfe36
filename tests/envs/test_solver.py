"""All solutions, solvability and optimal next tokens."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import combinations_with_replacement, permutations, product
from math import factorial, prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtr_envs.cards.formula import FormulaError, evaluate, legal_next, tokenize
from gtr_envs.cards.solver import complete, distance, is_solvable, next_tokens, solve

DIGESTS = {
    10: (566, "81e8e9a2efce59ec2fc0119807a27ca6e4ca7a888dfb16220c668d50fe855808"),
    13: (1362, "5615d3ffc171d171733e013560af17937cb1ae658c60d1c0831d84b102f02e81"),
}
HANDS = list(combinations_with_replacement(range(1, 11), 4))


def n_deals(hand: tuple[int, ...]) -> int:
    """In how many of the 13^4 hands these values lie on the table when faces count ten."""
    orders = factorial(4) // prod(factorial(count) for count in Counter(hand).values())
    return orders * 4 ** hand.count(10)


@pytest.mark.parametrize("largest", [10, 13])
def test_exactly_the_published_hands_are_solvable(largest: int) -> None:
    hands = combinations_with_replacement(range(1, largest + 1), 4)
    solvable = [hand for hand in hands if is_solvable(hand)]
    written = "".join(",".join(map(str, hand)) + "\n" for hand in solvable)
    assert (len(solvable), hashlib.sha256(written.encode()).hexdigest()) == DIGESTS[largest]


def test_solvable_hands_are_dealt_as_often_as_published() -> None:
    assert sum(n_deals(hand) for hand in HANDS) == 28561
    assert sum(n_deals(hand) for hand in HANDS if is_solvable(hand)) == 20876


def test_shortest_wins_have_the_published_lengths() -> None:
    shortest = {hand: len(solve(hand, limit=1)[0]) + 1 for hand in HANDS if is_solvable(hand)}
    assert Counter(shortest.values()) == {8: 280, 10: 270, 12: 16}
    deals: Counter[int] = Counter()
    for hand, length in shortest.items():
        deals[length] += n_deals(hand)
    assert deals == {8: 11174, 10: 9258, 12: 444}


@pytest.mark.parametrize(
    ("hand", "formula"),
    [
        ((1, 3, 4, 6), "6/(1-3/4)"),
        ((1, 6, 6, 8), "6/(1-6/8)"),
        ((3, 3, 8, 8), "8/(3-8/3)"),
        ((1, 2, 7, 7), "(7*7-1)/2"),
        ((4, 4, 10, 10), "(10*10-4)/4"),
    ],
)
def test_hands_with_one_formula_only(hand: tuple[int, ...], formula: str) -> None:
    assert solve(hand) == [tokenize(formula)]


def test_solutions_are_distinct_correct_sorted_and_the_limit_takes_the_first() -> None:
    solutions = solve([6, 2, 3, 4])
    assert len(solutions) == len({tuple(tokens) for tokens in solutions}) > 10
    assert all(evaluate(tokens) == 24 for tokens in solutions)
    assert all(sorted(token for token in tokens if token.isdigit()) == [*"2346"] for tokens in solutions)
    assert [len(tokens) for tokens in solutions] == sorted(len(tokens) for tokens in solutions)
    assert solve([6, 2, 3, 4], limit=3) == solutions[:3]
    assert solve([4, 3, 2, 6]) == solutions


def without_pair(tokens: list[str], opening: int) -> list[str]:
    """Tokens without one pair of brackets."""
    depth = 0
    for place in range(opening, len(tokens)):
        depth += (tokens[place] == "(") - (tokens[place] == ")")
        if depth == 0:
            return tokens[:opening] + tokens[opening + 1 : place] + tokens[place + 1 :]
    raise AssertionError("the bracket is never closed")


def test_no_bracket_of_a_solution_is_superfluous_for_its_value_in_a_sum_or_product() -> None:
    assert ["8", "*", "(", "3", "*", "1", ")", "*", "1"] not in solve([8, 3, 1, 1])
    assert solve([2, 2], 4)[0] == ["2", "+", "2"]
    for tokens in solve([1, 2, 3, 4], 24):
        for place, token in enumerate(tokens):
            if token == "(" and (place == 0 or tokens[place - 1] in "(+"):
                assert evaluate(without_pair(tokens, place)) != 24


def test_brute_force_over_three_numbers_finds_the_same_values() -> None:
    numbers = (2, 3, 7)
    written = [
        form.format(*order, *signs)
        for order in permutations(numbers)
        for signs in product("+-*/", repeat=2)
        for form in ("({0}{3}{1}){4}{2}", "{0}{3}({1}{4}{2})")
    ]
    values = {evaluate(tokenize(text)) for text in written}
    assert {target for target in range(-50, 60) if is_solvable(numbers, target)} == {
        int(value) for value in values if value.denominator == 1 and -50 <= value < 60
    }


def test_a_target_of_zero_is_reached_by_a_zero_factor_and_a_zero_dividend() -> None:
    assert tokenize("(2-2)*5*7") in solve([2, 2, 5, 7], 0)
    assert tokenize("(2-2)/5/7") in solve([2, 2, 5, 7], 0)
    assert tokenize("0*5") in solve([0, 5], 0)
    assert tokenize("0/5") in solve([0, 5], 0)
    assert tokenize("5/0") not in solve([0, 5], 0)


def test_operators_can_be_restricted() -> None:
    assert solve([3, 4], 12, operators=("+", "*")) == [["3", "*", "4"], ["4", "*", "3"]]
    assert not is_solvable([15, 3], 12, operators=("+", "*"))
    assert is_solvable([15, 3], 12)


def test_one_number_is_its_own_formula() -> None:
    assert solve([24]) == [["24"]]
    assert solve([23]) == []


@pytest.mark.parametrize("numbers", [[], [1] * 6, [-1, 2]])
def test_hands_that_cannot_be_searched_are_refused(numbers: list[int]) -> None:
    with pytest.raises(ValueError, match="expected one to 5 whole numbers"):
        solve(numbers)


@pytest.mark.parametrize(
    ("hand", "prefix", "expected"),
    [
        ([3, 3, 8, 8], "", ("8",)),
        ([3, 3, 8, 8], "8/(3-8/", ("3",)),
        ([3, 3, 8, 8], "8/(3-8/3", (")",)),
        ([3, 3, 8, 8], "8/(3-8/3)", ("=",)),
        ([3, 3, 8, 8], "3", ()),
        ([1, 1, 2, 7], "", ("(",)),
        ([6, 6, 6, 6], "", ("6",)),
        ([6, 6, 6, 6], "6+", ("6",)),
        ([6, 6, 6, 6], "((6", ("+", "*", ")")),
        ([6, 6, 6, 6], "(6+6", ("+", ")")),
        ([6, 6, 6, 6], "(6+6+6+6", (")",)),
        ([6, 6, 6, 6], "6+6+6-6", ()),
        ([1, 1, 1, 1], "", ()),
        ([2, 2, 4, 6], "4/(2-2)", ()),
    ],
)
def test_optimal_next_tokens(hand: list[int], prefix: str, expected: tuple[str, ...]) -> None:
    assert next_tokens(hand, tokenize(prefix)) == expected


def test_the_way_on_is_counted_with_the_equals_sign() -> None:
    assert distance([3, 3, 8, 8]) == 10
    assert distance([3, 3, 8, 8], tokenize("8/(3-8/3)")) == 1
    assert distance([3, 3, 8, 8], ["3"]) is None


def test_completions_are_the_shortest_and_all_win() -> None:
    found = complete([2, 3, 5, 9], tokenize("2+("))
    assert found
    assert {len(tokens) for tokens in found} == {distance([2, 3, 5, 9], tokenize("2+("))}
    assert all(evaluate(tokenize("2+(") + tokens[:-1]) == 24 for tokens in found)
    assert all(tokens[-1] == "=" for tokens in found)
    assert complete([2, 3, 5, 9], tokenize("2+("), limit=1) == found[:1]
    assert complete([1, 1, 1, 1]) == []


def test_from_the_start_the_shortest_solutions_are_the_completions() -> None:
    for hand in HANDS[::23]:
        solutions = solve(hand)
        shortest = [[*tokens, "="] for tokens in solutions if len(tokens) == len(solutions[0])]
        assert complete(hand) == shortest


@pytest.mark.parametrize("prefix", [["+"], ["3", "3"], ["="], [")"]])
def test_a_prefix_that_is_no_beginning_is_refused(prefix: list[str]) -> None:
    with pytest.raises(FormulaError):
        next_tokens([3, 3, 8, 8], prefix)


def test_a_prefix_with_a_foreign_number_is_refused() -> None:
    with pytest.raises(ValueError, match="only numbers of the hand"):
        next_tokens([3, 3, 8, 8], ["5"])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_expert_finishes_every_beginning_in_the_promised_number_of_tokens(data: st.DataObject) -> None:
    hand = data.draw(st.lists(st.integers(1, 10), min_size=4, max_size=4))
    tokens: list[str] = []
    for _ in range(data.draw(st.integers(0, 7))):
        unused = Counter(map(str, hand)) - Counter(token for token in tokens if token.isdigit())
        legal = [token for token in legal_next(tokens, map(int, unused.elements())) if token != "="]
        tokens.append(data.draw(st.sampled_from(legal)))
    promised = distance(hand, tokens)
    if promised is None:
        assert next_tokens(hand, tokens) == ()
        return
    for left in range(promised, 0, -1):
        assert distance(hand, tokens) == left
        tokens.append(data.draw(st.sampled_from(next_tokens(hand, tokens))))
    assert tokens[-1] == "="
    assert evaluate(tokens[:-1]) == 24
