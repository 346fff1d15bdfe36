"""The teacher that is an exponential moving average of the policy's weights, as in self-distillation (mean teacher)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from gtr_agents.merging.state_dict import StateDict
from gtr_agents.teachers.merged import TeacherManager

START = "start"
"""Id of the base among the averaged checkpoints."""


class EmaTeacher(TeacherManager):
    """``T_1`` is the base; ``T_(k+1) = alpha * W_k + (1 - alpha) * T_k``: no trimming, no election (arXiv 1703.01780).

    It differs from a linear :class:`TeacherManager` with weights ``"ema"`` in the first checkpoint: there it replaces
    the base as a whole, here the base fades like any other. The average is kept in float32, so that small steps are not
    lost in a base of 16 bits.

    Args:
        alpha: Share of the newest checkpoint, in [0, 1]: 1 minus the usual decay.
        merge_interval: As for :class:`TeacherManager`.
        form: As for :class:`TeacherManager`.
        rank: As for :class:`TeacherManager`.
        accumulators: As for :class:`TeacherManager`.
        folder: As for :class:`TeacherManager`.

    Raises:
        UnknownNameError: If form or place of the accumulators do not exist.
        ConfigError: If alpha, merge_interval or rank is outside its range.
    """

    def __init__(
        self,
        alpha: float = 0.5,
        merge_interval: int = 1,
        form: Literal["dense", "adapter"] = "dense",
        rank: int = 128,
        accumulators: Literal["memory", "disk"] = "memory",
        folder: str | Path | None = None,
    ) -> None:
        super().__init__(
            method="linear",
            weights="ema",
            alpha=alpha,
            merge_interval=merge_interval,
            form=form,
            rank=rank,
            accumulators=accumulators,
            folder=folder,
        )

    def start(self, base: StateDict) -> None:
        """Begin a run; the base is the first teacher and the first member of the average.

        Args:
            base: The policy's weights before the first update; copied.

        Raises:
            ConfigError: As :meth:`TeacherManager.start`.
            MergeError: As :meth:`TeacherManager.start`.
        """
        super().start(base)
        merge = self._started()
        merge.add(merge.base, 1.0, START)

    def _recipe(self) -> dict[str, Any]:
        return super()._recipe() | {"name": "ema"}
