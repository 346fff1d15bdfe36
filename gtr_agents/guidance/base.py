"""The seam between training and guidance: what a teacher's opinion may change in a rollout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gtr_agents.types import FloatArray, Rollout, Step

Scorer = Callable[[list[Step]], list[FloatArray]]
"""Teacher log-probs at temperature 1 of the sampled tokens, float32 [T], under each step's own prompt."""


class Guidance(Protocol):
    """Writes the teacher's opinion into a rollout, after collection and before the advantages."""

    def annotate(self, rollout: Rollout, scorer: Scorer, progress: float = 0.0) -> dict[str, float]:
        """Fill ``guidance_reward`` and ``teacher_log_probs`` of every step.

        Args:
            rollout: Its steps are changed in place; environment and format rewards are not touched.
            scorer: Scores sampled tokens under the teacher.
            progress: Share of the run that is done, in [0, 1); where schedules stand.

        Returns:
            Metrics under ``guidance/``.
        """
        ...
