"""Decides how text becomes an action: exactly, and never by guessing."""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.utils import RecordConstructorArgs

from gtr_envs.core import Observation, VisionTextEnv
from gtr_envs.spaces import text_space


class TextAction(gymnasium.Wrapper[Observation, Any, Observation, Any], RecordConstructorArgs):
    """Lets actions be given by their names.

    Text that names no action is an illegal action: it gets the penalty the environment documents, never an
    exception and never a random action.

    Example:
        >>> import gymnasium, gtr_envs
        >>> env = TextAction(gymnasium.make("Points24-v0"))
        >>> _ = env.reset(options={"numbers": [6, 6, 6, 6]})
        >>> env.step("6")[1], env.step("I play six")[1]
        (0.0, -1.0)
    """

    def __init__(self, env: gymnasium.Env[Observation, Any], max_length: int = 64) -> None:
        """Wrap an environment.

        Args:
            env: An environment whose innermost one is a :class:`gtr_envs.core.VisionTextEnv`.
            max_length: Largest number of characters of the action space; longer text is still played.

        Raises:
            TypeError: If the innermost environment has no named actions.
        """
        RecordConstructorArgs.__init__(self, max_length=max_length)
        super().__init__(env)
        if not isinstance(env.unwrapped, VisionTextEnv):
            raise TypeError(f"expected an environment built on VisionTextEnv, whose actions have names, got {env!r}")
        self._named = env.unwrapped
        self.action_space = text_space(max_length)

    def step(self, action: str) -> tuple[Observation, Any, bool, bool, dict[str, Any]]:
        """Play the action that a text names.

        Args:
            action: The name of an action; any other text is an illegal action.

        Returns:
            What the environment returns.

        Raises:
            TypeError: If the action is not text.
        """
        if not isinstance(action, str):
            raise TypeError(f"expected an action as text, got {action!r}; without this wrapper actions are indices")
        return self.env.step(self._named.action_from_text(action))
