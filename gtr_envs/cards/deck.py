"""Decides what a playing card is, how it is named and how cards are drawn from a seeded generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gtr_envs.errors import OptionError

RANKS = "A23456789TJQK"
"""Rank letters; the ace counts 1 and stands at index 0."""
SUITS = "CDHS"
"""Suit letters: clubs, diamonds, hearts, spades."""


class Card(NamedTuple):
    """One playing card."""

    suit: str
    """One of ``CDHS``."""
    rank: int
    """1 (ace) to 13 (king)."""

    @property
    def name(self) -> str:
        """Suit letter and rank letter, e.g. ``"HT"`` for the ten of hearts."""
        return self.suit + RANKS[self.rank - 1]


def parse_card(name: str) -> Card:
    """Read a card from its name.

    Args:
        name: Suit letter and rank letter, e.g. ``"HT"``, ``"D6"``, ``"CA"``; ``"H10"`` and lower case are read too.

    Returns:
        The card.

    Raises:
        ValueError: If the text does not name a card.

    >>> parse_card("DQ")
    Card(suit='D', rank=12)
    """
    text = str(name).strip().upper().replace("10", "T")
    if len(text) != 2 or text[0] not in SUITS or text[1] not in RANKS:
        raise ValueError(f"expected a card as suit letter ({SUITS}) and rank letter ({RANKS}), e.g. 'HT', got {name!r}")
    return Card(text[0], RANKS.index(text[1]) + 1)


def checked_cards(name: str, cards: object, n_cards: int) -> tuple[Card, ...]:
    """Read the cards that an option names.

    Args:
        name: The option's name, for the message.
        cards: What was given.
        n_cards: How many cards are expected.

    Returns:
        The cards.

    Raises:
        OptionError: If it is no sequence of ``n_cards`` names of cards.
    """
    if isinstance(cards, str) or not isinstance(cards, Sequence) or len(cards) != n_cards:
        raise OptionError(f"Expected {name} as {n_cards} names such as 'HT', got {cards!r}.")
    try:
        return tuple(parse_card(card) for card in cards)
    except ValueError as error:
        raise OptionError(f"Cannot use {name} {list(cards)!r}: {error}.") from error


def card_value(rank: int, *, faces_count_ten: bool) -> int:
    """Return the number a card stands for.

    Args:
        rank: 1 (ace) to 13 (king).
        faces_count_ten: True if jack, queen and king count 10, False if they count 11, 12 and 13.

    Returns:
        The value, 1 to 10 or 1 to 13.
    """
    return min(rank, 10) if faces_count_ten else rank


def draw_ranks(rng: np.random.Generator, n_cards: int) -> tuple[int, ...]:
    """Draw ranks uniformly and independently; the very same card may appear twice.

    Args:
        rng: The generator to draw from.
        n_cards: How many ranks to draw.

    Returns:
        Ranks in table order, each 1 to 13.
    """
    return tuple(rng.integers(1, 14, size=n_cards).tolist())


def draw_suits(rng: np.random.Generator, ranks: tuple[int, ...]) -> tuple[Card, ...]:
    """Give every rank a suit, uniformly and independently.

    Args:
        rng: The generator to draw from.
        ranks: Ranks in table order, each 1 to 13.

    Returns:
        Cards in the same order.
    """
    suits = rng.integers(0, len(SUITS), size=len(ranks)).tolist()
    return tuple(Card(SUITS[suit], rank) for suit, rank in zip(suits, ranks, strict=True))
