"""The seam between training and teachers: what a source of teacher weights offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gtr_agents.merging.state_dict import StateDict
from gtr_agents.types import Correction, Step

if TYPE_CHECKING:
    from gtr_agents.prompts import PromptTemplate


class Teacher(Protocol):
    """Turns the run's checkpoints into teacher weights; it never touches a model."""

    @property
    def version(self) -> int:
        """Number of the published teacher, from 1; a change means that new weights must be loaded."""
        ...

    def start(self, base: StateDict) -> None:
        """Begin a run at these weights, which are the first teacher; they follow the policy, so copy what is kept."""
        ...

    def add(self, checkpoint: StateDict, id: str | None = None) -> None:
        """Take note of the policy's weights after one update; they follow the policy, so copy what is kept."""
        ...

    def teacher_state(self) -> StateDict:
        """Return the published weights, as :meth:`VLMPolicy.using` takes them."""
        ...

    def diagnostics(self) -> dict[str, float]:
        """Return metrics under ``teacher/``."""
        ...

    def save(self, folder: str | Path) -> None:
        """Save everything needed to continue."""
        ...

    def load(self, folder: str | Path) -> None:
        """Continue exactly where :meth:`save` left off."""
        ...


class Thinker(Protocol):
    """A teacher without weights of ours: it writes thoughts, but cannot score tokens."""

    needs_expert: bool
    """True if the collector must note what the environment's expert would answer in every step."""

    def check(self) -> str | None:
        """Look whether it can be asked; a warning if not, or an exception if it was told to stop the run then."""
        ...

    def think(
        self, steps: Sequence[Step], template: PromptTemplate, on_done: Callable[[int], None] | None = None
    ) -> list[Correction]:
        """Judge and correct the thoughts of some steps.

        Args:
            steps: Steps with well-formed answers; they are not changed.
            template: The format of the answers: its required keys are what a correction must have.
            on_done: Told how many further steps are done.

        Returns:
            One correction per step, in their order. A failure is a correction with an ``error``, not an exception,
            unless the teacher was told to stop the run.
        """
        ...

    def diagnostics(self) -> dict[str, float]:
        """Return metrics under ``teacher/``."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs to know, as JSON holds it: how much of a budget is spent, and the like."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` returned."""
        ...
