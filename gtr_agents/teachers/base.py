"""The seam between training and teachers: what a source of teacher weights offers."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch import Tensor

from gtr_agents.merging.state_dict import StateDict


class Teacher(Protocol):
    """Turns the run's checkpoints into teacher weights; it never touches a model."""

    @property
    def version(self) -> int:
        """Number of the published teacher, from 1; a change means that new weights must be loaded."""
        ...

    def start(self, base: StateDict) -> None:
        """Begin a run at these weights, which are the first teacher."""
        ...

    def add(self, checkpoint: StateDict, id: str | None = None) -> None:
        """Take note of the policy's weights after one update."""
        ...

    def teacher_state(self) -> dict[str, Tensor]:
        """Return the published weights."""
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
