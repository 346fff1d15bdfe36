"""Decides what is known about a person's game: what happened, what the solver says, how it ended, and the score."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium

from gtr_envs.core import VisionTextEnv
from gtr_envs.errors import PlayError

HEADLINES = {"win": "You won!", "draw": "A draw.", "loss": "You lost."}
"""Every result in words; the keys are those of ``info["result"]``."""
NO_UNDO = "Nothing can be undone: the rules hold for you as they do for an agent."


class Missed(NamedTuple):
    """The first move that the solver would not have played."""

    number: int
    """Which move it was, from 1."""
    played: str
    """What the person played."""
    better: str
    """What the solver would have played."""


class Game:
    """One person's games in one environment, of which the last one may be running."""

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int | None = None) -> None:
        """Begin a first episode.

        Args:
            env: An environment whose innermost one names its actions in ``action_tokens``. What else a
                :class:`gtr_envs.core.VisionTextEnv` tells is used where it is there.
            seed: Seed of the first episode; None for a different one every time.

        Raises:
            PlayError: If the actions of the environment have no names.
        """
        self.inner: Any = env.unwrapped
        if not hasattr(self.inner, "action_tokens"):
            raise PlayError(
                f"Expected an environment whose actions have names, such as those of `gtr envs`, got {env!r}."
            )
        self.env = env
        self.results: list[str] = []
        self.new(seed)

    def new(self, seed: int | None = None) -> None:
        """Begin another episode; a running one is given up and does not count.

        Args:
            seed: Seed of the episode; None goes on with the present generator.
        """
        self.observation, self.info = self.env.reset(seed=seed)
        self.message = f"Your move.\n{self.score}" if self.results else "Your move."
        self.total, self.n_moves, self.n_hints, self.hinted = 0.0, 0, 0, ""
        self.result = ""
        self._plan = self._thought().plan if self._has_thoughts else ""
        self._missed: Missed | None = None
        self._was_advised = False

    # --- what is known ----------------------------------------------------------------------------------------------

    @property
    def actions(self) -> tuple[str, ...]:
        """Names of the actions in index order; in some games other ones in every state."""
        return tuple(self.inner.action_tokens)

    @property
    def over(self) -> bool:
        """True when the episode has ended."""
        return bool(self.result)

    @property
    def legal(self) -> list[str]:
        """Actions that are legal now; all of them where the environment does not say."""
        return [] if self.over else list(self.info.get("legal_actions", self.actions))

    @property
    def score(self) -> str:
        """How many games were won and played."""
        n_games, n_draws = len(self.results), self.results.count("draw")
        draws = f", {_counted(n_draws, 'draw')}" if n_draws else ""
        return f"Won {self.results.count('win')} of {_counted(n_games, 'game')}{draws}."

    def summary(self) -> list[str]:
        """Tell how the episode has ended.

        Returns:
            The result, then moves, numbers, score and what could have been done better; a line each.
        """
        hints = f", {_counted(self.n_hints, 'hint')}" if self.n_hints else ""
        moves = f"{_counted(self.n_moves, 'move')}{hints}, return {self.total:+g}."
        lines = [HEADLINES[self.result], moves, self._numbers(), self.lesson(), self.score]
        return [line for line in lines if line]

    def lesson(self) -> str:
        """Tell somebody who has not won what would have been better.

        Returns:
            A sentence; empty after a win, and where there is no solver.
        """
        if self.result == "win":
            return ""
        if self.info.get("solvable") is False:
            return "Nobody could have won this hand."
        if self._missed is None:
            return "No move was better than yours." if self._was_advised else ""
        if self._plan:
            return f"A way to win: {self._plan}"
        return f"Move {self._missed.number}: {self._missed.better} was better than {self._missed.played}."

    def _numbers(self) -> str:
        """The numbers of the last info, such as the value of a formula or the sums of two hands."""
        numbers = {name: value for name, value in self.info.items() if type(value) in (int, float)}
        said = ", ".join(f"{name.replace('_', ' ').lower()} {value:g}" for name, value in numbers.items())
        return f"{said[0].upper()}{said[1:]}." if said else ""

    # --- what a person does -----------------------------------------------------------------------------------------

    def play(self, action: str) -> None:
        """Play an action by its name; anything else is an illegal action where the environment knows such.

        Args:
            action: What the person said.
        """
        if self.over:
            self.message = "The game is over; begin a new one."
            return
        if isinstance(self.inner, VisionTextEnv):
            index = self.inner.action_from_text(action)
        elif action in self.actions:
            index = self.actions.index(action)
        else:
            self.message = f"{action} is none of the actions."
            return
        self._compare(action)
        self.observation, paid, terminated, truncated, self.info = self.env.step(index)
        reward = float(paid)
        self.total += reward
        self.hinted = ""
        happened = f"You played {action}." if self.info.get("legal", True) else f"{action} is not legal here."
        self.message = f"{happened} Reward {reward:+g}." if reward else happened
        if terminated or truncated:
            self.result = self._judge(reward, truncated=truncated)
            self.results.append(self.result)

    def hint(self) -> None:
        """Ask the solver for the next action and its reasons."""
        if self.over:
            self.message = "The game is over; begin a new one."
            return
        if not hasattr(self.inner, "expert_action"):
            self.message = "There is no solver for these rules, so there are no hints."
            return
        self.n_hints += 1
        self.hinted = self.inner.expert_action() or ""
        thought = self._thought() if self._has_thoughts else None
        reasons = [thought.words] if thought else []
        if self.hinted:
            lines = [f"Hint: {self.hinted}", *reasons]
        elif self.info.get("solvable") is False:
            lines = ["Hint: this hand cannot be won.", *reasons]
        else:
            # A way may lead on and be too long all the same.
            too_long = thought is not None and thought.action is not None
            why = ["Too few moves are left."] if too_long else reasons
            lines = ["Hint: this cannot be won any more.", *why, NO_UNDO]
        self.message = "\n".join(lines)

    # --- inside -----------------------------------------------------------------------------------------------------

    @property
    def _has_thoughts(self) -> bool:
        return hasattr(self.inner, "expert_thought")

    def _thought(self) -> Any:
        """What the solver thinks; see :class:`gtr_envs.cards.thoughts.Thought`."""
        return self.inner.expert_thought()

    def _compare(self, action: str) -> None:
        """Count the move, and note it if it is the first one that the solver would not have played."""
        self.n_moves += 1
        better = self.inner.expert_action() if hasattr(self.inner, "expert_action") else None
        self._was_advised |= better is not None
        if self._missed is None and better not in (None, action):
            self._missed = Missed(self.n_moves, action, better)

    def _judge(self, reward: float, *, truncated: bool) -> str:
        """The result of an episode that has just ended."""
        if self.info.get("result") in HEADLINES:
            return str(self.info["result"])
        if "success" in self.info:
            return "win" if self.info["success"] else "loss"
        # The public environments tell no success; what their last move pays has its sign.
        return "win" if reward > 0 else "draw" if reward == 0 and not truncated else "loss"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
