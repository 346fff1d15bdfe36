"""Decides the game NumberLine: two numbers to read, and one step at a time towards the target."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, Unpack

from gtr_envs.cards.artwork import PLAIN, empty_table, layout_of, paste, write_strip
from gtr_envs.cards.faces import lay
from gtr_envs.cards.layouts import FIELD_HEIGHT, REFERENCE_SIZE
from gtr_envs.cards.thoughts import Thought
from gtr_envs.checks import checked_int
from gtr_envs.core import Outcome, ViewOptions, VisionTextEnv
from gtr_envs.errors import OptionError, require_known
from gtr_envs.rendering import Canvas, Color, Frame
from gtr_envs.styles import Look, Nudge, Style

LEFT, RIGHT = "-", "+"
"""The two actions."""
WIN_REWARD = 1.0
"""Paid for the move onto the target."""
PENALTY = -1.0
"""Paid for a move that does not come nearer, and for an illegal action."""

MARGIN, PANEL_HEIGHT = 12, 92
PANEL_TOPS, LINE_TOP = (12, 112), 208
MOST_TICKS = 20
"""A longer line is drawn with its two ends only; more ticks would run together."""


class NumberLineEnv(VisionTextEnv):
    r"""Walk along a number line to a target; both numbers are written in the picture.

    ## Description

    The picture shows the number where the player stands and the number where the player should be. Each action moves by
    one. The game is easy once both numbers are read, so it measures reading and comparing, and little else.

    ## Action Space

    `Discrete(2)`, in index order: `-` (one down), `+` (one up). `gtr_envs.wrappers.TextAction` takes the tokens
    themselves. Both are always legal; at the ends of the line, 0 and `max_position`, the outward move stays in place.

    ## Observation Space

    `Dict(image, text)`: `image` is uint8 `[image_size, image_size, 3]` with the words Target and Current, each with its
    number, the line with its two ends, and the moves so far; `text` is the moves so far, joined without separators,
    empty at first. The line carries no mark for either number: with one, the answer could be seen without reading.
    With `observe="text"` there is `text` alone, such as `"target: 4\ncurrent: 2\nmoves: +"`.

    ## Rewards

    | event | reward |
    |---|---|
    | move onto the target | +1 |
    | any other move that comes nearer to the target | 0 |
    | move away from the target, or against an end of the line | -1 |
    | illegal action (text that is no token) | -1 |

    ## Starting State

    Current and target are uniform over all pairs of unequal numbers from 0 to `max_position`, from the seeded
    generator. With `max_position=5` the distance 1, 2, 3, 4, 5 has probability 5/15, 4/15, 3/15, 2/15, 1/15. `reset`
    takes `options={"current": 2, "target": 4}`; if only one is given, the other is uniform over the rest.

    `options={"style": "night"}`, alone or with the others, fixes the look of the episode and nothing else.

    ## Episode End

    | ending | when |
    |---|---|
    | terminated | the target is reached; an illegal action with `illegal="terminate"` |
    | truncated | after `2 * max_position` actions, illegal ones included |

    ## Information

    | key | value |
    |---|---|
    | `current`, `target` | the two numbers, `int` |
    | `style` | name of the look of this episode, `str` |
    | `legal_actions`, `action_mask` | legal tokens, `list[str]`; int8 `[2]`, 1 for legal |
    | `legal` | whether the last action was legal, `bool`; after `step` |
    | `success` | when the episode ends: whether the target was reached, `bool` |

    All lists and arrays are copies.

    ## Arguments

    | name | default | meaning |
    |---|---|---|
    | `render_mode` | None | `"human"` opens a window, `"rgb_array"` returns frames |
    | `image_size` | 300 | side of the observed picture in pixels, 64 to 1024 |
    | `render_size` | None | side of rendered frames; None takes the larger of `image_size` and 300 |
    | `observe` | `"both"` | `"image"`: no text; `"text"`: no picture, and all it would show in words |
    | `style` | `"classic"` | how it looks: a style, or `"train"` or `"test"` for one of a split in every episode |
    | `max_position` | 5 | largest number of the line, at least 2 |
    | `illegal` | `"continue"` | or `"terminate"`: an illegal action ends the episode |

    ## Prompt

    `instructions` tells the task and the tokens; the numbers are only in the picture. `expert_action()` names the move
    towards the target, or None if too few actions are left to reach it.

    ## Known limits

    A player that repeats one token until the reward is -1 and then the other always arrives: reading saves it one
    reward. How many actions are left is not shown, if illegal ones were among them. Numbers of more than four digits
    are hard to read in small pictures.

    Exact values for `max_position=5`: the best return is 1 after 7/3 moves on average; uniformly random moves reach
    the target in 59.8 % of the episodes, with a mean return of -2.58 and 6.36 moves, and a return above 0 in 26.9 %.

    ## References

    Rules and rewards: Zhai et al., Fine-Tuning Large Vision-Language Models as Decision-Making Agents via
    Reinforcement Learning, arXiv 2405.10292, environment `gym_cards/NumberLine-v0`. There a target equal to the
    current number is replaced by the next one, so that neighbours are dealt more often than here.

    ## Version History

    * v0: first version.
    """

    option_names = (*VisionTextEnv.option_names, "current", "target")

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        max_position: int = 5,
        illegal: str = "continue",
        **view: Unpack[ViewOptions],
    ) -> None:
        """Set up the game; nothing is drawn at random. The arguments are described with the class.

        Args:
            render_mode: None, ``"human"`` or ``"rgb_array"``.
            max_position: Largest number of the line, at least 2.
            illegal: ``"continue"`` or ``"terminate"``.
            **view: Size and kind of the observation; see :class:`gtr_envs.core.ViewOptions`.

        Raises:
            OptionError: If an argument cannot be used.
        """
        require_known("illegal", illegal, ("continue", "terminate"))
        self.max_position = checked_int("max_position", max_position, least=2)
        self.max_actions = 2 * self.max_position
        self.ends_on_illegal = illegal == "terminate"
        self._current, self._target = 0, 0
        self._moves: list[str] = []
        self._n_actions = 0
        super().__init__(
            (LEFT, RIGHT),
            text_length=self.max_actions,
            described_length=len("target: \ncurrent: \nmoves: ") + 2 * len(str(self.max_position)) + self.max_actions,
            render_mode=render_mode,
            **view,
        )

    @property
    def instructions(self) -> str:
        """The task in words, for prompts."""
        return (
            f"You are playing a game on a number line. The {self.medium} shows two numbers: the current number and the "
            f"target number, both from 0 to {self.max_position}. Bring the current number to the target. Each turn you "
            "play one token: '+' adds one to the current number, '-' subtracts one."
        )

    @property
    def legal_actions(self) -> list[str]:
        """Names of the actions that are legal now, in index order; a new list."""
        return list(self.action_tokens)

    def expert_action(self) -> str | None:
        """Say what a perfect player does next.

        Returns:
            The move towards the target; None if it was reached, or if too few actions are left.
        """
        distance = self._distance()
        if distance == 0 or distance > self.max_actions - self._n_actions:
            return None
        return RIGHT if self._target > self._current else LEFT

    def expert_thought(self) -> Thought:
        """Write down what a perfect player thinks in the present state; see :mod:`gtr_envs.cards.thoughts`."""
        action = self.expert_action()
        seen = f"The current number is {self._current} and the target is {self._target}."
        if action is None:
            reason = "The target is reached." if self._distance() == 0 else "The target cannot be reached in time."
        else:
            reason = f"The target is {'larger' if action == RIGHT else 'smaller'}, so I play {action}."
        return Thought((self._current, self._target), "", "", f"{seen} {reason}", action)

    def _distance(self) -> int:
        return abs(self._target - self._current)

    def _facts(self) -> dict[str, Any]:
        return {"current": self._current, "target": self._target}

    # --- an episode -------------------------------------------------------------------------------------------------

    def _begin(self, options: Mapping[str, Any]) -> None:
        chosen = {
            name: checked_int(f"options[{name!r}]", position, least=0, most=self.max_position)
            for name, position in options.items()
        }
        current, target = chosen.get("current"), chosen.get("target")
        if current is not None and current == target:
            raise OptionError(f"Expected unequal numbers in options, got current={current} and target={target}.")
        if current is None:
            current = self._draw_position(other=target)
        if target is None:
            target = self._draw_position(other=current)
        self._current, self._target = current, target
        self._moves = []
        self._n_actions = 0

    def _draw_position(self, *, other: int | None) -> int:
        """Draw uniformly from the line, leaving out the other number if there is one."""
        if other is None:
            return int(self.np_random.integers(self.max_position + 1))
        position = int(self.np_random.integers(self.max_position))
        return position + (position >= other)

    def _play(self, action: str) -> Outcome:
        self._n_actions += 1
        truncated = self._n_actions >= self.max_actions
        if action not in self.action_tokens:
            return Outcome(
                PENALTY, legal=False, terminated=self.ends_on_illegal, truncated=truncated and not self.ends_on_illegal
            )
        before = self._distance()
        moved = self._current + (1 if action == RIGHT else -1)
        self._current = min(max(moved, 0), self.max_position)
        self._moves.append(action)
        after = self._distance()
        if after == 0:
            return Outcome(WIN_REWARD, legal=True, terminated=True, success=True)
        return Outcome(0.0 if after < before else PENALTY, legal=True, truncated=truncated)

    def _text(self) -> str:
        return "".join(self._moves)

    def _described(self) -> str:
        return f"target: {self._target}\ncurrent: {self._current}\nmoves: {self._text()}"

    def _draw(self, size: int) -> Frame:
        return draw_number_line(self._current, self._target, self.max_position, self._text(), size, self._look)


def draw_number_line(
    current: int, target: int, max_position: int, moves_text: str, size: int, look: Look = PLAIN
) -> Frame:
    """Draw the game as the player sees it.

    Args:
        current: Where the player stands.
        target: Where the player should be.
        max_position: Largest number of the line.
        moves_text: The moves so far.
        size: Side of the square picture in pixels, at least 64.
        look: The style, and how the signs lie.

    Returns:
        A new picture, uint8 [size, size, 3]; it shares no memory with any other.
    """
    scale = size / REFERENCE_SIZE
    style, layout = look.style, layout_of(look.style)
    frame = _backdrop(max_position, size, style).copy()
    left, height = round(MARGIN * scale), round(PANEL_HEIGHT * scale)
    signs = [("Target", target, style.colors.target), ("Current", current, style.colors.current)]
    if layout.swapped:
        signs.reverse()
    for place, ((word, number, ink), top) in enumerate(zip(signs, PANEL_TOPS, strict=True)):
        sign = _laid_sign(word, number, ink, size - 2 * left, height, style, look.nudge(place))
        paste(frame, sign, left, round((top + layout.field_top) * scale))
    write_strip(frame, f"Moves: {moves_text}", size, style)
    return frame


@lru_cache(maxsize=128)
def _laid_sign(word: str, number: int, ink: Color, width: int, height: int, style: Style, nudge: Nudge) -> Frame:
    """A sign as it lies in its place."""
    return lay(partial(_sign, word, number, ink, style), width, height, style, nudge)


@lru_cache(maxsize=128)
def _sign(word: str, number: int, ink: Color, style: Style, width: int, height: int) -> Frame:
    """A sign with a word at one end and a large number at the other."""
    colors, from_right = style.colors, layout_of(style).from_right
    canvas = Canvas(width, height, colors.table, font=style.font)
    edge = max(0.6, height / 100)
    canvas.box(0, 0, width, height, colors.edge, radius=height / 10)
    canvas.box(edge, edge, width - 2 * edge, height - 2 * edge, colors.card, radius=height / 10 - edge)
    word_left, number_middle = (0.44, 0.2) if from_right else (0.06, 0.8)
    canvas.write(word, (width * word_left, height / 2), height * 0.62, width * 0.52, ink)
    canvas.letters(str(number), (width * number_middle, height / 2), width * 0.32, height * 0.66, ink)
    return canvas.frame()


@lru_cache(maxsize=16)
def _backdrop(max_position: int, size: int, style: Style) -> Frame:
    """The table with the line, its ends and its directions, and an empty strip."""
    scale = size / REFERENCE_SIZE
    colors, field_top = style.colors, layout_of(style).field_top
    top, bottom = round((LINE_TOP + field_top) * scale), round((FIELD_HEIGHT + field_top) * scale)
    canvas = Canvas(size, bottom - top, colors.table, font=style.font)
    first, last, middle = 44.0, 256.0, 18.0
    canvas.letters(LEFT, (20 * scale, middle * scale), 18 * scale, 4 * scale, colors.accent)
    canvas.letters(RIGHT, (280 * scale, middle * scale), 18 * scale, 18 * scale, colors.accent)
    canvas.box(first * scale, (middle - 1.5) * scale, (last - first) * scale, 3 * scale, colors.text)
    n_gaps = max_position if max_position <= MOST_TICKS else 1
    for tick in range(n_gaps + 1):
        x = first + (last - first) * tick / n_gaps
        reach = 9 if tick in (0, n_gaps) else 6
        canvas.box((x - 1.5) * scale, (middle - reach) * scale, 3 * scale, 2 * reach * scale, colors.text)
    for number, x in ((0, first), (max_position, last)):
        canvas.letters(str(number), (x * scale, (middle + 26) * scale), 60 * scale, 20 * scale, colors.text)
    frame = empty_table(size, style)
    frame[top:bottom] = canvas.frame()
    return frame
