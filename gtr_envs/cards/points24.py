"""Decides the game Points24: four cards, four operators, brackets, and the value 24 to reach."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar, Unpack

from gtr_envs.cards.arithmetic import CardArithmeticEnv
from gtr_envs.cards.deck import draw_ranks
from gtr_envs.cards.formula import END, OPERATORS
from gtr_envs.core import ViewOptions
from gtr_envs.errors import require_known


class Points24Env(CardArithmeticEnv):
    r"""The 24-points game on pictures of cards.

    ## Description

    Four cards lie on the table. The player writes a formula, one token per action, that uses the number of every card
    exactly once and has the value 24. Values are exact fractions, so `8/(3-8/3)` wins with 3 3 8 8. The formula has a
    grammar: no sign in front of a number, no joined digits, no power, no floor division.

    ## Action Space

    `Discrete(17)`, in index order: `1` ... `10`, `+`, `-`, `*`, `/`, `(`, `)`, `=`. With `face_cards="rank"`
    `Discrete(20)`: the numbers go to `13`. `gtr_envs.wrappers.TextAction` takes the tokens themselves. An action is
    legal if the hand still holds the number and the grammar allows the token; `=` is legal when the formula is a
    complete expression, whatever its value.

    ## Observation Space

    `Dict(image, text)`: `image` is uint8 `[image_size, image_size, 3]` with the cards and the formula; `text` is the
    formula so far, tokens joined without separators, empty at first. With `observe="text"` there is `text` alone, such
    as `"cards: HT D6 CA S4\nformula: (6"`.

    ## Rewards

    | event | reward |
    |---|---|
    | `=` after a formula over all four cards with the value of the target | +10 |
    | `=` after anything else, also an incomplete or empty formula | -1 |
    | illegal action | -1 |
    | action when the formula is full | -1 |
    | any other legal action | 0 |

    ## Starting State

    Four ranks, each uniform on ace to king, with replacement, then four suits; all from the seeded generator. With
    `deal="any"` 73.09 % of the hands can be won; `deal="solvable"` deals again until the hand can be. `reset` takes
    `options={"numbers": [3, 3, 8, 8]}` (card values in table order, random suits) or
    `options={"cards": ["HT", "D6", "DQ", "S4"]}`.

    `options={"style": "night"}`, alone or with the others, fixes the look of the episode and nothing else.

    ## Episode End

    | ending | when |
    |---|---|
    | terminated | `=` is played; an illegal action with `illegal="terminate"` |
    | truncated | any action when the formula already has `max_tokens` entries |

    An illegal action adds nothing to the formula but takes one of its places, as in the public environment, where it
    leaves a blank. `=` takes no place, but is read only while one is free: after at most 20 entries.

    ## Information

    | key | value |
    |---|---|
    | `numbers`, `cards` | card values (`list[int]`) and names (`list[str]`, such as `"HT"`) in table order |
    | `formula` | tokens so far, `list[str]` |
    | `style` | name of the look of this episode, `str` |
    | `legal_actions`, `action_mask` | legal tokens, `list[str]`; int8 `[n_actions]`, 1 for legal |
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
    | `deal` | `"any"` | or `"solvable"` |
    | `face_cards` | `"ten"` | J Q K count 10; `"rank"`: 11, 12, 13 |
    | `target` | 24 | value to reach |
    | `illegal` | `"continue"` | or `"terminate"`: an illegal action ends the episode |
    | `max_tokens` | 21 | entries that fit into the formula |
    | `holdout` | () | hands as four ranks 1 to 13 in table order that are never dealt at random |

    ## Prompt

    `instructions` tells the task, the value of every card and the tokens; which cards lie on the table is only in the
    picture. `expert_action()` names the next token of a shortest win.

    ## Known limits

    The number of places that illegal actions have taken is in neither picture nor text. An operator is legal even if
    no number is left for it, so a legal player can run into a dead end.

    ## References

    Rules and rewards: Zhai et al., Fine-Tuning Large Vision-Language Models as Decision-Making Agents via
    Reinforcement Learning, arXiv 2405.10292, environment `gym_cards/Points24-v0`.

    ## Version History

    * v0: first version.
    """

    n_cards: ClassVar[int] = 4
    operators: ClassVar[tuple[str, ...]] = OPERATORS
    signs: ClassVar[tuple[str, ...]] = (*OPERATORS, "(", ")", END)

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        deal: str = "any",
        face_cards: str = "ten",
        target: int = 24,
        illegal: str = "continue",
        max_tokens: int = 21,
        holdout: Collection[Sequence[int]] = (),
        **view: Unpack[ViewOptions],
    ) -> None:
        """Set up the game; nothing is dealt. The arguments are described with the class.

        Args:
            render_mode: None, ``"human"`` or ``"rgb_array"``.
            deal: ``"any"`` or ``"solvable"``.
            face_cards: ``"ten"`` or ``"rank"``.
            target: The value to reach.
            illegal: ``"continue"`` or ``"terminate"``.
            max_tokens: How many entries fit into the formula, at least 8.
            holdout: Hands as four ranks 1 to 13 in table order that are never dealt at random.
            **view: Size and kind of the observation; see :class:`gtr_envs.core.ViewOptions`.

        Raises:
            OptionError: If an argument cannot be used.
        """
        require_known("deal", deal, ("any", "solvable"))
        self._solvable_only = deal == "solvable"
        super().__init__(
            target=target,
            max_tokens=max_tokens,
            face_cards=face_cards,
            illegal=illegal,
            holdout=holdout,
            render_mode=render_mode,
            **view,
        )

    @property
    def instructions(self) -> str:
        """The task in words, for prompts."""
        faces = "J, Q and K count 10" if self.faces_count_ten else "J counts 11, Q counts 12 and K counts 13"
        return (
            f"You are playing a card game. The {self.medium} shows four playing cards. Write a formula that uses the "
            f"number of each card exactly once and has the value {self.target}. A counts 1, {faces}. Each turn you "
            f"append one token: a number from 1 to {self._largest}, an operator (+ - * /), a bracket or '='. "
            "Play '=' when the formula is complete."
        )

    def _deal(self) -> tuple[int, ...]:
        return draw_ranks(self.np_random, self.n_cards)

    def _wants(self, ranks: tuple[int, ...]) -> bool:
        winnable = not self._solvable_only or self._is_solvable([self._value(rank) for rank in ranks])
        return winnable and super()._wants(ranks)
