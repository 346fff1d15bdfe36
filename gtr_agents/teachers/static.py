"""The teacher that stays what the policy was at the start (ablation: static KL)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from gtr_agents.errors import MergeError
from gtr_agents.merging.state_dict import StateDict, copy_state
from gtr_agents.teachers.checkpoints import CheckpointStore


class StaticTeacher:
    """The initial policy as teacher for the whole run; checkpoints are ignored."""

    def __init__(self) -> None:
        self._base: dict[str, Tensor] | None = None

    @property
    def version(self) -> int:
        """0 before the start, 1 ever after."""
        return 0 if self._base is None else 1

    def start(self, base: StateDict) -> None:
        """Take these weights, copied, as the teacher of the whole run.

        Args:
            base: The policy's weights before the first update.
        """
        self._base = copy_state(base)

    def add(self, checkpoint: StateDict, id: str | None = None) -> None:
        """Ignore a checkpoint.

        Args:
            checkpoint: Not looked at.
            id: Not looked at.
        """

    def teacher_state(self) -> dict[str, Tensor]:
        """Return the initial weights; do not change its tensors.

        Raises:
            MergeError: Before :meth:`start`.
        """
        if self._base is None:
            raise MergeError("the teacher has no base yet; call start(base) or load(folder) first")
        return self._base

    def diagnostics(self) -> dict[str, float]:
        """Return ``teacher/version``."""
        return {"teacher/version": float(self.version)}

    def save(self, folder: str | Path) -> None:
        """Save the weights once.

        Args:
            folder: A folder of its own.

        Raises:
            MergeError: Before :meth:`start`.
        """
        store = CheckpointStore(folder)
        if not store.ids():
            store.save("base", {"base": self.teacher_state()})

    def load(self, folder: str | Path) -> None:
        """Take the weights that :meth:`save` wrote.

        Args:
            folder: What was given to :meth:`save`.

        Raises:
            CheckpointError: If there are none.
        """
        self._base = CheckpointStore(folder).load("base")[0]["base"]
