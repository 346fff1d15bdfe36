"""Decides the public blackjack: an infinite deck, hit or stand, and options that do nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from gtr_envs.cards.deck import SUITS, checked_cards, parse_card
from gtr_envs.cards.gym_cards.base import GymCardsEnv, Result
from gtr_envs.cards.gym_cards.frames import draw_blackjack
from gtr_envs.errors import OptionError
from gtr_envs.rendering import Frame

DECK = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10, 10)
"""Values that a drawn card takes with equal probability."""
FACES = "JQK"
"""What a card of value 10 shows; a ten with pips is never drawn."""
DEALER_STANDS_AT = 17
HIT = 1
"""Index of the action ``hit``."""

BlackjackCard = tuple[int, str, str]
"""Value, face and suit, such as ``(10, "Q", "H")``; the value of an ace is 1."""


class GymCardsBlackjackEnv(GymCardsEnv):
    r"""Blackjack with the rules of the public package.

    ## Description

    The player takes cards until it stands or has more than 21 points; then the dealer takes cards below 17 points. An
    ace counts 11 if that does not exceed 21, otherwise 1. Cards come from an infinite deck.

    ## Action Space

    `Discrete(2)`: 0 is `stand`, 1 is `hit`.

    ## Observation Space

    `Box(0, 255, (300, 300, 3), uint8)`: the dealer's first card, a card back, and the player's cards. With
    `is_pixel=False` `Tuple(Discrete(32), Discrete(11), Discrete(2))`: the player's points, the value of the dealer's
    first card, and 0.

    ## Rewards

    Of type `float`.

    | event | reward |
    |---|---|
    | the player stands with more points than the dealer, or the dealer has more than 21 | +1.0 |
    | the player stands with as many points as the dealer | 0.0 |
    | the player stands with fewer points, or has more than 21 | -1.0 |
    | a card is taken and the game goes on | 0.0 |

    ## Starting State

    Two cards for the dealer, two for the player. Values 1 to 9 have probability 1/13 each, 10 has 4/13 and shows J, Q
    or K. With the same seed and version of NumPy the cards are those of the public package. `reset` takes
    `options={"cards": ["HQ", "D4", "CA", "C9"]}`, in the order of the deal: the dealer's open and hidden card, then
    the player's two.

    ## Episode End

    | ending | when |
    |---|---|
    | terminated | the player stands, or has more than 21 points |

    ## Information

    | key | value |
    |---|---|
    | `Dealer Card`, `Player Card` | cards as `(value, face, suit)`, such as `(10, "Q", "H")`, `list` |

    The dealer's hidden card is told at all times.

    ## Arguments

    | name | default | meaning |
    |---|---|---|
    | `render_mode` | None | `"human"` opens a window, `"rgb_array"` returns frames |
    | `natural`, `sab` | False | no effect, as in the public package |
    | `is_pixel` | True | False: a tuple of three numbers as the observation |

    ## Prompt

    None. The trainers of the publications wrote prompts of their own.

    ## Known limits

    The fifth card of the player lies outside of the frame, and later ones are cut off. The frame does not change when
    the player stands. The third number of the tuple, the usable ace, is always 0.

    ## References

    Zhai et al., Fine-Tuning Large Vision-Language Models as Decision-Making Agents via Reinforcement Learning,
    arXiv 2405.10292; Sutton and Barto, Reinforcement Learning: An Introduction, example 5.1.

    ## Version History

    * v0: the rules of the public package.
    """

    def __init__(
        self, render_mode: str | None = None, natural: bool = False, sab: bool = False, is_pixel: bool = True
    ) -> None:
        """Set up the game; nothing is dealt. The arguments are described with the class.

        Args:
            render_mode: None, ``"human"`` or ``"rgb_array"``.
            natural: Kept, without effect.
            sab: Kept, without effect.
            is_pixel: True for pictures, False for a tuple of three numbers as the observation.

        Raises:
            OptionError: If the render mode is unknown.
        """
        super().__init__(["stand", "hit"], render_mode)
        self.natural, self.sab, self.is_pixel = natural, sab, is_pixel
        if not is_pixel:
            self.observation_space = spaces.Tuple((spaces.Discrete(32), spaces.Discrete(11), spaces.Discrete(2)))
        self._dealer: list[BlackjackCard] = []
        self._player: list[BlackjackCard] = []

    def _begin(self, options: Mapping[str, Any]) -> None:
        if options:
            hand = _chosen_hand(options["cards"])
        else:
            hand = [draw_blackjack_card(self.np_random) for _ in range(4)]
            # The public package draws a suit and a face that it never uses; the cards after them depend on it.
            draw_suit_and_face(self.np_random, hand[0][0])
        self._dealer, self._player = hand[:2], hand[2:]

    def _play(self, action: int) -> Result:
        if action == HIT:
            self._player.append(draw_blackjack_card(self.np_random))
            bust = points(self._player) > 21
            return Result(-1.0 if bust else 0.0, terminated=bust)
        while points(self._dealer) < DEALER_STANDS_AT:
            self._dealer.append(draw_blackjack_card(self.np_random))
        ours, theirs = points(self._player), points(self._dealer)
        theirs = 0 if theirs > 21 else theirs
        return Result(float(ours > theirs) - float(ours < theirs), terminated=True)

    def _inform(self) -> dict[str, Any]:
        return {"Dealer Card": list(self._dealer), "Player Card": list(self._player)}

    def _observe(self) -> Any:
        return self._draw() if self.is_pixel else (points(self._player), self._dealer[0][0], 0)

    def _draw(self) -> Frame:
        dealer, *player = (parse_card(suit + face) for _, face, suit in (self._dealer[0], *self._player))
        return draw_blackjack(dealer, player)


def draw_blackjack_card(rng: np.random.Generator) -> BlackjackCard:
    """Draw a card from the infinite deck.

    Args:
        rng: The generator to draw from: a value, a suit, and a face if the value is 10.

    Returns:
        Value, face and suit.
    """
    value = DECK[rng.integers(len(DECK))]
    suit, face = draw_suit_and_face(rng, value)
    return value, face, suit


def draw_suit_and_face(rng: np.random.Generator, value: int) -> tuple[str, str]:
    """Draw what is printed on a card.

    Args:
        rng: The generator to draw from: a suit, and a face if the value is 10.
        value: Value of the card, 1 to 10.

    Returns:
        Suit and face.
    """
    suit = SUITS[rng.integers(len(SUITS))]
    if value == 10:
        return suit, FACES[rng.integers(len(FACES))]
    return suit, "A" if value == 1 else str(value)


def points(hand: Sequence[BlackjackCard]) -> int:
    """Count the points of a hand.

    Args:
        hand: The cards.

    Returns:
        The sum of the values, with 10 more if there is an ace and the sum stays within 21.
    """
    total = sum(value for value, _, _ in hand)
    has_ace = any(value == 1 for value, _, _ in hand)
    return total + 10 if has_ace and total <= 11 else total


def _chosen_hand(names: object) -> list[BlackjackCard]:
    """The four cards of ``reset(options=...)``."""
    cards = checked_cards("options['cards']", names, 4)
    if any(card.rank == 10 for card in cards):
        raise OptionError(f"Expected cards of this deck, in which a ten is a jack, queen or king, got {names!r}.")
    return [(min(card.rank, 10), card.name[1], card.suit) for card in cards]
