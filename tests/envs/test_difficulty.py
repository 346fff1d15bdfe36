"""How hard a hand is, and to which split it belongs."""

from __future__ import annotations

import hashlib
from collections import Counter
from fractions import Fraction
from itertools import permutations

import pytest

from gtr_envs.cards.difficulty import BANDS, SPLITS, Difficulty, difficulty, hands, n_deals, share, split_of, table
from gtr_envs.cards.solver import solve

TWO_PAIRS = [
    (1, 1, 2, 7),
    (1, 1, 2, 9),
    (1, 1, 3, 5),
    (1, 1, 4, 9),
    (1, 1, 5, 7),
    (1, 3, 5, 7),
    (1, 3, 7, 7),
    (1, 4, 7, 7),
    (1, 4, 7, 9),
    (1, 5, 5, 9),
    (1, 5, 7, 9),
    (1, 6, 7, 9),
    (1, 7, 9, 10),
    (4, 4, 7, 10),
    (5, 7, 7, 9),
    (5, 7, 8, 10),
]
FRACTIONS = [
    (1, 3, 4, 6),
    (1, 4, 5, 6),
    (1, 5, 5, 5),
    (1, 6, 6, 8),
    (2, 4, 10, 10),
    (2, 5, 5, 10),
    (2, 7, 7, 10),
    (3, 3, 7, 7),
    (3, 3, 8, 8),
    (4, 4, 7, 7),
]
# Band: hands; of them in the train, validation and test split; deals among the 28561.
COUNTS = {
    "easy": (210, (119, 46, 45), 8514),
    "medium": (181, (95, 41, 45), 5990),
    "hard": (165, (95, 34, 36), 6002),
    "fractions": (10, (5, 2, 3), 370),
    "impossible": (149, (92, 34, 23), 7685),
}
SPLIT_DIGESTS = {
    "train": "034a2664b1fcab038e265d0d8b373cd3771a741a8479edc52b8c9708208fa27b",
    "validation": "4d8bfc0a702094c1ba03b78c4a4dd286fb833084cb4906f8c92249e32c5c06df",
    "test": "cdcdbfe6c9485438d3a62a800713fad9c4df437bc259f6339367b7c4cbc33192",
}


def test_every_hand_is_in_the_table_and_as_many_as_published_can_be_won() -> None:
    assert len(table()) == 715
    assert sum(1 for hand in table().values() if hand.n_solutions) == 566


def test_shortest_wins_have_the_published_lengths_and_brackets() -> None:
    lengths = Counter(hand.n_tokens for hand in table().values())
    assert lengths == {8: 280, 10: 270, 12: 16, None: 149}
    assert [hand for hand, hard in table().items() if hard.n_tokens == 12] == TWO_PAIRS
    pairs = Counter((hand.n_bracket_pairs, hand.needs_brackets) for hand in table().values() if hand.n_solutions)
    assert pairs == {(0, False): 280, (1, True): 270, (2, True): 16}


def test_exactly_the_published_hands_need_fractions() -> None:
    assert [hand for hand, hard in table().items() if hard.needs_fractions] == FRACTIONS
    assert sum(n_deals(hand) for hand in FRACTIONS) == 370


def test_hands_of_ranks_are_measured_too() -> None:
    hands_of_ranks = table(largest=13)
    assert Counter(hand.n_tokens for hand in hands_of_ranks.values()) == {8: 709, 10: 612, 12: 41, None: 458}
    extra = [hand for hand, hard in hands_of_ranks.items() if hard.needs_fractions and hand not in FRACTIONS]
    assert extra == [(1, 8, 12, 12), (2, 2, 11, 11), (2, 2, 13, 13), (2, 3, 5, 12), (5, 5, 7, 11), (5, 7, 7, 11)]
    assert sum(share(band, largest=13) for band in BANDS) == 1


def test_solutions_are_counted_as_the_solver_lists_them() -> None:
    for hand in list(table())[::37]:
        assert table()[hand].n_solutions == len(solve(hand))


def test_the_order_of_the_numbers_does_not_matter() -> None:
    assert len({difficulty(order) for order in permutations([2, 3, 4, 6])}) == 1


def test_a_fraction_on_the_way_counts_only_if_it_cannot_be_avoided() -> None:
    assert solve([2, 4, 6, 8])
    assert any("/" in tokens for tokens in solve([2, 4, 6, 8]))
    assert not difficulty([2, 4, 6, 8]).needs_fractions
    assert not difficulty([1, 1, 1, 1]).needs_fractions
    assert difficulty([1, 2, 3, 4], 10).target == 10


@pytest.mark.parametrize(
    ("n_solutions", "n_tokens", "needs_fractions", "band"),
    [
        (0, None, False, "impossible"),
        (1, 10, True, "fractions"),
        (13, 8, False, "easy"),
        (12, 8, False, "medium"),
        (13, 10, False, "medium"),
        (12, 10, False, "hard"),
        (13, 12, False, "hard"),
        (1, 12, False, "hard"),
    ],
)
def test_the_bands_are_as_described(n_solutions: int, n_tokens: int | None, needs_fractions: bool, band: str) -> None:
    assert Difficulty((1, 2, 3, 4), 24, n_solutions, n_tokens, needs_fractions).band == band


def test_fewer_cards_and_other_targets_have_bands_too() -> None:
    assert difficulty([3, 4], 12) == Difficulty((3, 4), 12, n_solutions=2, n_tokens=4, needs_fractions=False)
    assert difficulty([24]).n_bracket_pairs == 0
    assert hands("easy", target=10**6) == ()


@pytest.mark.parametrize("band", BANDS)
def test_bands_and_splits_have_the_documented_sizes(band: str) -> None:
    n_hands, in_splits, deals = COUNTS[band]
    assert len(hands(band)) == n_hands
    assert tuple(len(hands(band, split)) for split in SPLITS) == in_splits
    assert share(band) == Fraction(deals, 28561)


def test_bands_and_splits_share_no_hand_and_leave_none_out() -> None:
    everything = [hand for band in BANDS for split in SPLITS for hand in hands(band, split)]
    assert sorted(everything) == list(table())
    assert sum(map(n_deals, everything)) == 28561


@pytest.mark.parametrize("split", SPLITS)
def test_the_splits_stay_the_same_for_ever(split: str) -> None:
    written = "".join(",".join(map(str, hand)) + "\n" for hand in table() if split_of(hand) == split)
    assert hashlib.sha256(written.encode()).hexdigest() == SPLIT_DIGESTS[split]


def test_the_split_of_a_hand_is_the_same_for_every_target_and_order() -> None:
    assert split_of([8, 3, 8, 3]) == split_of((3, 3, 8, 8)) == "validation"
    assert (3, 3, 8, 8) in hands(difficulty([3, 3, 8, 8], 22).band, "validation", target=22)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one of the bands.*got 'simple'"):
        hands("simple")
    with pytest.raises(ValueError, match=r"one of the splits.*got 'dev'"):
        hands("easy", "dev")
    with pytest.raises(ValueError, match="10 or 13 as the largest card value, got 12"):
        table(largest=12)
    with pytest.raises(ValueError, match="expected one to 5 whole numbers"):
        difficulty([])
