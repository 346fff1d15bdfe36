"""Decides how the steps before are written into the text of an observation."""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from gtr_envs.checks import checked_int
from gtr_envs.core import IllegalText, VisionTextEnv
from gtr_envs.spaces import PRINTABLE

BEFORE, ACTION, NOW = "Before: ", "Action: ", "Now: "
"""What stands in front of an earlier text, of the action that followed it, and of the present text."""
ELLIPSIS = "..."
"""Ends an action that was too long to be shown whole."""


class History(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    r"""Writes the last observations' texts and the actions that followed them in front of the text.

    Each remembered step takes two lines, the oldest first, and the present text comes last::

        Before: (6
        Action: *
        Before: (6*
        Action: 4
        Now: (6*4

    After a reset there is the last line only. Actions are written by their names; text that names none is written as
    it was said, with ``?`` for every character that is not printable and a blank for every newline, so that an action
    can never look like another line. The text space grows as needed. The wrapper may stand above or below
    :class:`gtr_envs.wrappers.TextAction`.

    Example:
        >>> import gymnasium, gtr_envs
        >>> env = History(gymnasium.make("Points24-v0", image_size=64), k=2)
        >>> _ = env.reset(options={"numbers": [6, 6, 6, 6]})
        >>> env.step(5)[0]["text"]
        'Before: \nAction: 6\nNow: 6'
    """

    def __init__(self, env: gymnasium.Env[Any, Any], k: int = 4, action_length: int = 64) -> None:
        """Wrap an environment.

        Args:
            env: An environment with text under ``text`` whose innermost one is a
                :class:`gtr_envs.core.VisionTextEnv`.
            k: How many steps are remembered, at least 1.
            action_length: Largest number of characters of an action in the text, at least 4; a longer one is cut and
                ends with dots.

        Raises:
            TypeError: If the observations have no text or the actions have no names.
            OptionError: If a number is no whole number or too small.
        """
        RecordConstructorArgs.__init__(self, k=k, action_length=action_length)
        super().__init__(env)
        seen = env.observation_space.spaces if isinstance(env.observation_space, spaces.Dict) else {}
        text = seen.get("text")
        if not isinstance(text, spaces.Text) or not isinstance(env.unwrapped, VisionTextEnv):
            raise TypeError(f"expected an environment built on VisionTextEnv with text under 'text', got {env!r}")
        self._named = env.unwrapped
        self._action_length = checked_int("action_length", action_length, least=len(ELLIPSIS) + 1)
        n_steps = checked_int("k", k, least=1)
        self._steps: deque[tuple[str, str]] = deque(maxlen=n_steps)
        self._text = ""
        # The lengths of the lines, each but the last with its newline.
        step_length = len(BEFORE) + text.max_length + 1 + len(ACTION) + self._action_length + 1
        length = n_steps * step_length + len(NOW) + text.max_length
        charset = "".join(sorted({*PRINTABLE, *text.character_set}))
        enlarged = spaces.Text(max_length=length, min_length=0, charset=charset)
        self.observation_space = spaces.Dict({**seen, "text": enlarged})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a new episode and forget the steps of the last one.

        Args:
            seed: Handed on.
            options: Handed on.

        Returns:
            The first observation and its info.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        self._steps.clear()
        return self._remembering(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Play one action and remember it with the text it answered.

        Args:
            action: Handed on; an index, a name or :class:`gtr_envs.core.IllegalText`.

        Returns:
            What the environment returns, with the history in the text.
        """
        observation, *rest = self.env.step(action)
        self._steps.append((self._text, self._written(action)))
        return self._remembering(observation), *rest  # type: ignore[return-value]

    def _remembering(self, observation: Any) -> dict[str, Any]:
        """Put the history in front of an observation's text."""
        self._text = observation["text"]
        lines = [f"{BEFORE}{text}\n{ACTION}{action}\n" for text, action in self._steps]
        return {**observation, "text": "".join(lines) + NOW + self._text}

    def _written(self, action: Any) -> str:
        """The action in printable characters, on one line and not too long."""
        if isinstance(action, (int, np.integer, np.ndarray)):
            said = self._named.action_tokens[int(action)]
        else:
            said = action.text if isinstance(action, IllegalText) else str(action)
        line = "".join(character if character in PRINTABLE else "?" for character in said.replace("\n", " ").strip())
        if len(line) <= self._action_length:
            return line
        return line[: self._action_length - len(ELLIPSIS)] + ELLIPSIS
