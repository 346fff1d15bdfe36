"""Decides what one player may do in the duel: the rules of Points24 on one of two formulas, without pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gtr_envs.cards.formula import END
from gtr_envs.cards.points24 import Points24Env
from gtr_envs.core import Outcome
from gtr_envs.styles import Look


class Seat(Points24Env):
    """One player's place at the table.

    A seat is a game of Points24 that somebody else steps and draws. Tokens, grammar, legality, places and the judgement
    of ``=`` are inherited; new is what happens after ``=``, when the other player may still be writing.
    """

    won = False
    """True once a winning formula has been handed in."""

    @property
    def cards(self) -> list[str]:
        """Names of the cards in table order; a new list."""
        return [card.name for card in self._cards]

    @property
    def formula(self) -> list[str]:
        """Tokens so far without ``=``; a new list."""
        return list(self._formula)

    @property
    def is_out(self) -> bool:
        """True once a formula has been handed in that does not win."""
        return self._phase == "over" and not self.won

    @property
    def written(self) -> str:
        """The formula as both players see it, with ``=`` once it has been handed in."""
        return self._text() + (END if self._phase == "over" else "")

    @property
    def legal_actions(self) -> list[str]:
        """Tokens that are legal now; ``=`` alone, as a pass, for a player who is out."""
        return [END] if self.is_out else super().legal_actions

    def begin(self, rng: np.random.Generator, options: Mapping[str, Any]) -> Look:
        """Begin a game.

        Args:
            rng: Deals the hand.
            options: As in ``Points24Env.reset``: empty for a random hand, or ``"numbers"``, or ``"cards"``; and
                perhaps ``"style"``.

        Returns:
            What the game looks like.

        Raises:
            OptionError: If the options name no hand.
            DealError: If no hand may be played.
        """
        self.np_random = rng
        self._begin(self._dressed(options))
        self._start()
        self.won = False
        return self._look

    def token_of(self, action: object) -> str:
        """Name an action.

        Args:
            action: Index of the action, or :class:`gtr_envs.core.IllegalText`.

        Returns:
            The token, or the text that is none.

        Raises:
            InvalidActionError: If the action is not in the action space.
        """
        return self._name_of(action)

    def play(self, token: str) -> Outcome:
        """Play one token.

        Args:
            token: A token; any other text is an illegal action.

        Returns:
            What Points24 makes of it; for a player who is out nothing happens and nothing is paid.
        """
        if self.is_out:
            return Outcome(0.0, token == END)
        outcome = self._play(token)
        if outcome.terminated:
            self.won = outcome.success
            self._end()
        return outcome

    def facts(self) -> dict[str, Any]:
        """Tell what this player may know.

        Returns:
            The entries that ``info`` has in Points24 too, and ``out``; new objects at every call.
        """
        return {**self._inform(), "out": self.is_out}
