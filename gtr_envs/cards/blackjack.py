"""Decides the game VisualBlackjack: hit or stand against a dealer whose second card lies face down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import ceil
from typing import Any, NamedTuple, Unpack

import numpy as np

from gtr_envs.cards.artwork import DETAIL_SIZE, PLAIN, empty_table, layout_of, paste, write_strip
from gtr_envs.cards.blackjack_rules import BUST, DEALER_STANDS, HIT, STAND, best_action, hand_value, stand_reward
from gtr_envs.cards.deck import Card, card_value, checked_cards, draw_ranks, draw_suits
from gtr_envs.cards.faces import draw_card, draw_card_back
from gtr_envs.cards.layouts import CARD_HEIGHT, CARD_WIDTH, REFERENCE_SIZE
from gtr_envs.cards.thoughts import Thought, listed
from gtr_envs.core import Outcome, ViewOptions, VisionTextEnv
from gtr_envs.errors import OptionError, require_known
from gtr_envs.rendering import Canvas, Frame
from gtr_envs.styles import N_NUDGES, Look, Nudge, Style

LOSS_REWARD = -1.0
"""Paid for a bust hand."""
PENALTY = -1.0
"""Paid for an illegal action."""
MAX_ACTIONS = 20
"""Actions after which an episode is cut; legal play never gets there, since the twentieth hit on two aces is bust."""
HIDDEN = "??"
"""Stands for a card that lies face down."""
HANDS = ("dealer", "player")
"""The two hands, from the top of the table."""


class VisualBlackjackEnv(VisionTextEnv):
    r"""Blackjack on pictures of cards, with every card to be read.

    ## Description

    The player takes cards until it stands or exceeds 21; then the dealer turns its hidden card and draws to 17. The
    hand nearer to 21 wins. Cards come from an infinite deck. An ace counts 11 as long as that does not exceed 21.

    ## Action Space

    `Discrete(2)`, in index order: `stand` (take no more cards), `hit` (take one). `gtr_envs.wrappers.TextAction` takes
    the names themselves. Both are always legal.

    ## Observation Space

    `Dict(image, text)`: `image` is uint8 `[image_size, image_size, 3]` with the cards of dealer and player and
    the actions so far; `text` is the actions so far, joined by blanks, empty at first. While the hand is played, the
    dealer's second card lies face down and no sum is shown; at the end all cards and both sums are. Many cards are
    drawn smaller and in several rows, so that none is cut off. With `observe="text"` there is `text` alone, such as
    `"dealer: HQ ??\nplayer: CA C4\nmoves: hit"`.

    ## Rewards

    | event | reward |
    |---|---|
    | hit without exceeding 21 | 0 |
    | hit that exceeds 21 | -1 |
    | stand, and the player's sum is larger or the dealer exceeds 21 | +1 |
    | stand with equal sums | 0 |
    | stand, and the dealer's sum is larger | -1 |
    | stand with a natural (ace and a ten, jack, queen or king) that wins, with `natural=True` | +1.5 |
    | stand with a natural against any hand but a natural, with `sab=True` | +1 |
    | illegal action (text that names no action) | -1 |

    ## Starting State

    Two cards each, the dealer's first one visible. Every card has a uniform rank from ace to king and a uniform suit,
    independent of all others, from the seeded generator. So the values 1 to 9 have probability 1/13 each and 10 has
    4/13. `reset` takes `options={"cards": {"dealer": ["HQ", "D4"], "player": ["CA", "CA"]}}`, the visible card first;
    one of the hands may be left out and is then dealt. Later cards are drawn from the generator.

    `options={"style": "night"}`, alone or with the others, fixes the look of the episode and nothing else.

    ## Episode End

    | ending | when |
    |---|---|
    | terminated | `stand`; a hit that exceeds 21; an illegal action with `illegal="terminate"` |
    | truncated | after 20 actions, which legal play never reaches |

    The dealer draws only after `stand`, and stands on every 17 and above, also with a usable ace.

    ## Information

    | key | value |
    |---|---|
    | `player_cards`, `dealer_cards` | names of the visible cards, `list[str]` such as `"HT"` |
    | `player_sum`, `dealer_sum` | sums of the visible cards, `int` |
    | `usable_ace` | whether an ace of the player counts 11, `bool` |
    | `style` | name of the look of this episode, `str` |
    | `legal_actions`, `action_mask` | legal names, `list[str]`; int8 `[2]`, 1 for legal |
    | `legal` | whether the last action was legal, `bool`; after `step` |
    | `success`, `result` | when the episode ends: `bool`, a draw is no success; `"win"`, `"loss"` or `"draw"` |

    The dealer's second card is in picture and info after the end only. All lists and arrays are copies.

    ## Arguments

    | name | default | meaning |
    |---|---|---|
    | `render_mode` | None | `"human"` opens a window, `"rgb_array"` returns frames |
    | `image_size` | 300 | side of the observed picture in pixels, 64 to 1024; small cards show a large rank |
    | `render_size` | None | side of rendered frames; None takes the larger of `image_size` and 300 |
    | `observe` | `"both"` | `"image"`: no text; `"text"`: no picture, and all it would show in words |
    | `style` | `"classic"` | how it looks: a style, or `"train"` or `"test"` for one of a split in every episode |
    | `natural` | False | True: a natural that wins pays 1.5 |
    | `sab` | False | True: the rules of Sutton and Barto's book; `natural` is ignored then |
    | `illegal` | `"continue"` | or `"terminate"`: an illegal action ends the episode |

    ## Prompt

    `instructions` tells the rules and the names of the actions; the cards are only in the picture. `expert_action()`
    names the action with the larger expected return, computed exactly for the infinite deck; it is the same under all
    rules.

    ## Known limits

    A game of chance: the best player loses more often than it wins. Exact values of the default rules as share of wins,
    of draws, and mean return: best return 42.9 %, 9.5 %, -0.047; hit below 17 40.8 %, 10.5 %, -0.079; always stand
    38.1 %, 5.2 %, -0.186; uniformly random 28.1 %, 4.3 %, -0.396. The best return is -0.026 with `natural=True` and
    -0.043 with `sab=True`. No doubling, splitting, insurance or counting. The number of illegal actions is in neither
    picture nor text.

    ## References

    Rules: Sutton and Barto, Reinforcement Learning: An Introduction, second edition, example 5.1; `natural` and `sab`
    as in Gymnasium's `Blackjack-v1`. Deck: Zhai et al., Fine-Tuning Large Vision-Language Models as Decision-Making
    Agents via Reinforcement Learning, arXiv 2405.10292, environment `gym_cards/Blackjack-v0`.

    ## Version History

    * v0: first version.
    """

    option_names = (*VisionTextEnv.option_names, "cards")
    expert_always_wins = False

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        natural: bool = False,
        sab: bool = False,
        illegal: str = "continue",
        **view: Unpack[ViewOptions],
    ) -> None:
        """Set up the game; nothing is dealt. The arguments are described with the class.

        Args:
            render_mode: None, ``"human"`` or ``"rgb_array"``.
            natural: True pays 1.5 for a natural that wins.
            sab: True lets a natural win against everything but a natural, and ignores ``natural``.
            illegal: ``"continue"`` or ``"terminate"``.
            **view: Size and kind of the observation; see :class:`gtr_envs.core.ViewOptions`.

        Raises:
            OptionError: If an argument cannot be used.
        """
        require_known("illegal", illegal, ("continue", "terminate"))
        for name, switch in (("natural", natural), ("sab", sab)):
            if not isinstance(switch, (bool, np.bool_)):
                raise OptionError(f"Expected {name} as True or False, got {switch!r}.")
        self.natural, self.sab = bool(natural), bool(sab)
        self.ends_on_illegal = illegal == "terminate"
        self._dealer: list[Card] = []
        self._player: list[Card] = []
        self._moves: list[str] = []
        self._n_actions = 0
        self._over = True
        text_length = MAX_ACTIONS * (len(STAND) + 1)
        super().__init__(
            (STAND, HIT),
            text_length=text_length,
            described_length=len("dealer: \nplayer: \nmoves: ") + 2 * 3 * (MAX_ACTIONS + 2) + text_length,
            render_mode=render_mode,
            **view,
        )

    @property
    def instructions(self) -> str:
        """The task in words, for prompts."""
        return (
            f"You are playing Blackjack. The {self.medium} shows the dealer's cards and yours; one card of the "
            "dealer lies face down. Number cards count their number, J, Q and K count 10, an ace counts 11 or, if that "
            "would bring the sum above 21, 1. You win if your sum is nearer to 21 than the dealer's without exceeding "
            "it. Each turn you choose 'hit' to take one more card, or 'stand' to take no more; then the dealer draws "
            f"until its sum is {DEALER_STANDS} or more."
        )

    @property
    def legal_actions(self) -> list[str]:
        """Names of the actions that are legal now, in index order; a new list."""
        return list(self.action_tokens)

    def expert_action(self) -> str | None:
        """Say what the player with the largest expected return does next.

        Returns:
            ``"stand"`` or ``"hit"``; None if no hand is being played.
        """
        if self._over:
            return None
        visible = card_value(self._dealer[0].rank, faces_count_ten=True)
        return best_action(hand_value(_ranks(self._player)), visible)

    def expert_thought(self) -> Thought:
        """Write down what a perfect player thinks in the present state; see :mod:`gtr_envs.cards.thoughts`."""
        action = self.expert_action()
        own, dealer = hand_value(_ranks(self._player)), hand_value(_ranks(self._visible()))
        values = [card_value(card.rank, faces_count_ten=True) for card in (*self._player, *self._visible())]
        kind = "soft " if own.usable_ace else ""
        seen = (
            f"My cards count {listed(values[: len(self._player)])}, which makes {kind}{own.total}. "
            f"The dealer shows {dealer.total}."
        )
        reason = f"I expect more from {action}, so I {action}." if action else "The hand is over."
        return Thought(tuple(values), "", "", f"{seen} {reason}", action)

    def _visible(self) -> list[Card]:
        """The dealer's cards that lie face up."""
        return self._dealer if self._over else self._dealer[:1]

    def _facts(self) -> dict[str, Any]:
        value = hand_value(_ranks(self._player))
        return {
            "player_cards": [card.name for card in self._player],
            "dealer_cards": [card.name for card in self._visible()],
            "player_sum": value.total,
            "dealer_sum": hand_value(_ranks(self._visible())).total,
            "usable_ace": value.usable_ace,
        }

    # --- an episode -------------------------------------------------------------------------------------------------

    def _begin(self, options: Mapping[str, Any]) -> None:
        chosen = _chosen_hands(options["cards"]) if "cards" in options else {}
        self._dealer, self._player = (chosen.get(name) or [self._draw_card(), self._draw_card()] for name in HANDS)
        self._moves = []
        self._n_actions = 0
        self._over = False

    def _draw_card(self) -> Card:
        return draw_suits(self.np_random, draw_ranks(self.np_random, 1))[0]

    def _play(self, action: str) -> Outcome:
        self._n_actions += 1
        outcome = self._played(action)
        if not outcome.terminated and self._n_actions >= MAX_ACTIONS:
            outcome = outcome._replace(truncated=True)
        self._over = outcome.terminated or outcome.truncated
        if self._over:
            tied = outcome.terminated and outcome.reward == 0
            outcome = outcome._replace(facts={"result": "win" if outcome.success else "draw" if tied else "loss"})
        return outcome

    def _played(self, action: str) -> Outcome:
        """What an action leads to, the limit of actions apart."""
        if action not in self.action_tokens:
            return Outcome(PENALTY, legal=False, terminated=self.ends_on_illegal)
        self._moves.append(action)
        if action == HIT:
            self._player.append(self._draw_card())
            bust = hand_value(_ranks(self._player)).score == BUST
            return Outcome(LOSS_REWARD if bust else 0.0, legal=True, terminated=bust)
        while hand_value(_ranks(self._dealer)).total < DEALER_STANDS:
            self._dealer.append(self._draw_card())
        reward = stand_reward(_ranks(self._player), _ranks(self._dealer), natural=self.natural, sab=self.sab)
        return Outcome(reward, legal=True, terminated=True, success=reward > 0)

    def _text(self) -> str:
        return " ".join(self._moves)

    def _described(self) -> str:
        dealer, player = ([card.name for card in hand] for hand in (self._visible(), self._player))
        hidden = [HIDDEN] * (len(self._dealer) - len(dealer))
        return f"dealer: {' '.join(dealer + hidden)}\nplayer: {' '.join(player)}\nmoves: {self._text()}"

    def _draw(self, size: int) -> Frame:
        return draw_hands(self._dealer, self._player, self._text(), size, revealed=self._over, look=self._look)


def _ranks(cards: Sequence[Card]) -> list[int]:
    return [card.rank for card in cards]


def _chosen_hands(hands: object) -> dict[str, list[Card]]:
    """Read the opening hands of ``reset(options=...)``."""
    example = '{"dealer": ["HQ", "D4"], "player": ["CA", "CA"]}'
    if not isinstance(hands, Mapping) or not hands:
        raise OptionError(f"Expected options['cards'] as hands by name such as {example}, got {hands!r}.")
    chosen = {}
    for name, cards in hands.items():
        require_known("hand in options['cards']", name, HANDS)
        chosen[name] = list(checked_cards(f"options['cards'][{name!r}]", cards, 2))
    return chosen


# --- the picture ----------------------------------------------------------------------------------------------------

MARGIN, GAP = 12, 6
LABEL_WIDTH, LABEL_HEIGHT, HAND_HEIGHT = 276, 27, 102
LABEL_TOPS, HAND_TOPS = (4, 137), (31, 164)


class HandPlaces(NamedTuple):
    """Where the cards of one hand lie; all lengths in pixels."""

    width: int
    """Width of each card."""
    height: int
    """Height of each card."""
    places: tuple[tuple[int, int], ...]
    """Left and upper edge of each card, from the corner of the space of the hand."""


@lru_cache(maxsize=256)
def lay_cards(n_cards: int, room_width: int, room_height: int, gap: int) -> HandPlaces:
    """Place cards in as many rows as make them largest.

    Args:
        n_cards: How many cards there are, at least 1.
        room_width: Width of the space of the hand in pixels.
        room_height: Its height.
        gap: Pixels between cards.

    Returns:
        Equal cards inside the space that do not touch, in rows from the left.
    """

    def height_in(n_rows: int) -> float:
        n_columns = ceil(n_cards / n_rows)
        widest = (room_width - gap * (n_columns - 1)) / n_columns
        return min((room_height - gap * (n_rows - 1)) / n_rows, widest * CARD_HEIGHT / CARD_WIDTH)

    n_rows = max(range(1, n_cards + 1), key=height_in)
    n_columns = ceil(n_cards / n_rows)
    height = int(height_in(n_rows))
    width = int(height * CARD_WIDTH / CARD_HEIGHT)
    places = tuple(((width + gap) * (i % n_columns), (height + gap) * (i // n_columns)) for i in range(n_cards))
    return HandPlaces(width, height, places)


def draw_hands(
    dealer: Sequence[Card],
    player: Sequence[Card],
    moves_text: str,
    size: int,
    *,
    revealed: bool,
    look: Look = PLAIN,
) -> Frame:
    """Draw the table as the player sees it.

    Args:
        dealer: The dealer's cards.
        player: The player's cards.
        moves_text: The actions so far.
        size: Side of the square picture in pixels, at least 64.
        revealed: True shows all cards and the sums; False only the back of the dealer's cards after the first.
        look: The style, and how the cards lie.

    Returns:
        A new picture, uint8 [size, size, 3]; it shares no memory with any other.
    """
    scale = size / REFERENCE_SIZE
    layout = layout_of(look.style)
    frame = empty_table(size, look.style)
    rows = [*zip(LABEL_TOPS, HAND_TOPS, strict=True)]
    if layout.swapped:
        rows.reverse()
    for name, cards, (label_top, hand_top) in zip(HANDS, (dealer, player), rows, strict=True):
        text = name.capitalize() + (_said_sum(cards) if revealed else "")
        label = _label(text, round(LABEL_WIDTH * scale), round(LABEL_HEIGHT * scale), look.style)
        paste(frame, label, round(MARGIN * scale), round((label_top + layout.field_top) * scale))
        n_open = len(cards) if revealed or name == "player" else 1
        # The hands take different nudges, while there are enough of them.
        nudges = [look.nudge(place + N_NUDGES // 2 * (name == "player")) for place in range(len(cards))]
        _draw_hand(frame, cards, n_open, round((hand_top + layout.field_top) * scale), look.style, nudges)
    write_strip(frame, f"Moves: {moves_text}", size, look.style)
    return frame


def _said_sum(cards: Sequence[Card]) -> str:
    value = hand_value(_ranks(cards))
    return f": {value.total}" + (" (bust)" if value.score == BUST else "")


def _draw_hand(
    frame: Frame, cards: Sequence[Card], n_open: int, top: int, style: Style, nudges: Sequence[Nudge]
) -> None:
    """Put a hand on the table; cards after the first ``n_open`` lie face down."""
    scale = len(frame) / REFERENCE_SIZE
    margin, gap = round(MARGIN * scale), max(1, round(GAP * scale))
    width, height, places = lay_cards(len(cards), len(frame) - 2 * margin, round(HAND_HEIGHT * scale), gap)
    detailed = height >= CARD_HEIGHT * DETAIL_SIZE / REFERENCE_SIZE
    n_columns = len({x for x, _ in places})
    # A hand at the right edge is still read from its left.
    left = len(frame) - margin - n_columns * (width + gap) + gap if layout_of(style).from_right else margin
    for place, (card, nudge, (x, y)) in enumerate(zip(cards, nudges, places, strict=True)):
        picture = (
            draw_card(card, width, height, detailed=detailed, style=style, nudge=nudge)
            if place < n_open
            else draw_card_back(width, height, style=style, nudge=nudge)
        )
        paste(frame, picture, left + x, top + y)


@lru_cache(maxsize=256)
def _label(text: str, width: int, height: int, style: Style) -> Frame:
    """The name of a hand with its sum."""
    canvas = Canvas(width, height, style.colors.table, font=style.font)
    canvas.write(text, (0, height / 2), height * 1.2, width, style.colors.text)
    return canvas.frame()
