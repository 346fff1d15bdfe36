"""Decides the rules of Blackjack on an infinite deck: hands, the dealer, what is paid, and the best way to play."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

LIMIT = 21
"""A hand above this sum is bust."""
DEALER_STANDS = 17
"""The dealer draws below this sum; a soft 17 stands too."""
CARD_SHARES: tuple[tuple[int, float], ...] = (*((value, 1 / 13) for value in range(1, 10)), (10, 4 / 13))
"""Card values with their probabilities; ten, jack, queen and king count 10, the ace 1."""
STAND, HIT = "stand", "hit"
"""The two actions."""
BUST = 0
"""What a bust hand counts when hands are compared."""


class HandValue(NamedTuple):
    """What a hand counts."""

    total: int
    """The sum, with one ace as 11 if that does not exceed 21."""
    usable_ace: bool
    """True if an ace counts 11."""

    @property
    def score(self) -> int:
        """The sum, or :data:`BUST` above 21."""
        return self.total if self.total <= LIMIT else BUST

    def with_card(self, value: int) -> HandValue:
        """Add a card.

        Args:
            value: 1 (ace) to 10.

        Returns:
            The value of the larger hand.

        >>> HandValue(16, True).with_card(10)
        HandValue(total=16, usable_ace=False)
        """
        hard = self.total - 10 * self.usable_ace + value
        # An ace that once had to count 1 never counts 11 again: the sum only grows.
        usable = (self.usable_ace or value == 1) and hard + 10 <= LIMIT
        return HandValue(hard + 10 * usable, usable)


EMPTY_HAND = HandValue(0, False)


def hand_value(ranks: Sequence[int]) -> HandValue:
    """Add up a hand.

    Args:
        ranks: Ranks of the cards, each 1 (ace) to 13 (king).

    Returns:
        Its sum, and whether an ace counts 11.

    >>> hand_value([1, 13]), hand_value([1, 1, 9])
    (HandValue(total=21, usable_ace=True), HandValue(total=21, usable_ace=True))
    """
    value = EMPTY_HAND
    for rank in ranks:
        value = value.with_card(min(rank, 10))
    return value


def is_natural(ranks: Sequence[int]) -> bool:
    """Say whether a hand is an ace with a card that counts 10, and nothing else.

    Args:
        ranks: Ranks of the cards, each 1 (ace) to 13 (king).

    Returns:
        True for 21 with two cards.
    """
    return len(ranks) == 2 and hand_value(ranks).total == LIMIT


def stand_reward(player: Sequence[int], dealer: Sequence[int], *, natural: bool = False, sab: bool = False) -> float:
    """Compare the final hands.

    Args:
        player: Ranks of the player's cards, which are not bust.
        dealer: Ranks of the dealer's cards.
        natural: A won natural pays 1.5.
        sab: A natural wins against everything but a natural; no hand pays 1.5, whatever ``natural`` says.

    Returns:
        1.5, 1, 0 or -1.
    """
    ours, theirs = hand_value(player).score, hand_value(dealer).score
    reward = float(ours > theirs) - float(ours < theirs)
    if is_natural(player):
        if sab:
            return 0.0 if is_natural(dealer) else 1.0
        if natural and reward > 0:
            return 1.5
    return reward


@cache
def dealer_scores(hand: HandValue) -> tuple[tuple[int, float], ...]:
    """Say where the dealer ends.

    Args:
        hand: The dealer's hand so far; one card is ``EMPTY_HAND.with_card(value)``.

    Returns:
        Pairs of a final score (17 to 21, or :data:`BUST`) and its probability, each score once.
    """
    if hand.total >= DEALER_STANDS:
        return ((hand.score, 1.0),)
    shares: dict[int, float] = {}
    for value, share in CARD_SHARES:
        for score, probability in dealer_scores(hand.with_card(value)):
            shares[score] = shares.get(score, 0.0) + share * probability
    return tuple(sorted(shares.items()))


@cache
def action_values(hand: HandValue, dealer_value: int) -> tuple[float, float]:
    """Compute what standing and hitting are worth when every later decision is the best one.

    The values are those of the plain rules. ``natural`` and ``sab`` only raise what a natural is paid for standing,
    which is the best action with 21 anyway, and no hit leads to a natural; so the better action is the same under all
    rules.

    Args:
        hand: The player's hand, not bust.
        dealer_value: Value of the dealer's visible card, 1 (ace) to 10.

    Returns:
        The expected return of standing, and that of hitting.
    """
    stand = sum(
        probability * (float(hand.score > score) - float(hand.score < score))
        for score, probability in dealer_scores(EMPTY_HAND.with_card(dealer_value))
    )
    hit = 0.0
    for value, share in CARD_SHARES:
        larger = hand.with_card(value)
        hit += share * (-1.0 if larger.score == BUST else max(action_values(larger, dealer_value)))
    return stand, hit


def best_action(hand: HandValue, dealer_value: int) -> str:
    """Choose the action with the larger expected return.

    Args:
        hand: The player's hand, not bust.
        dealer_value: Value of the dealer's visible card, 1 (ace) to 10.

    Returns:
        :data:`STAND` or :data:`HIT`.

    >>> best_action(HandValue(16, False), 10), best_action(HandValue(16, False), 6)
    ('hit', 'stand')
    """
    stand, hit = action_values(hand, dealer_value)
    return STAND if stand >= hit else HIT
