"""The perfect and free teacher: the environment's own expert, where it has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gtr_agents.types import Correction, Step

if TYPE_CHECKING:
    from gtr_agents.prompts import PromptTemplate


class OracleTeacher:
    """Thinks what the environment's expert thinks: the exact solver of the card games, the planner of the households.

    It is the corrector of GTR (arXiv 2503.08525) without cost and without errors: what an external teacher could teach
    at best. It knows the state that the agent must read from the picture.
    """

    needs_expert = True

    def check(self) -> str | None:
        """Return None: it can always be asked."""
        return None

    def think(
        self, steps: Sequence[Step], template: PromptTemplate, on_done: Callable[[int], None] | None = None
    ) -> list[Correction]:
        """Return the expert's answer to every step.

        Args:
            steps: Steps of a collector that asked the expert.
            template: Unused: the expert's answers were written in it already.
            on_done: Told the number of steps, at the end.

        Returns:
            One correction each; where the task cannot be won any more, it says so.
        """
        del template
        if on_done is not None:
            on_done(len(steps))
        return [
            Correction(answer=step.expert_answer) if step.expert_answer else Correction(solvable=False)
            for step in steps
        ]

    def diagnostics(self) -> dict[str, float]:
        """Return nothing: there is nothing to watch."""
        return {}

    def state(self) -> dict[str, Any]:
        """Return nothing: it has no memory."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take nothing back.

        Args:
            state: Not looked at.
        """
