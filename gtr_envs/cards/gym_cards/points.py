"""Decides the public points games: a formula of tokens joined to a text, judged by the value Python would give it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gtr_envs.cards.deck import Card, card_value, checked_cards, draw_ranks, draw_suits
from gtr_envs.cards.formula import END, OPERATORS
from gtr_envs.cards.gym_cards.base import GymCardsEnv, Result
from gtr_envs.cards.gym_cards.expression import ExpressionError, evaluate_text
from gtr_envs.cards.gym_cards.frames import draw_ezpoints, draw_points24
from gtr_envs.errors import OptionError
from gtr_envs.rendering import Frame

WIN_REWARD = 10
PENALTY = -1
BLANK = " "
"""What an illegal number leaves in the formula."""


class GymCardsFormulaEnv(GymCardsEnv):
    """What both points games share: how tokens are played and how the formula is judged."""

    n_cards: ClassVar[int]
    """How many cards lie on the table."""
    signs: ClassVar[tuple[str, ...]]
    """Action tokens after the numbers, in index order."""
    max_tokens: ClassVar[int]
    """How many entries fit into the formula, blanks included."""

    def __init__(self, *, faces_count_ten: bool, target_points: float, render_mode: str | None) -> None:
        """Set up the game; nothing is dealt.

        Args:
            faces_count_ten: True if jack, queen and king count 10, False if they count 11, 12 and 13.
            target_points: The value to reach.
            render_mode: None, ``"human"`` or ``"rgb_array"``.

        Raises:
            OptionError: If the target is no number or the render mode is unknown.
        """
        if not _is_number(target_points):
            raise OptionError(f"Expected target_points as a number, got {target_points!r}.")
        self.faces_count_ten = faces_count_ten
        self.target_points = target_points
        numbers = range(1, 11 if faces_count_ten else 14)
        self._tokens: tuple[int | str, ...] = (*numbers, *self.signs)
        super().__init__([str(token) for token in self._tokens], render_mode)
        self._cards: tuple[Card, ...] = ()
        self._numbers: tuple[int, ...] = ()
        self._formula: list[int | str] = []

    @abstractmethod
    def _deal(self) -> tuple[Card, ...]:
        """Draw a hand from ``self.np_random``."""

    def _begin(self, options: Mapping[str, Any]) -> None:
        self._cards = checked_cards("options['cards']", options["cards"], self.n_cards) if options else self._deal()
        self._numbers = tuple(card_value(card.rank, faces_count_ten=self.faces_count_ten) for card in self._cards)
        self._formula = []

    def _play(self, action: int) -> Result:
        token = self._tokens[action]
        if len(self._formula) >= self.max_tokens:
            return Result(PENALTY, truncated=True)
        if isinstance(token, int) and self._formula.count(token) >= self._numbers.count(token):
            self._formula.append(BLANK)
            return Result(PENALTY)
        if token == END:
            return Result(self._judge(), terminated=True)
        self._formula.append(token)
        return Result(0)

    def _judge(self) -> int:
        """The reward for the formula as it stands."""
        if sum(isinstance(token, int) for token in self._formula) != self.n_cards:
            return PENALTY
        try:
            value = evaluate_text("".join(map(str, self._formula)))
        except ExpressionError:
            return PENALTY
        return WIN_REWARD if value == self.target_points else PENALTY

    def _inform(self) -> dict[str, Any]:
        return {
            "Cards": [card.name for card in self._cards],
            "Numbers": list(self._numbers),
            "Formula": list(self._formula),
        }


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer)) and not isinstance(value, bool)


class GymCardsPoints24Env(GymCardsFormulaEnv):
    r"""The 24-points game with the rules of the public package.

    ## Description

    Four cards lie on the table. The player writes a formula, one token per action. At `=` the tokens are joined to a
    text and get the value that Python would give it, floats and all: `8/(3-8/3)` is 23.99999999999999 and loses,
    while joined digits (`2`, `4`), `**`, `//` and signs count. The fixed game is `Points24-v0`.

    ## Action Space

    `Discrete(17)`, in index order: `1` ... `10`, `+`, `-`, `*`, `/`, `(`, `)`, `=`. With
    `treat_face_cards_as_10=False` `Discrete(20)`: the numbers go to `13`.

    ## Observation Space

    `Box(0, 255, (300, 300, 3), uint8)`: the cards in a row and the formula.

    ## Rewards

    Of type `int`; the checks are made in this order.

    | event | reward |
    |---|---|
    | any action when the formula has 21 entries | -1 |
    | a number used more often than the hand holds it | -1 |
    | `=` after a formula over all four cards whose value equals the target | +10 |
    | `=` after anything else, also when Python would raise | -1 |
    | any other action; operators and brackets are never checked | 0 |

    ## Starting State

    Four ranks, each uniform on ace to king, with replacement, then four suits. 73.09 % of the hands can be won by the
    rules of the fixed game. `reset` takes `options={"cards": ["HT", "D6", "DQ", "S4"]}`.

    ## Episode End

    | ending | when |
    |---|---|
    | terminated | `=` is played |
    | truncated | any action when the formula has 21 entries |

    An illegal number leaves a blank, `" "`, in the formula.

    ## Information

    | key | value |
    |---|---|
    | `Cards` | names such as `"HT"`, `list[str]` |
    | `Numbers` | card values in the same order, `list[int]` |
    | `Formula` | entries so far: `int` for numbers, `str` for signs and blanks |

    ## Arguments

    | name | default | meaning |
    |---|---|---|
    | `treat_face_cards_as_10` | True | False: J, Q, K count 11, 12, 13 |
    | `target_points` | 24 | value to reach |
    | `render_mode` | None | `"human"` opens a window, `"rgb_array"` returns frames |

    ## Prompt

    None. The trainers of the publications wrote prompts of their own from `info`.

    ## Known limits

    Success here is not the share of solved hands: 89 of the 149 unsolvable hands pay by joining, power or floor
    division. Powers beyond `2 ** 1048576` count as a failed formula.

    ## References

    Zhai et al., Fine-Tuning Large Vision-Language Models as Decision-Making Agents via Reinforcement Learning,
    arXiv 2405.10292.

    ## Version History

    * v0: the rules of the public package.
    """

    n_cards: ClassVar[int] = 4
    signs: ClassVar[tuple[str, ...]] = (*OPERATORS, "(", ")", END)
    max_tokens: ClassVar[int] = 21

    def __init__(
        self, treat_face_cards_as_10: bool = True, target_points: float = 24, render_mode: str | None = None
    ) -> None:
        """Set up the game; nothing is dealt. The arguments are described with the class.

        Args:
            treat_face_cards_as_10: True if jack, queen and king count 10, False if they count 11, 12 and 13.
            target_points: The value to reach.
            render_mode: None, ``"human"`` or ``"rgb_array"``.

        Raises:
            OptionError: If an argument cannot be used.
        """
        super().__init__(faces_count_ten=treat_face_cards_as_10, target_points=target_points, render_mode=render_mode)

    def _deal(self) -> tuple[Card, ...]:
        return draw_suits(self.np_random, draw_ranks(self.np_random, self.n_cards))

    def _draw(self) -> Frame:
        return draw_points24(self._cards, self._formula)


class GymCardsEZPointsEnv(GymCardsFormulaEnv):
    r"""The 12-points game with the rules of the public package.

    ## Description

    Two cards lie on the table. The player writes a formula, one token per action, which at `=` gets the value that
    Python would give to the joined tokens. The fixed game is `EZPoints-v0`.

    ## Action Space

    `Discrete(13)`, in index order: `1` ... `10`, `+`, `*`, `=`.

    ## Observation Space

    `Box(0, 255, (300, 300, 3), uint8)`: two large cards and the formula.

    ## Rewards

    Of type `int`; the checks are made in this order.

    | event | reward |
    |---|---|
    | any action when the formula has 6 entries | -1 |
    | a number used more often than the hand holds it | -1 |
    | `=` after a formula over both cards whose value equals the target | +10 |
    | `=` after anything else, also when Python would raise | -1 |
    | any other action; operators are never checked | 0 |

    ## Starting State

    The first rank is uniform on 2 to king and counts 10 at most. If its value is 2, 3, 4 or 6 the partner makes a
    product of 12 with probability 1/2, otherwise a sum of 12; the partner is never a face card. The order of the two
    cards is random. `reset` takes `options={"cards": ["H2", "DQ"]}`, any two cards.

    ## Episode End

    | ending | when |
    |---|---|
    | terminated | `=` is played |
    | truncated | any action when the formula has 6 entries |

    An illegal number leaves a blank, `" "`, in the formula, so three of them make the episode unwinnable.

    ## Information

    | key | value |
    |---|---|
    | `Cards` | names such as `"HT"`, `list[str]` |
    | `Numbers` | card values in the same order, `list[int]` |
    | `Formula` | entries so far: `int` for numbers, `str` for signs and blanks |

    ## Arguments

    | name | default | meaning |
    |---|---|---|
    | `target_points` | 12 | value to reach; the deal stays that of 12 |
    | `render_mode` | None | `"human"` opens a window, `"rgb_array"` returns frames |

    ## Prompt

    None. The trainers of the publications wrote prompts of their own from `info`.

    ## Known limits

    A player that always adds wins 5/6 of the hands.

    ## References

    Zhai et al., Fine-Tuning Large Vision-Language Models as Decision-Making Agents via Reinforcement Learning,
    arXiv 2405.10292.

    ## Version History

    * v0: the rules of the public package.
    """

    n_cards: ClassVar[int] = 2
    signs: ClassVar[tuple[str, ...]] = ("+", "*", END)
    max_tokens: ClassVar[int] = 6

    def __init__(self, target_points: float = 12, render_mode: str | None = None) -> None:
        """Set up the game; nothing is dealt. The arguments are described with the class.

        Args:
            target_points: The value to reach.
            render_mode: None, ``"human"`` or ``"rgb_array"``.

        Raises:
            OptionError: If an argument cannot be used.
        """
        super().__init__(faces_count_ten=True, target_points=target_points, render_mode=render_mode)

    def _deal(self) -> tuple[Card, ...]:
        rank = int(self.np_random.integers(2, 14))
        value = card_value(rank, faces_count_ten=True)
        multiplies = value in (2, 3, 4, 6) and self.np_random.integers(2)
        first, second = draw_suits(self.np_random, (rank, 12 // value if multiplies else 12 - value))
        return (second, first) if self.np_random.integers(2) else (first, second)

    def _draw(self) -> Frame:
        return draw_ezpoints(self._cards, self._formula)
