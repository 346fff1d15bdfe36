"""The seam between training and guidance: what a teacher's opinion may change in an update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from gtr_agents.ranks import Ranks
from gtr_agents.types import BoolArray, Correction, FloatArray, IntArray, Rollout, Step

if TYPE_CHECKING:
    import numpy as np

    from gtr_agents.guidance.imitation import Imitation
    from gtr_agents.prompts import PromptTemplate

Direction = Literal["reverse", "forward"]
"""reverse: KL(policy, teacher); forward: KL(teacher, policy)."""


@dataclass(frozen=True, slots=True)
class ThoughtSampling:
    """How a teacher with weights writes an answer: again and warmer until it is well formed, but not for ever."""

    temperature: float = 0.2
    """Of the first attempt."""
    growth: float = 1.1
    """Factor of the temperature after every failed attempt."""
    max_temperature: float = 0.9
    """Where the growth ends."""
    retries: int = 5
    """Attempts at most, >= 1."""


class TeacherView(Protocol):
    """The teacher as guidance sees it: its scores and its thoughts about the steps of a rollout."""

    template: PromptTemplate
    """The format of the answers."""

    def score(self, steps: Sequence[Step]) -> list[FloatArray]:
        """Return the teacher's log-probs at temperature 1 of the sampled tokens, float32 [T] per step."""
        ...

    def divergence(self, steps: Sequence[Step], direction: Direction) -> list[FloatArray]:
        """Return the exact KL divergence over the whole vocabulary at every sampled position, float32 [T] per step."""
        ...

    def think(self, steps: Sequence[Step], sampling: ThoughtSampling) -> list[Correction]:
        """Return what the teacher would have thought in these steps, one correction each."""
        ...

    def tokenise(self, answer: str) -> tuple[IntArray, BoolArray]:
        """Return the tokens of an answer, int64 [T], and which of them are thought, bool [T] (True = thought)."""
        ...

    def thought_field(self, step: Step) -> BoolArray:
        """Mark the sampled tokens that write the value of the thought field, bool [T]."""
        ...


class Guidance:
    """Base of the kinds of guidance. A kind rewards steps, or offers thoughts to imitate, or both.

    An update asks ``annotate``, then ``draw`` once per epoch, and ends with ``commit``; an update that is taken back
    does not commit, and the next ``annotate`` must forget what it added.
    """

    needs: Literal["scores", "thoughts", "nothing"] = "nothing"
    """What the teacher must be able to do."""
    per_token: bool = False
    """True if it writes ``token_advantages``, which only the token-level ratio can use."""
    weight: float = 0.0
    """Weight of the cross-entropy of drawn samples beside the loss of PPO."""
    ranks: Ranks = Ranks()
    """The processes that train together, set by the learner. What is drawn must be the same in all of them."""

    def annotate(self, rollout: Rollout, teacher: TeacherView, progress: float = 0.0) -> dict[str, float]:
        """Write the teacher's opinion into a rollout, after its collection and before the advantages.

        Args:
            rollout: Its steps may be changed in place; environment and format rewards are not touched.
            teacher: Who is asked.
            progress: Share of the run that is done, in [0, 1); where schedules stand.

        Returns:
            Metrics under ``guidance/``.
        """
        raise NotImplementedError

    def draw(self, n: int, rng: np.random.Generator) -> list[Imitation]:
        """Draw samples to imitate in one epoch.

        Args:
            n: How many, at most: as many as the epoch has steps.
            rng: Source of randomness.

        Returns:
            Samples in random order; none for guidance that only rewards.
        """
        del n, rng
        return []

    def commit(self) -> None:
        """The update is complete: keep what it added."""

    def save(self, folder: Path) -> None:
        """Save what a resumed run needs; nothing for guidance without memory."""

    def load(self, folder: Path) -> None:
        """Take back what :meth:`save` wrote."""
