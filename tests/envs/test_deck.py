"""Cards, their names and their deals."""

from __future__ import annotations

import numpy as np
import pytest

from gtr_envs.cards.deck import RANKS, SUITS, Card, card_value, draw_ranks, draw_suits, parse_card


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("HT", Card("H", 10)),
        ("D6", Card("D", 6)),
        ("DQ", Card("D", 12)),
        (" ca ", Card("C", 1)),
        ("S10", Card("S", 10)),
    ],
)
def test_a_card_is_read_from_its_name(name: str, card: Card) -> None:
    assert parse_card(name) == card


def test_every_card_has_a_name_that_is_read_back() -> None:
    deck = [Card(suit, rank) for suit in SUITS for rank in range(1, 14)]
    assert len({card.name for card in deck}) == 52
    assert [parse_card(card.name) for card in deck] == deck


@pytest.mark.parametrize("name", ["", "H", "TH", "H1", "X5", "H11", "HTT"])
def test_text_that_names_no_card_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected a card as suit letter"):
        parse_card(name)


def test_face_cards_count_ten_or_their_rank() -> None:
    assert [card_value(rank, faces_count_ten=True) for rank in (1, 10, 11, 12, 13)] == [1, 10, 10, 10, 10]
    assert [card_value(rank, faces_count_ten=False) for rank in (1, 10, 11, 12, 13)] == [1, 10, 11, 12, 13]


def test_a_deal_depends_on_the_generator_only() -> None:
    first, second = np.random.default_rng(4), np.random.default_rng(4)
    assert draw_suits(first, draw_ranks(first, 4)) == draw_suits(second, draw_ranks(second, 4))


def test_every_rank_and_suit_is_drawn_about_equally_often() -> None:
    rng = np.random.default_rng(0)
    ranks = draw_ranks(rng, 13_000)
    counts = np.bincount(ranks, minlength=14)[1:]
    assert set(ranks) == set(range(1, len(RANKS) + 1))
    assert counts.min() > 850  # 1000 expected, standard deviation 30
    assert counts.max() < 1150
    suits = [card.suit for card in draw_suits(rng, ranks)]
    assert all(3000 < suits.count(suit) < 3500 for suit in SUITS)
