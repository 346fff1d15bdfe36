"""Decides what the compatibility environments share: a picture as the observation, checks, endings and rendering."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces

from gtr_envs.cards.gym_cards.frames import FRAME_SIZE
from gtr_envs.errors import InvalidActionError
from gtr_envs.lifecycle import Lifecycle
from gtr_envs.rendering import Frame


class Result(NamedTuple):
    """What an action led to."""

    reward: float
    """The reward of the step, of the type that the public package gives."""
    terminated: bool = False
    """True if the task itself has ended."""
    truncated: bool = False
    """True if a limit has cut the episode."""


class GymCardsEnv(Lifecycle, gymnasium.Env[Any, Any], ABC):
    """A game of the public package behind today's interface of Gymnasium.

    It is no :class:`gtr_envs.core.VisionTextEnv`: the public package shows pictures without text and names no legal
    actions. A subclass says how an episode begins, what an action does, what is drawn and what is told in ``info``.
    """

    option_names: tuple[str, ...] = ("cards",)

    def __init__(self, action_tokens: Sequence[str], render_mode: str | None) -> None:
        """Set up the spaces; nothing is drawn or dealt.

        Args:
            action_tokens: Names of the actions in index order.
            render_mode: None, ``"human"`` or ``"rgb_array"``.

        Raises:
            OptionError: If the render mode is unknown.
        """
        Lifecycle.__init__(self, render_mode, FRAME_SIZE)
        self.action_tokens: tuple[str, ...] = tuple(action_tokens)
        self.action_space: spaces.Discrete = spaces.Discrete(len(self.action_tokens))
        self.observation_space: spaces.Space[Any] = spaces.Box(0, 255, (FRAME_SIZE, FRAME_SIZE, 3), np.uint8)

    # --- what a subclass says ---------------------------------------------------------------------------------------

    @abstractmethod
    def _begin(self, options: Mapping[str, Any]) -> None:
        """Begin an episode, with all randomness from ``self.np_random``."""

    @abstractmethod
    def _play(self, action: int) -> Result:
        """Apply an action by its index."""

    @abstractmethod
    def _inform(self) -> dict[str, Any]:
        """The public package's ``info``; new objects at every call."""

    @abstractmethod
    def _draw(self) -> Frame:
        """A new picture, uint8 [300, 300, 3]."""

    def _observe(self) -> Any:
        """The observation."""
        return self._draw()

    def _rendered(self) -> Frame:
        return self._draw()

    # --- Gymnasium's interface --------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a new episode.

        Args:
            seed: Seed of the environment's generator; None goes on with the present one.
            options: See the environment's description; an unknown key is an error.

        Returns:
            The first observation and its info.

        Raises:
            EnvironmentClosedError: If the environment was closed.
            UnknownNameError: If an option is unknown.
            OptionError: If an option has an unusable value.
        """
        self._require_open()
        super().reset(seed=seed)
        self._begin(self._checked_options(options))
        self._start()
        return self._observe(), self._inform()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Play one action.

        Args:
            action: Index of the action.

        Returns:
            Observation, reward, terminated, truncated, info.

        Raises:
            EnvironmentClosedError: If the environment was closed.
            ResetNeededError: If no episode is running.
            InvalidActionError: If the action is not in the action space.
        """
        self._require_running()
        if not self.action_space.contains(action):
            names = dict(enumerate(self.action_tokens))
            raise InvalidActionError(f"Expected the index of an action of {names}, got {action!r}.")
        result = self._play(int(action))
        if result.terminated or result.truncated:
            self._end()
        self._show()
        return self._observe(), result.reward, result.terminated, result.truncated, self._inform()
