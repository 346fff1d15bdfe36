"""Decides what every vision-text environment shares: observation, info, checks, endings and rendering."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypedDict

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gtr_envs.errors import (
    EnvironmentClosedError,
    InvalidActionError,
    OptionError,
    ResetNeededError,
    require_known,
)
from gtr_envs.rendering import Frame, Window
from gtr_envs.spaces import vision_text_space

MIN_IMAGE_SIZE = 64
"""Below this side in pixels a picture cannot be read."""
DEFAULT_IMAGE_SIZE = 300
"""Side of the pictures of the public environments in pixels."""


class Observation(TypedDict):
    """What the player sees."""

    image: Frame
    """The picture, uint8 [H, W, 3]."""
    text: str
    """The state in words, as far as it is told."""


class IllegalText(NamedTuple):
    """The action that stands for text that names no action; it always gets the penalty of an illegal action."""

    text: str
    """What was said."""


class Outcome(NamedTuple):
    """What an action led to."""

    reward: float
    """The reward of the step."""
    legal: bool
    """True if the action was one of the legal actions."""
    terminated: bool = False
    """True if the task itself has ended."""
    truncated: bool = False
    """True if a limit has cut the episode."""
    success: bool = False
    """True if the task has been solved; only looked at when the episode ends."""
    facts: Mapping[str, Any] = MappingProxyType({})
    """Further entries of this step's ``info``."""


class VisionTextEnv(gymnasium.Env[Observation, Any], ABC):
    """A task shown as a picture with a text, whose actions have names.

    A subclass says how an episode begins (:meth:`_begin`), what an action does (:meth:`_play`), what is shown
    (:meth:`_draw`, :meth:`_text`) and what is told in ``info`` (:meth:`_facts`). This class checks what comes in,
    hands out copies, keeps apart the running, ended and closed episode, and shows frames.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"], "render_fps": 4}  # noqa: RUF012 - Gymnasium declares it so
    option_names: tuple[str, ...] = ()
    """Keys that ``reset(options=...)`` accepts."""
    expert_always_wins: bool = True
    """False for a game of chance, in which the expert plays best and may lose all the same."""

    def __init__(
        self,
        action_tokens: Sequence[str],
        *,
        text_length: int,
        image_size: int = DEFAULT_IMAGE_SIZE,
        render_size: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        """Set up the spaces; nothing is drawn or dealt.

        Args:
            action_tokens: Names of the actions in index order.
            text_length: Largest number of characters of the text observation.
            image_size: Side of the observed picture in pixels, at least 64.
            render_size: Side of rendered frames in pixels, at least 64; None takes the larger of ``image_size``
                and 300.
            render_mode: None, ``"human"`` or ``"rgb_array"``.

        Raises:
            OptionError: If a size is no whole number of at least 64, or the render mode is unknown.
        """
        self.image_size = _checked_size("image_size", image_size)
        self.render_size = _checked_size(
            "render_size", max(image_size, DEFAULT_IMAGE_SIZE) if render_size is None else render_size
        )
        if render_mode is not None:
            require_known("render_mode", render_mode, self.metadata["render_modes"])
        self.render_mode = render_mode
        self.action_tokens: tuple[str, ...] = tuple(action_tokens)
        self.action_space: spaces.Discrete = spaces.Discrete(len(self.action_tokens))
        self.observation_space: spaces.Dict = vision_text_space(image_size, text_length)  # type: ignore[assignment]
        self._phase = "new"
        self._window: Window | None = None

    # --- what a subclass says ---------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def instructions(self) -> str:
        """The task in words, for prompts."""

    @property
    @abstractmethod
    def legal_actions(self) -> list[str]:
        """Names of the actions that are legal now, in index order; a new list."""

    @abstractmethod
    def expert_action(self) -> str | None:
        """Say what a perfect player does next.

        Returns:
            The name of an action; None if the episode cannot be won any more.
        """

    @abstractmethod
    def _begin(self, options: Mapping[str, Any]) -> None:
        """Begin an episode, with all randomness from ``self.np_random``."""

    @abstractmethod
    def _play(self, action: str) -> Outcome:
        """Apply an action by its name; any other text is an illegal action."""

    @abstractmethod
    def _text(self) -> str:
        """The text of the observation."""

    @abstractmethod
    def _draw(self, size: int) -> Frame:
        """A new picture of the given side in pixels."""

    @abstractmethod
    def _facts(self) -> dict[str, Any]:
        """Entries of ``info`` beyond those every environment has; new objects at every call."""

    # --- Gymnasium's interface --------------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
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

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Play one action.

        Args:
            action: Index of the action; or :class:`IllegalText` for text that names none.

        Returns:
            Observation, reward, terminated, truncated, info. ``info["legal"]`` says whether the action was legal;
            ``info["success"]`` is there when the episode has ended.

        Raises:
            EnvironmentClosedError: If the environment was closed.
            ResetNeededError: If no episode is running.
            InvalidActionError: If the action is not in the action space.
        """
        self._require_open()
        if not self.is_running:
            raise ResetNeededError("Expected a running episode, but it has ended or never begun; call reset() first.")
        outcome = self._play(self._name_of(action))
        over = outcome.terminated or outcome.truncated
        info = self._inform() | {"legal": outcome.legal, **outcome.facts}
        if over:
            self._phase = "over"
            info["success"] = outcome.success
        self._show()
        return self._observe(), outcome.reward, outcome.terminated, outcome.truncated, info

    def render(self) -> Frame | None:
        """Show the present state.

        Returns:
            A new frame, uint8 [render_size, render_size, 3], in mode ``"rgb_array"``; None otherwise.

        Raises:
            EnvironmentClosedError: If the environment was closed.
            ResetNeededError: If there was no reset yet.
        """
        self._require_open()
        if self._phase == "new":
            raise ResetNeededError("Expected something to draw, but no episode has begun; call reset() first.")
        if self.render_mode is None:
            gymnasium.logger.warn(
                "render() was called without a render mode; pass one, e.g. gymnasium.make(..., render_mode='rgb_array')"
            )
            return None
        if self.render_mode == "rgb_array":
            return self._draw(self.render_size)
        self._show()
        return None

    def close(self) -> None:
        """Close the window and refuse further use; closing twice is allowed."""
        if self._window is not None:
            self._window.close()
            self._window = None
        self._phase = "closed"

    # --- names of actions -------------------------------------------------------------------------------------------

    def action_from_text(self, text: str) -> int | IllegalText:
        """Find the action that a text names.

        Args:
            text: A name; blanks around it are ignored.

        Returns:
            The index of the action, or :class:`IllegalText` if no action has this name. Both can be given to
            :meth:`step`.
        """
        name = text.strip()
        return self.action_tokens.index(name) if name in self.action_tokens else IllegalText(text)

    @property
    def is_running(self) -> bool:
        """True while an episode has begun and not ended."""
        return self._phase == "running"

    @property
    def action_mask(self) -> NDArray[np.int8]:
        """1 for every legal action and 0 for the others, int8 [n_actions]; a new array."""
        return self._mask_of(self.legal_actions)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _name_of(self, action: object) -> str:
        if isinstance(action, IllegalText):
            return action.text
        if not self.action_space.contains(action):
            last = len(self.action_tokens) - 1
            raise InvalidActionError(
                f"Expected an action index from 0 to {last}, got {action!r}; for text see gtr_envs.wrappers.TextAction."
            )
        return self.action_tokens[int(action)]  # type: ignore[call-overload]

    def _observe(self) -> Observation:
        return {"image": self._draw(self.image_size), "text": self._text()}

    def _inform(self) -> dict[str, Any]:
        legal = self.legal_actions
        return {**self._facts(), "legal_actions": legal, "action_mask": self._mask_of(legal)}

    def _mask_of(self, legal: Collection[str]) -> NDArray[np.int8]:
        return np.array([token in legal for token in self.action_tokens], dtype=np.int8)

    def _show(self) -> None:
        if self.render_mode == "human":
            if self._window is None:
                self._window = Window(type(self).__name__, self.render_size, self.render_size)
            self._window.show(self._draw(self.render_size), self.metadata["render_fps"])

    def _require_open(self) -> None:
        if self._phase == "closed":
            raise EnvironmentClosedError("Expected an open environment, but close() was called; make a new one.")

    def __getstate__(self) -> dict[str, Any]:
        """Leave the window behind: it belongs to the process."""
        return self.__dict__ | {"_window": None}


def _checked_size(name: str, size: object) -> int:
    """Check the side of a picture."""
    if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < MIN_IMAGE_SIZE:
        raise OptionError(f"Expected {name} as a whole number of at least {MIN_IMAGE_SIZE} pixels, got {size!r}.")
    return int(size)
