"""Decides the game EZPoints: two cards, plus and times, and the value 12 to reach."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Unpack

from gtr_envs.cards.arithmetic import CardArithmeticEnv
from gtr_envs.cards.formula import END
from gtr_envs.core import ViewOptions
from gtr_envs.errors import require_known

TARGET = 12
SUM_HANDS = ((2, 10), (3, 9), (4, 8), (5, 7), (6, 6))
"""Values whose sum is 12; their product is not."""
PRODUCT_HANDS = ((2, 6), (3, 4))
"""Values whose product is 12; their sum is not."""


class EZPointsEnv(CardArithmeticEnv):
    r"""The 12-points game with two cards.

    ## Description

    Two cards lie on the table. The player writes a formula, one token per action, that uses both numbers once and has
    the value 12. Every dealt hand needs either a sum or a product.

    ## Action Space

    `Discrete(13)`, in index order: `1` ... `10`, `+`, `*`, `=`. `gtr_envs.wrappers.TextAction` takes the tokens
    themselves. An action is legal if the hand still holds the number and the grammar allows the token; `=` is legal
    when the formula is a complete expression, whatever its value.

    ## Observation Space

    `Dict(image, text)`: `image` is uint8 `[image_size, image_size, 3]` with the cards, the goal and the formula;
    `text` is the formula so far, tokens joined without separators, empty at first. With `observe="text"` there is
    `text` alone, such as `"cards: HT D2\nformula: 10+"`.

    ## Rewards

    | event | reward |
    |---|---|
    | `=` after a formula over both cards with the value 12 | +10 |
    | `=` after anything else, also an incomplete or empty formula | -1 |
    | illegal action | -1 |
    | action when the formula is full | -1 |
    | any other legal action | 0 |

    ## Starting State

    The needed operator is `+` for the values (2,10), (3,9), (4,8), (5,7), (6,6) and `*` for (2,6), (3,4); no hand
    allows both, and aces are never dealt. The order of the two cards is random.

    * `deal="published"`: the first rank is uniform on 2 to king. If its value is 2, 3, 4 or 6 the partner makes a
      product or a sum with probability 1/2 each, otherwise a sum. Only 1/6 of the hands need a product, so a player
      that always adds wins 5/6 of them.
    * `deal="balanced"`: sum or product with probability 1/2, then one of its hands uniformly; a 10 is uniform among
      ten, jack, queen and king.

    `reset` takes `options={"numbers": [2, 10]}` (card values in table order, random suits; any values) or
    `options={"cards": ["H2", "DQ"]}`.

    `options={"style": "night"}`, alone or with the others, fixes the look of the episode and nothing else.

    ## Episode End

    | ending | when |
    |---|---|
    | terminated | `=` is played; an illegal action with `illegal="terminate"` |
    | truncated | any action when the formula already has `max_tokens` entries |

    An illegal action adds nothing to the formula but takes one of its places.

    ## Information

    | key | value |
    |---|---|
    | `numbers`, `cards` | card values (`list[int]`) and names (`list[str]`, such as `"HT"`) in table order |
    | `formula` | tokens so far, `list[str]` |
    | `operator` | `"+"` or `"*"`, whichever makes 12; None if neither does (chosen hands only) |
    | `style` | name of the look of this episode, `str` |
    | `legal_actions`, `action_mask` | legal tokens, `list[str]`; int8 `[13]`, 1 for legal |
    | `solvable` | whether the hand can be won, `bool` |
    | `legal` | whether the last action was legal, `bool`; after `step` |
    | `success`, `formula_value` | when the episode ends: `bool`; after `=` the value (`float`), None if it has none |

    All lists and arrays are copies.

    ## Arguments

    | name | default | meaning |
    |---|---|---|
    | `render_mode` | None | `"human"` opens a window, `"rgb_array"` returns frames |
    | `image_size` | 300 | side of the observed picture in pixels, 64 to 1024; below 180 cards show a large rank |
    | `render_size` | None | side of rendered frames; None takes the larger of `image_size` and 300 |
    | `observe` | `"both"` | `"image"`: no text; `"text"`: no picture, and all it would show in words |
    | `style` | `"classic"` | how it looks: a style, or `"train"` or `"test"` for one of a split in every episode |
    | `deal` | `"published"` | or `"balanced"` |
    | `illegal` | `"continue"` | or `"terminate"`: an illegal action ends the episode |
    | `max_tokens` | 6 | entries that fit into the formula |
    | `holdout` | () | hands as two ranks 1 to 13 in table order that are never dealt at random |

    ## Prompt

    `instructions` tells the task, the value of every card and the tokens; which cards lie on the table is only in the
    picture. `expert_action()` names the next token of a shortest win.

    ## Known limits

    With seven hands a player can learn the hands by heart. The number of places that illegal actions have taken is in
    neither picture nor text.

    ## References

    Rules, deal and rewards: Zhai et al., Fine-Tuning Large Vision-Language Models as Decision-Making Agents via
    Reinforcement Learning, arXiv 2405.10292, environment `gym_cards/EZPoints-v0`.

    ## Version History

    * v0: first version.
    """

    n_cards: ClassVar[int] = 2
    operators: ClassVar[tuple[str, ...]] = ("+", "*")
    signs: ClassVar[tuple[str, ...]] = ("+", "*", END)

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        deal: str = "published",
        illegal: str = "continue",
        max_tokens: int = 6,
        holdout: Collection[Sequence[int]] = (),
        **view: Unpack[ViewOptions],
    ) -> None:
        """Set up the game; nothing is dealt. The arguments are described with the class.

        Args:
            render_mode: None, ``"human"`` or ``"rgb_array"``.
            deal: ``"published"`` or ``"balanced"``.
            illegal: ``"continue"`` or ``"terminate"``.
            max_tokens: How many entries fit into the formula, at least 4.
            holdout: Hands as two ranks 1 to 13 in table order that are never dealt at random.
            **view: Size and kind of the observation; see :class:`gtr_envs.core.ViewOptions`.

        Raises:
            OptionError: If an argument cannot be used.
        """
        require_known("deal", deal, ("published", "balanced"))
        self._balanced = deal == "balanced"
        super().__init__(
            target=TARGET,
            max_tokens=max_tokens,
            face_cards="ten",
            illegal=illegal,
            holdout=holdout,
            render_mode=render_mode,
            **view,
        )

    @property
    def instructions(self) -> str:
        """The task in words, for prompts."""
        return (
            f"You are playing a card game. The {self.medium} shows two playing cards. Write a formula that uses the "
            f"number of each card exactly once and has the value {TARGET}. A counts 1, J, Q and K count 10. Each turn "
            "you append one token: a number from 1 to 10, an operator (+ *) or '='. Play '=' when the formula is "
            "complete."
        )

    def _facts(self) -> dict[str, Any]:
        first, second = self._numbers
        operator = "+" if first + second == TARGET else "*" if first * second == TARGET else None
        return {**super()._facts(), "operator": operator}

    def _deal(self) -> tuple[int, ...]:
        first, second = self._balanced_pair() if self._balanced else self._published_pair()
        return (second, first) if self.np_random.integers(2) else (first, second)

    def _published_pair(self) -> tuple[int, int]:
        """A rank from 2 to king and a partner that is never a face card."""
        rank = int(self.np_random.integers(2, 14))
        value = self._value(rank)
        divides = value in (2, 3, 4, 6)
        if divides and self.np_random.integers(2):
            return rank, TARGET // value
        return rank, TARGET - value

    def _balanced_pair(self) -> tuple[int, int]:
        """Sum or product first, then one of its hands; a ten is one of the four ranks that count 10."""
        hands = (SUM_HANDS, PRODUCT_HANDS)[self.np_random.integers(2)]
        first, second = hands[self.np_random.integers(len(hands))]
        return first, int(self.np_random.integers(10, 14)) if second == 10 else second
