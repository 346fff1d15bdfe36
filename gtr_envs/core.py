"""Decides what every vision-text environment shares: observation, info, checks, endings and rendering."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from inspect import signature
from types import MappingProxyType
from typing import Any, NamedTuple, TypedDict, Unpack

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gtr_envs.checks import checked_int
from gtr_envs.errors import InvalidActionError, require_known
from gtr_envs.lifecycle import Lifecycle
from gtr_envs.rendering import Frame
from gtr_envs.spaces import vision_text_space
from gtr_envs.styles import CLASSIC, Look, Style, Wardrobe

MIN_IMAGE_SIZE = 64
"""Below this side in pixels a picture cannot be read."""
DEFAULT_IMAGE_SIZE = 300
"""Side of the pictures of the public environments in pixels."""
MAX_IMAGE_SIZE = 1024
"""Above this side a picture takes more than 3 MB, and every drawing that is kept several times that."""
OBSERVE = ("both", "image", "text")
"""What ``observe`` takes."""


class Observation(TypedDict, total=False):
    """What the player sees; both entries unless ``observe`` chooses one."""

    image: Frame
    """The picture, uint8 [H, W, 3]."""
    text: str
    """The state in words, as far as it is told; with ``observe="text"`` the whole state."""


class ViewOptions(TypedDict, total=False):
    """How a game is shown: arguments that every vision-text environment takes."""

    image_size: int
    """Side of the observed picture in pixels, 64 to 1024; 300 unless given."""
    render_size: int | None
    """Side of rendered frames in pixels, 64 to 1024; None takes the larger of ``image_size`` and 300."""
    observe: str
    """``"both"`` (unless given), ``"image"``, or ``"text"``: no picture, and all it would show in words."""
    style: str | Style
    """How it looks: a name of :data:`gtr_envs.styles.STYLES` (``"classic"`` unless given); ``"train"`` or ``"test"``,
    which deal one of a split at every reset; or a style of one's own."""


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


class VisionTextEnv(Lifecycle, gymnasium.Env[Observation, Any], ABC):
    """A task shown as a picture with a text, whose actions have names.

    A subclass says how an episode begins (:meth:`_begin`), what an action does (:meth:`_play`), what is shown
    (:meth:`_draw`, :meth:`_text`, :meth:`_described`) and what is told in ``info`` (:meth:`_facts`). This class checks
    what comes in and hands out copies; the course of an episode is that of :class:`gtr_envs.lifecycle.Lifecycle`.
    """

    option_names: tuple[str, ...] = ("style",)
    expert_always_wins: bool = True
    """False for a game of chance, in which the expert plays best and may lose all the same."""

    def __init__(
        self,
        action_tokens: Sequence[str],
        *,
        text_length: int,
        described_length: int | None = None,
        render_mode: str | None = None,
        **view: Unpack[ViewOptions],
    ) -> None:
        """Set up the spaces; nothing is drawn or dealt.

        Args:
            action_tokens: Names of the actions in index order.
            text_length: Largest number of characters of the text observation.
            described_length: Largest number of characters of the whole state in words; None if the text tells it.
            render_mode: None, ``"human"`` or ``"rgb_array"``.
            **view: How the game is shown; see :class:`ViewOptions`.

        Raises:
            UnknownNameError: If there is no such argument, mode or style.
            OptionError: If a size is no whole number from 64 to 1024.
        """
        known = {*ViewOptions.__annotations__, *signature(type(self)).parameters} - {"view"}
        for name in view:
            require_known("argument", name, known)
        self.image_size = _checked_size("image_size", view.get("image_size", DEFAULT_IMAGE_SIZE))
        render_size = view.get("render_size")
        if render_size is None:
            render_size = max(self.image_size, DEFAULT_IMAGE_SIZE)
        Lifecycle.__init__(self, render_mode, _checked_size("render_size", render_size))
        self.observe = view.get("observe", OBSERVE[0])
        require_known("observe", self.observe, OBSERVE)
        self._wardrobe = Wardrobe(view.get("style", CLASSIC))
        self._look = Look()
        self.action_tokens: tuple[str, ...] = tuple(action_tokens)
        self.action_space: spaces.Discrete = spaces.Discrete(len(self.action_tokens))
        if self.observe == "text":
            text_length = described_length or text_length
        self.observation_space: spaces.Dict = vision_text_space(self.image_size, text_length, self.observe)  # type: ignore[assignment]

    @property
    def medium(self) -> str:
        """What shows the game to the player, for instructions: ``"picture"`` or ``"text"``."""
        return "text" if self.observe == "text" else "picture"

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

    def _described(self) -> str:
        """The whole state in words: what the picture shows and the text tells. For ``observe="text"``."""
        return self._text()

    @abstractmethod
    def _draw(self, size: int) -> Frame:
        """A new picture of the given side in pixels, as ``self._look`` wants it."""

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
        info = self._restart(seed, options)
        return self._observe(), info

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
        self._require_running()
        reward, terminated, truncated, info = self._advance(self._name_of(action))
        return self._observe(), reward, terminated, truncated, info

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
    def action_mask(self) -> NDArray[np.int8]:
        """1 for every legal action and 0 for the others, int8 [n_actions]; a new array."""
        return self._mask_of(self.legal_actions)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _dressed(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Choose the look of an episode, and leave the other options to the game."""
        self._look = self._wardrobe.next_look(self.np_random, options.get("style"))
        return {name: value for name, value in options.items() if name != "style"}

    def _restart(self, seed: int | None, options: Mapping[str, Any] | None) -> dict[str, Any]:
        """Begin an episode without observing it; see :meth:`reset`. Returns its info."""
        self._require_open()
        super().reset(seed=seed)
        self._begin(self._dressed(self._checked_options(options)))
        self._start()
        return self._inform()

    def _advance(self, name: str) -> tuple[float, bool, bool, dict[str, Any]]:
        """Play an action by its name without observing it; see :meth:`step`. Returns all but the observation."""
        outcome = self._play(name)
        info = self._inform()
        info["legal"] = outcome.legal
        if outcome.facts:
            info.update(outcome.facts)
        if outcome.terminated or outcome.truncated:
            self._end()
            info["success"] = outcome.success
        self._show()
        return outcome.reward, outcome.terminated, outcome.truncated, info

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
        return observed(self.observe, lambda: self._draw(self.image_size), self._text, self._described)

    def _rendered(self) -> Frame:
        return self._draw(self.render_size)

    def _inform(self) -> dict[str, Any]:
        legal = self.legal_actions
        return {
            **self._facts(),
            "style": self._look.style.name,
            "legal_actions": legal,
            "action_mask": self._mask_of(legal),
        }

    def _mask_of(self, legal: Sequence[str]) -> NDArray[np.int8]:
        return _mask(self.action_tokens, tuple(legal)).copy()


def observed(
    observe: str, draw: Callable[[], Frame], tell: Callable[[], str], describe: Callable[[], str]
) -> Observation:
    """Make an observation of what is to be observed, and nothing else.

    Args:
        observe: One of :data:`OBSERVE`.
        draw: Makes the picture.
        tell: Makes the text that goes with a picture.
        describe: Makes the text that stands alone.

    Returns:
        The observation.
    """
    if observe == "text":
        return {"text": describe()}
    return {"image": draw()} if observe == "image" else {"image": draw(), "text": tell()}


@lru_cache(maxsize=4096)
def _mask(tokens: tuple[str, ...], legal: tuple[str, ...]) -> NDArray[np.int8]:
    """Mark the legal ones of the tokens; kept, because few sets of legal actions come again and again."""
    return np.array([token in legal for token in tokens], dtype=np.int8)


def _checked_size(name: str, size: object) -> int:
    """Check the side of a picture."""
    return checked_int(name, size, least=MIN_IMAGE_SIZE, most=MAX_IMAGE_SIZE, unit="pixels")
