"""Decides who can be played against: a solver of adjustable strength, and a duel that looks like a game for one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from gtr_envs.cards.duel.race import AGENTS, DuelEnv
from gtr_envs.cards.formula import END
from gtr_envs.core import DEFAULT_IMAGE_SIZE, MIN_IMAGE_SIZE, IllegalText, Outcome, VisionTextEnv
from gtr_envs.errors import OptionError, require_known
from gtr_envs.rendering import Frame
from gtr_envs.styles import CLASSIC, Style


class Opponent(Protocol):
    """Somebody who plays one side of a duel."""

    def act(self, env: DuelEnv, agent: str) -> int:
        """Choose an action.

        Args:
            env: The duel, before the round.
            agent: The side to play.

        Returns:
            Index of the action.
        """
        ...


class SolverOpponent:
    """Plays the next token of a shortest win with a given probability, and a random legal token otherwise.

    At random it never hands in a formula that does not win, so it is never out; but it can write itself into a dead
    end. At strength 1 it wins in the smallest possible number of rounds; at strength 0 hardly ever.

    Example:
        >>> duel = DuelEnv(image_size=64)
        >>> _ = duel.reset(options={"numbers": [3, 3, 8, 8]})
        >>> perfect = SolverOpponent(1.0, np.random.default_rng(0))
        >>> duel.action_tokens[perfect.act(duel, "player_1")]
        '8'
    """

    def __init__(self, strength: float, rng: np.random.Generator) -> None:
        """Set the strength.

        Args:
            strength: Probability of an optimal token in each round, 0 to 1.
            rng: Draws everything that is random.

        Raises:
            OptionError: If the strength is no number from 0 to 1.
        """
        self.strength = _checked_strength(strength)
        self._rng = rng

    def act(self, env: Any, agent: str) -> int:
        """Choose an action.

        Args:
            env: The duel, parallel or AEC, before the round.
            agent: The side to play.

        Returns:
            Index of the action.
        """
        duel: DuelEnv = env.unwrapped
        optimal = duel.optimal_actions(agent)
        if not optimal or self._rng.random() >= self.strength:
            legal = [token for token in duel.legal_actions(agent) if token != END or END in optimal]
            # Only a player who is out has nothing but "=" to play.
            optimal = tuple(legal) or (END,)
        return duel.action_tokens.index(optimal[int(self._rng.integers(len(optimal)))])


class AgainstEnv(VisionTextEnv):
    """The duel as an environment for one player, with an opponent inside.

    Observations, rewards and info are those of the player's side in :class:`DuelEnv`. A player who is out does not
    wait: the opponent plays on to the end within the same step. Rendered frames show the player's side.
    """

    option_names = DuelEnv.option_names

    def __init__(
        self,
        render_mode: str | None = None,
        *,
        opponent: Opponent | float = 0.5,
        agent: str = AGENTS[0],
        image_size: int = DEFAULT_IMAGE_SIZE,
        render_size: int | None = None,
        observe: str = "both",
        style: str | Style = CLASSIC,
        **rules: Any,
    ) -> None:
        """Set up the game; nothing is dealt.

        Args:
            render_mode: None, ``"human"`` or ``"rgb_array"``.
            opponent: Who plays the other side; a number from 0 to 1 is a :class:`SolverOpponent` of this strength that
                draws from the environment's generator.
            agent: The player's side.
            image_size: Side of the observed picture in pixels, at least 64.
            render_size: Side of rendered frames in pixels; None takes the larger of ``image_size`` and 300.
            observe: ``"both"``, ``"image"`` or ``"text"``.
            style: See :class:`gtr_envs.core.ViewOptions`.
            **rules: Further arguments of :class:`DuelEnv`.

        Raises:
            OptionError: If an argument cannot be used.
        """
        require_known("agent", agent, AGENTS)
        self.opponent = opponent if hasattr(opponent, "act") else _checked_strength(opponent)
        self.agent = agent
        # Its own pictures are not looked at.
        self._duel = DuelEnv(image_size=MIN_IMAGE_SIZE, observe=observe, **rules)
        super().__init__(
            self._duel.action_tokens,
            text_length=self._duel.observation_space(agent)["text"].max_length,  # type: ignore[attr-defined]
            image_size=image_size,
            render_size=render_size,
            observe=observe,
            style=style,
            render_mode=render_mode,
        )

    @property
    def instructions(self) -> str:
        """The task in words, for prompts."""
        return self._duel.instructions

    @property
    def legal_actions(self) -> list[str]:
        """Tokens that are legal for the player."""
        return self._duel.legal_actions(self.agent)

    def expert_action(self) -> str | None:
        """Say what a perfect player does next.

        Returns:
            The first token of a shortest way to a right formula; None if there is none.
        """
        return self._duel.expert_action(self.agent)

    def _begin(self, options: Mapping[str, Any]) -> None:
        self._duel.reset(seed=int(self.np_random.integers(2**31)), options=dict(options))
        if isinstance(self.opponent, float):
            self._player: Opponent = SolverOpponent(self.opponent, self.np_random)
        else:
            self._player = self.opponent

    def _play(self, action: str) -> Outcome:
        known = action in self.action_tokens
        first = self._round(self.action_tokens.index(action) if known else IllegalText(action))
        outcome = first
        while self._duel.agents and self._duel.seats[self.agent].is_out:
            outcome = self._round(self.action_tokens.index(END))
        return outcome._replace(legal=first.legal, facts=first.facts)

    def _round(self, action: int | IllegalText) -> Outcome:
        """Play one round against the opponent."""
        other = AGENTS[1 - AGENTS.index(self.agent)]
        actions = {self.agent: action, other: self._player.act(self._duel, other)}
        _, rewards, terminations, truncations, infos = self._duel.step(actions)
        info = infos[self.agent]
        return Outcome(
            rewards[self.agent],
            info["legal"],
            terminated=terminations[self.agent],
            truncated=truncations[self.agent],
            success=info.get("success", False),
            facts={"formula_value": info["formula_value"]} if "formula_value" in info else {},
        )

    def _text(self) -> str:
        return self._duel.text(self.agent)

    def _described(self) -> str:
        return self._duel.described(self.agent)

    def _draw(self, size: int) -> Frame:
        return self._duel.picture(self.agent, size, self._look)

    def _facts(self) -> dict[str, Any]:
        return self._duel.info(self.agent)


def against(opponent: Opponent | float = 0.5, **kwargs: Any) -> AgainstEnv:
    """Make the duel as a Gymnasium environment for one player.

    Args:
        opponent: Who plays the other side; a number from 0 to 1 is a :class:`SolverOpponent` of this strength.
        **kwargs: Further arguments of :class:`AgainstEnv`.

    Returns:
        The environment.

    Raises:
        OptionError: If an argument cannot be used.
    """
    return AgainstEnv(opponent=opponent, **kwargs)


def _checked_strength(strength: object) -> float:
    """Check a strength."""
    number = isinstance(strength, (int, float, np.integer, np.floating)) and not isinstance(strength, bool)
    if not number or not 0 <= strength <= 1:  # type: ignore[operator]
        raise OptionError(f"Expected a strength as a number from 0 to 1, got {strength!r}.")
    return float(strength)  # type: ignore[arg-type]
