"""Decides around which protocol a game is played: what cuts an episode short, and what counts as a success."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import gymnasium
from gymnasium.utils import RecordConstructorArgs

from gtr_envs.core import IllegalText, VisionTextEnv
from gtr_envs.errors import OptionError, ResetNeededError, require_known

EARLY_STOPS = ("none", "penalty", "hopeless")
"""What ``early_stop`` takes."""
SUCCESSES = ("won", "return")
"""What ``success`` takes."""
PENALTY = -1.0
"""The reward that a card game gives for a bad action, and for an episode that was stopped as hopeless."""

PROTOCOLS: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        "rl4vlm": {"success": "return"},
        "gtr": {"early_stop": "hopeless", "success": "return", "format_reward": (5.0, 0.0)},
        "gtr-turbo": {"early_stop": "penalty", "success": "return", "format_reward": (3.0, -2.0)},
    }
)
"""Arguments of :class:`Protocol` for training on Points24 as in three papers; the class says what is exact."""


class Protocol(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Plays a game by the protocol of a paper.

    The rules of a game and the protocol around it are two things, and published numbers depend on both. This wrapper
    changes no rule. It cuts episodes short (``truncated``), says what counts as a success, and pays for well-formed
    text. ``info`` tells all of it apart: ``early_stop`` is what cut the episode, at that step only; ``format_reward``
    the part of the reward that was paid for the form of the text; and at the end ``success`` is success by this
    protocol and ``won`` whether the task was solved, where the environment says so.

    With ``early_stop="penalty"`` an episode ends with the first step that pays -1 or less, as in GTR-Turbo. With
    ``"hopeless"`` it also ends, with reward -1, once no continuation wins. GTR asks a corrector model there, and stops
    as soon as the formula leaves the corrector's own plan; here every plan that wins will do. With
    ``success="return"`` an episode is a success if the sum of the environment's rewards is above 0, as all three
    papers count; ``format_reward`` stays out of the sum.

    Works with every Gymnasium environment; ``"hopeless"`` and ``format_reward`` need a
    :class:`gtr_envs.core.VisionTextEnv`, and ``format_reward`` also actions as text
    (:class:`gtr_envs.wrappers.TextAction` below this wrapper): text is well formed if it names an action. A trainer
    whose models answer in JSON judges the whole answer itself.

    Example:
        >>> import gymnasium, gtr_envs
        >>> env = Protocol(gymnasium.make("Points24-v0", image_size=64), early_stop="penalty", success="return")
        >>> _ = env.reset(options={"numbers": [6, 6, 6, 6]})
        >>> _, reward, terminated, truncated, info = env.step(0)
        >>> reward, terminated, truncated, info["early_stop"], info["success"]
        (-1.0, False, True, 'penalty', False)
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        *,
        early_stop: str = "none",
        success: str = "won",
        format_reward: tuple[float, float] | None = None,
    ) -> None:
        """Wrap an environment.

        Args:
            env: Any environment; see the class for what needs which.
            early_stop: ``"none"``, ``"penalty"`` or ``"hopeless"``.
            success: ``"won"``: as the environment says; ``"return"``: if its rewards sum to more than 0.
            format_reward: What text that names an action is paid, and other text; None pays nothing.

        Raises:
            UnknownNameError: If a switch has an unknown value.
            OptionError: If the format reward is no pair of finite numbers.
            TypeError: If the environment has not what a switch needs.
        """
        RecordConstructorArgs.__init__(self, early_stop=early_stop, success=success, format_reward=format_reward)
        super().__init__(env)
        require_known("early_stop", early_stop, EARLY_STOPS)
        require_known("success", success, SUCCESSES)
        named = env.unwrapped
        if not isinstance(named, VisionTextEnv) and (early_stop == "hopeless" or format_reward is not None):
            raise TypeError(f"expected an environment built on VisionTextEnv for these switches, got {env!r}")
        if format_reward is not None and not isinstance(env.action_space, gymnasium.spaces.Text):
            raise TypeError(f"expected an environment that takes text for format_reward, got {env!r}; use TextAction")
        self._named: Any = named
        self._early_stop = early_stop
        self._by_return = success == "return"
        self._format_reward = None if format_reward is None else _checked_pair(format_reward)
        self._return = 0.0
        self._cut = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a new episode.

        Args:
            seed: Handed on.
            options: Handed on.

        Returns:
            The first observation and its info.
        """
        self._return, self._cut = 0.0, False
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Play one action by the protocol.

        Args:
            action: Handed on.

        Returns:
            What the environment returns, changed as the protocol says.

        Raises:
            ResetNeededError: If the protocol has cut the episode.
        """
        if self._cut:
            raise ResetNeededError("Expected a running episode, but the protocol has cut it; call reset() first.")
        observation, paid, terminated, truncated, told = self.env.step(action)
        reward, info = float(paid), dict(told)
        if not terminated and not truncated and (reason := self._reason_to_stop(reward)):
            truncated = self._cut = True
            info["early_stop"] = reason
            reward = PENALTY if reason == "hopeless" else reward
        self._return += reward
        if terminated or truncated:
            info |= self._result(info)
        if self._format_reward is not None:
            info["format_reward"] = self._format_reward[isinstance(self._named.action_from_text(action), IllegalText)]
            reward += info["format_reward"]
        return observation, reward, terminated, truncated, info

    def _reason_to_stop(self, reward: float) -> str | None:
        """Why the protocol ends a running episode after this step; None if it goes on."""
        if self._early_stop != "none" and reward <= PENALTY:
            return "penalty"
        return "hopeless" if self._early_stop == "hopeless" and self._named.expert_action() is None else None

    def _result(self, info: dict[str, Any]) -> dict[str, bool]:
        """What the end of an episode adds to its info."""
        won = {"won": bool(info["success"])} if "success" in info else {}
        # An episode that was cut has not been solved.
        success = self._return > 0 if self._by_return else won.get("won", False)
        return won | {"success": success}


def _checked_pair(pair: object) -> tuple[float, float]:
    """Check a format reward."""
    if isinstance(pair, (tuple, list)) and len(pair) == 2:
        valid, invalid = pair
        if all(isinstance(x, (int, float)) and abs(x) < float("inf") for x in pair):
            return float(valid), float(invalid)
    raise OptionError(f"Expected format_reward as two finite numbers (well formed, otherwise), got {pair!r}.")
