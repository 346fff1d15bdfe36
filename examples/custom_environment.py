"""An environment of your own in one file: read the hands of a clock, and write the time digit by digit. No torch.

You say how an episode begins, what an action does, what is shown and what is told. The base class does the rest, the
contract suite finds what was forgotten, and the wrappers take the new environment as they take the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from math import cos, pi, sin
from pathlib import Path
from typing import Any, Unpack

import gymnasium as gym

from gtr_envs.core import Outcome, ViewOptions, VisionTextEnv
from gtr_envs.errors import OptionError
from gtr_envs.rendering import Canvas, Color, Frame
from gtr_envs.testing import check_vision_text_env
from gtr_envs.wrappers import TextAction
from gtr_envs.wrappers.pictures import png_bytes

TIMES = tuple(f"{hour:02d}{minute:02d}" for hour in range(1, 13) for minute in range(0, 60, 5))
"""All times that are shown: hour 1 to 12, minutes in steps of five."""
MAX_ACTIONS = 8
WALL, FACE, INK, HAND = (226, 222, 212), (252, 252, 248), (40, 42, 48), (164, 52, 20)


class ClockEnv(VisionTextEnv):
    """Read a clock.

    The headings below are those of every environment of the suite; the contract suite asks for them.

    ## Description

    The picture shows a clock without numbers. The player writes the time as four digits, one per action: `0735`.

    ## Action Space

    `Discrete(10)`: the digits `0` ... `9`. A digit is legal if some time of the clock begins so.

    ## Observation Space

    `Dict(image, text)`: the clock, uint8 `[image_size, image_size, 3]`, and the digits so far. With `observe="text"`
    the text alone, with the angles of both hands.

    ## Rewards

    | event | reward |
    |---|---|
    | the fourth digit, all four right | +1 |
    | the fourth digit, any of the four wrong | -1 |
    | illegal action; no digit is written | -1 |
    | any other digit | 0 |

    ## Starting State

    Uniform over 144 times, 01:00 to 12:55 in steps of five minutes; or `reset(options={"time": "0735"})`.

    ## Episode End

    Terminated with the fourth digit, truncated after 8 actions.

    ## Information

    `time` is the answer and `written` the digits so far, both `str`; and what every environment tells.

    ## Arguments

    Those every environment has: `render_mode`, `image_size`, `render_size`, `observe`.

    ## Prompt

    `instructions` tells the task and the form of the answer.

    ## Known limits

    Whole minutes between the marks never come.

    ## References

    None; it is made up for this example.

    ## Version History

    * v0: first version.
    """

    option_names = ("time",)

    def __init__(self, render_mode: str | None = None, **view: Unpack[ViewOptions]) -> None:
        """Set up the spaces.

        Args:
            render_mode: None, ``"human"`` or ``"rgb_array"``.
            **view: Size and kind of the observation.
        """
        # The lengths are upper limits: of the digits so far, and of the whole state in words.
        longest = len("short hand: 359.5 degrees\nlong hand: 330 degrees\nwritten: 0735")
        super().__init__(
            [str(digit) for digit in range(10)],
            text_length=4,
            described_length=longest,
            render_mode=render_mode,
            **view,
        )
        self._time, self._written, self._n_actions = TIMES[0], "", 0

    # --- how an episode begins, and what an action does ---------------------------------------------------------------

    def _begin(self, options: Mapping[str, Any]) -> None:
        # All randomness comes from np_random, which reset(seed=...) has seeded.
        time = options.get("time", TIMES[int(self.np_random.integers(len(TIMES)))])
        if time not in TIMES:
            raise OptionError(f"Expected options['time'] as one of the texts {TIMES[0]} to {TIMES[-1]}, got {time!r}.")
        self._time, self._written, self._n_actions = time, "", 0

    def _play(self, action: str) -> Outcome:
        self._n_actions += 1
        if action not in self.legal_actions:
            return Outcome(-1.0, legal=False, truncated=self._n_actions >= MAX_ACTIONS)
        self._written += action
        if len(self._written) < len(self._time):
            return Outcome(0.0, legal=True, truncated=self._n_actions >= MAX_ACTIONS)
        right = self._written == self._time
        return Outcome(1.0 if right else -1.0, legal=True, terminated=True, success=right)

    # --- what may be known --------------------------------------------------------------------------------------------

    @property
    def instructions(self) -> str:
        """The task in words, for prompts."""
        return (
            f"The {self.medium} shows a clock. The short hand tells the hour and the long hand the minutes. Write the "
            "time as four digits, one per turn: two for the hour, 01 to 12, and two for the minutes."
        )

    @property
    def legal_actions(self) -> list[str]:
        """Digits that continue what is written to the beginning of some time."""
        return [digit for digit in self.action_tokens if any(t.startswith(self._written + digit) for t in TIMES)]

    def expert_action(self) -> str | None:
        """Say what a perfect player does next: the next digit, or None if a wrong one is written."""
        written = len(self._written)
        out_of_time = written + MAX_ACTIONS - self._n_actions < len(self._time)
        if out_of_time or written == len(self._time) or not self._time.startswith(self._written):
            return None
        return self._time[written]

    def _facts(self) -> dict[str, Any]:
        return {"time": self._time, "written": self._written}

    # --- what is shown ------------------------------------------------------------------------------------------------

    def _angles(self) -> tuple[float, float]:
        """Angles of the short and the long hand in degrees, clockwise from twelve o'clock."""
        hour, minute = int(self._time[:2]), int(self._time[2:])
        return (hour % 12 * 30 + minute / 2, minute * 6)

    def _text(self) -> str:
        return self._written

    def _described(self) -> str:
        short, long = self._angles()
        return f"short hand: {short:g} degrees\nlong hand: {long:g} degrees\nwritten: {self._written}"

    def _draw(self, size: int) -> Frame:
        # Lengths are shares of the side, so that the clock looks alike in every size.
        canvas = Canvas(size, size, WALL)
        middle = (size / 2, size * 0.45)
        canvas.circle(middle, size * 0.41, INK)
        canvas.circle(middle, size * 0.39, FACE)
        for mark in range(12):
            _draw_bar(canvas, size, mark * 30, (0.30 if mark % 3 == 0 else 0.34), 0.37, 0.014, INK)
        short, long = self._angles()
        _draw_bar(canvas, size, short, -0.05, 0.20, 0.034, INK)
        _draw_bar(canvas, size, long, -0.05, 0.32, 0.020, HAND)
        canvas.circle(middle, size * 0.028, INK)
        canvas.write(f"Time: {self._written}", (size / 2, size * 0.935), size * 0.12, size * 0.9, INK, centered=True)
        return canvas.frame()


def _draw_bar(canvas: Canvas, size: int, degrees: float, start: float, end: float, width: float, color: Color) -> None:
    """Draw a bar that points away from the middle of the clock; all lengths are shares of the side."""
    x, y = sin(degrees * pi / 180), -cos(degrees * pi / 180)
    corners = ((start, width / 2), (end, width / 2), (end, -width / 2), (start, -width / 2))
    canvas.polygon(
        [(size * (0.5 + x * far - y * aside), size * (0.45 + y * far + x * aside)) for far, aside in corners], color
    )


# A name of a place, not the class itself, lets the specification be written as JSON and read in another process.
gym.register("Clock-v0", entry_point=f"{__name__}:ClockEnv")


def main() -> None:
    """Check the environment, let the expert read a clock, and save what it saw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7, help="picks the time (default: 7)")
    arguments = parser.parse_args()

    check_vision_text_env("Clock-v0", image_size=96)
    print("the contract suite is content")

    env = TextAction(gym.make("Clock-v0", render_mode="rgb_array"))
    game: Any = env.unwrapped
    env.reset(seed=arguments.seed)
    total, over = 0.0, False
    while not over:
        observation, reward, terminated, truncated, info = env.step(game.expert_action())
        total += float(reward)
        over = terminated or truncated
    print(f"the expert wrote {observation['text']}, the time was {info['time']}, return {total:+.0f}")
    frame: Any = env.render()
    Path("clock.png").write_bytes(png_bytes(frame))
    print("saved clock.png")
    env.close()


if __name__ == "__main__":
    main()
