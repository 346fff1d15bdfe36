"""Decides what the compatibility environments share: a picture as the observation, checks, endings and rendering."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces

from gtr_envs.cards.deck import Card, parse_card
from gtr_envs.cards.gym_cards.frames import FRAME_SIZE
from gtr_envs.errors import (
    EnvironmentClosedError,
    InvalidActionError,
    OptionError,
    ResetNeededError,
    require_known,
)
from gtr_envs.rendering import Frame, Window


class Result(NamedTuple):
    """What an action led to."""

    reward: float
    """The reward of the step, of the type that the public package gives."""
    terminated: bool = False
    """True if the task itself has ended."""
    truncated: bool = False
    """True if a limit has cut the episode."""


class GymCardsEnv(gymnasium.Env[Any, Any], ABC):
    """A game of the public package behind today's interface of Gymnasium.

    It is no :class:`gtr_envs.core.VisionTextEnv`: the public package shows pictures without text and names no legal
    actions. A subclass says how an episode begins, what an action does, what is drawn and what is told in ``info``.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 4}  # noqa: RUF012 - Gymnasium declares it so
    option_names: tuple[str, ...] = ("cards",)
    """Keys that ``reset(options=...)`` accepts."""

    def __init__(self, action_tokens: Sequence[str], render_mode: str | None) -> None:
        """Set up the spaces; nothing is drawn or dealt.

        Args:
            action_tokens: Names of the actions in index order.
            render_mode: None, ``"human"`` or ``"rgb_array"``.

        Raises:
            OptionError: If the render mode is unknown.
        """
        if render_mode is not None:
            require_known("render_mode", render_mode, self.metadata["render_modes"])
        self.render_mode = render_mode
        self.action_tokens: tuple[str, ...] = tuple(action_tokens)
        self.action_space: spaces.Discrete = spaces.Discrete(len(self.action_tokens))
        self.observation_space: spaces.Space[Any] = spaces.Box(0, 255, (FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
        self._phase = "new"
        self._window: Window | None = None

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
        chosen = dict(options or {})
        for name in chosen:
            require_known("reset option", name, self.option_names)
        self._begin(chosen)
        self._phase = "running"
        self._show()
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
        self._require_open()
        if self._phase != "running":
            raise ResetNeededError("Expected a running episode, but it has ended or never begun; call reset() first.")
        if not self.action_space.contains(action):
            names = dict(enumerate(self.action_tokens))
            raise InvalidActionError(f"Expected the index of an action of {names}, got {action!r}.")
        result = self._play(int(action))
        if result.terminated or result.truncated:
            self._phase = "over"
        self._show()
        return self._observe(), result.reward, result.terminated, result.truncated, self._inform()

    def render(self) -> Frame | None:
        """Show the present state.

        Returns:
            A new frame, uint8 [300, 300, 3], in mode ``"rgb_array"``; None otherwise.

        Raises:
            EnvironmentClosedError: If the environment was closed.
            ResetNeededError: If there was no reset yet.
        """
        self._require_open()
        if self._phase == "new":
            raise ResetNeededError("Expected something to draw, but no episode has begun; call reset() first.")
        if self.render_mode == "rgb_array":
            return self._draw()
        if self.render_mode is None:
            gymnasium.logger.warn("render() was called without a render mode; pass render_mode='rgb_array' to make().")
        self._show()
        return None

    def close(self) -> None:
        """Close the window and refuse further use; closing twice is allowed."""
        if self._window is not None:
            self._window.close()
            self._window = None
        self._phase = "closed"

    # --- inside -----------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        if self.render_mode == "human":
            if self._window is None:
                self._window = Window(type(self).__name__, FRAME_SIZE, FRAME_SIZE)
            self._window.show(self._draw(), self.metadata["render_fps"])

    def _require_open(self) -> None:
        if self._phase == "closed":
            raise EnvironmentClosedError("Expected an open environment, but close() was called; make a new one.")

    def __getstate__(self) -> dict[str, Any]:
        """Leave the window behind: it belongs to the process."""
        return self.__dict__ | {"_window": None}


def chosen_cards(names: object, n_cards: int) -> tuple[Card, ...]:
    """Read ``options["cards"]``.

    Args:
        names: What was given.
        n_cards: How many cards are dealt.

    Returns:
        The cards.

    Raises:
        OptionError: If it is no list of ``n_cards`` names of cards.
    """
    if isinstance(names, str) or not isinstance(names, Sequence) or len(names) != n_cards:
        raise OptionError(f"Expected options['cards'] as {n_cards} names such as 'HT', got {names!r}.")
    try:
        return tuple(parse_card(name) for name in names)
    except ValueError as error:
        raise OptionError(f"Cannot use options['cards'] {list(names)!r}: {error}.") from error
