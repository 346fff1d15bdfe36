"""The look of cards and tables."""

from __future__ import annotations

import numpy as np
import pytest

from gtr_envs.cards.artwork import draw_table
from gtr_envs.cards.deck import SUITS, Card, parse_card
from gtr_envs.cards.faces import PIPS, draw_card
from gtr_envs.styles import CLASSIC

HAND = [parse_card(name) for name in ("HT", "D6", "DQ", "S4")]


@pytest.mark.parametrize("size", [64, 96, 300, 511])
def test_each_card_lies_fully_inside_its_quadrant(size: int) -> None:
    picture = draw_table(HAND, "", size)
    half = size // 2
    strip_top = round(272 * size / 300)
    paper = (picture == CLASSIC.colors.card).all(axis=2)
    quadrants = [paper[:half, :half], paper[:half, half:], paper[half:, :half], paper[half:, half:]]
    assert all(quadrant.mean() > 0.1 for quadrant in quadrants)
    assert (picture[0] == CLASSIC.colors.table).all()
    for column in (0, half, size - 1):
        assert (picture[:strip_top, column] == CLASSIC.colors.table).all()
    assert (picture[half - 1] == CLASSIC.colors.table).all()


def test_the_grid_is_where_it_is_promised_at_300_pixels() -> None:
    card = (draw_table(HAND, "", 300) != CLASSIC.colors.table).any(axis=2)
    rows, columns = np.flatnonzero(card[:150, :150].any(axis=1)), np.flatnonzero(card[:150, :150].any(axis=0))
    assert (rows[0], rows[-1]) == (20, 133)
    assert (columns[0], columns[-1]) == (34, 115)
    lower = np.flatnonzero(card[150:270, :150].any(axis=1)) + 150
    assert (lower[0], lower[-1]) == (154, 267)


@pytest.mark.parametrize("detailed", [False, True])
def test_all_cards_look_different(detailed: bool) -> None:
    size = (82, 114) if detailed else (26, 36)
    cards = [Card(suit, rank) for suit in SUITS for rank in range(1, 14)]
    pictures = np.stack([draw_card(card, *size, detailed=detailed) for card in cards]).astype(np.int16)
    for place, picture in enumerate(pictures):
        differing = (np.abs(pictures[place + 1 :] - picture).max(axis=3) > 60).mean(axis=(1, 2))
        assert (differing > 0.005).all()  # at least one pixel in two hundred differs clearly


def test_every_number_card_has_as_many_pips_as_its_value() -> None:
    assert {rank: len(set(places)) for rank, places in PIPS.items()} == {rank: rank for rank in range(2, 11)}
    assert all(9 < x < 73 and 9 < y < 105 for places in PIPS.values() for x, y in places)


def test_hearts_and_diamonds_are_red_and_clubs_and_spades_black() -> None:
    for suit in SUITS:
        card = draw_card(Card(suit, 8), 82, 114, detailed=True).astype(int)
        redness = int((card[..., 0] - card[..., 1]).max())
        assert (redness > 150) == (suit in "DH")


@pytest.mark.parametrize("size", [64, 96, 300])
def test_the_formula_changes_the_strip_and_nothing_else(size: int) -> None:
    top, bottom = round(272 * size / 300), round(298 * size / 300)
    empty, written = draw_table(HAND, "", size), draw_table(HAND, "(5-", size)
    assert (empty != written)[top:bottom].any()
    assert not (empty != written)[:top].any()
    assert not (empty != written)[bottom:].any()


@pytest.mark.parametrize("size", [64, 96, 300])
@pytest.mark.parametrize("text", ["(" * 21, "10+10-" * 7, "((((((((10+10+10+10))))))))"])
def test_a_long_formula_stays_inside_the_strip(size: int, text: str) -> None:
    picture = draw_table(HAND, text, size)
    top, bottom = round(272 * size / 300), round(298 * size / 300)
    margin = round(8 * size / 300)
    assert (picture[top:bottom, size - margin :] == CLASSIC.colors.strip).all()
    assert (picture[top:bottom, :margin] == CLASSIC.colors.strip).all()
    assert (picture[top:bottom] != CLASSIC.colors.strip).any()


def test_a_table_of_two_cards_shows_its_goal() -> None:
    twelve, ten = (draw_table(HAND[:2], "", 96, goal) for goal in (12, 10))
    assert (twelve != ten)[48:].any()
    assert not (twelve != ten)[:48].any()
    assert np.array_equal(draw_table(HAND, "", 96, 12), draw_table(HAND, "", 96, 10))


def test_every_picture_is_independent() -> None:
    first = draw_table(HAND, "5", 96)
    first[...] = 0
    assert draw_table(HAND, "5", 96).any()
    assert not draw_card(HAND[0], 26, 36, detailed=False).flags.writeable
