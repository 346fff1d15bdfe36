"""Decides the public number line: walk from one number to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gtr_envs.cards.gym_cards.base import GymCardsEnv, Result
from gtr_envs.cards.gym_cards.frames import draw_number_line
from gtr_envs.checks import checked_int, is_int
from gtr_envs.errors import OptionError
from gtr_envs.rendering import Frame

LEFT = 0
"""Index of the action ``-``."""


class GymCardsNumberLineEnv(GymCardsEnv):
    r"""The number line with the rules of the public package.

    ## Description

    The picture shows two numbers, where the player is and where to go. Each action moves by one.

    ## Action Space

    `Discrete(2)`: 0 is `-`, 1 is `+`.

    ## Observation Space

    `Box(0, 255, (300, 300, 3), uint8)`: both numbers in words and figures.

    ## Rewards

    Of type `int`.

    | event | reward |
    |---|---|
    | the target is reached | +1 |
    | the distance has not become smaller, as at the ends of the line | -1 |
    | the distance has become smaller | 0 |

    ## Starting State

    Current and target are independent and uniform on 0 to `max_position`. If they are equal the target becomes
    (target + 1) modulo `max_position`, which never is `max_position`: six of the thirty pairs of the default game are
    twice as likely as the others. `reset` takes `options={"current": 4, "target": 2}`, two different numbers.

    ## Episode End

    | ending | when |
    |---|---|
    | terminated | the target is reached |
    | truncated | after 2 * `max_position` steps |

    ## Information

    | key | value |
    |---|---|
    | `Target`, `Current` | the two numbers, `int` |

    ## Arguments

    | name | default | meaning |
    |---|---|---|
    | `max_position` | 5 | last number of the line, at least 1 |
    | `render_mode` | None | `"human"` opens a window, `"rgb_array"` returns frames |

    ## Prompt

    None. The trainers of the publications wrote prompts of their own.

    ## Known limits

    With `max_position=1` a quarter of the episodes begins on the target, where `-` pays +1 at once.

    ## References

    Zhai et al., Fine-Tuning Large Vision-Language Models as Decision-Making Agents via Reinforcement Learning,
    arXiv 2405.10292.

    ## Version History

    * v0: the rules of the public package.
    """

    option_names: tuple[str, ...] = ("current", "target")

    def __init__(self, max_position: int = 5, render_mode: str | None = None) -> None:
        """Set up the game; nothing is drawn. The arguments are described with the class.

        Args:
            max_position: Last number of the line, at least 1.
            render_mode: None, ``"human"`` or ``"rgb_array"``.

        Raises:
            OptionError: If an argument cannot be used.
        """
        self.max_position = checked_int("max_position", max_position, least=1)
        super().__init__(["-", "+"], render_mode)
        self._current = 0
        self._target = 0
        self._n_steps = 0

    def _begin(self, options: Mapping[str, Any]) -> None:
        self._current, self._target = self._chosen(options) if options else self._dealt()
        self._n_steps = 0

    def _play(self, action: int) -> Result:
        self._n_steps += 1
        before = abs(self._current - self._target)
        moved = self._current - 1 if action == LEFT else self._current + 1
        self._current = min(max(moved, 0), self.max_position)
        distance = abs(self._current - self._target)
        if distance == 0:
            return Result(1, terminated=True)
        return Result(0 if distance < before else -1, truncated=self._n_steps >= 2 * self.max_position)

    def _inform(self) -> dict[str, Any]:
        return {"Target": self._target, "Current": self._current}

    def _draw(self) -> Frame:
        return draw_number_line(self._current, self._target)

    def _dealt(self) -> tuple[int, int]:
        current, target = (int(number) for number in self.np_random.integers(0, self.max_position + 1, size=2))
        return current, (target + 1) % self.max_position if current == target else target

    def _chosen(self, options: Mapping[str, Any]) -> tuple[int, int]:
        """The numbers of ``reset(options=...)``."""
        numbers: list[Any] = [options.get(name) for name in self.option_names]
        if not all(is_int(number) and 0 <= number <= self.max_position for number in numbers):
            raise OptionError(
                f"Expected the options 'current' and 'target' as whole numbers from 0 to {self.max_position}, got "
                f"{dict(options)!r}."
            )
        if numbers[0] == numbers[1]:
            raise OptionError(f"Expected different numbers as 'current' and 'target', got {dict(options)!r}.")
        return int(numbers[0]), int(numbers[1])
