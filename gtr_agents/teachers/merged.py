"""The free teacher of GTR-Turbo: a merge of the run's own earlier checkpoints (arXiv 2512.13043)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gtr_agents.errors import CheckpointError, ConfigError, MergeError, unknown_name
from gtr_agents.merging.rules import check_election
from gtr_agents.merging.state_dict import StateDict
from gtr_agents.merging.streaming import StreamingLinear, StreamingMerge, StreamingTies
from gtr_agents.merging.trim import check_density
from gtr_agents.teachers.checkpoints import CheckpointStore

STREAMING_METHODS = ("ties", "linear")
"""Merge methods that need no history in memory."""
WEIGHTS = ("sma", "ema")
"""How checkpoints are weighted: all equally, or the newer ones more."""


class TeacherManager:
    """Merges every checkpoint of a run, as it comes, into the teacher of the next update.

    Teacher ``T_1`` is the base; ``T_k`` is ``base + lam * merge(W_1 - base, ..., W_(k-1) - base)``. The work
    per update does not grow with k. It handles plain named tensors: full weights of a small model, or zeros
    as base and materialised LoRA deltas (``scale * B @ A``) as checkpoints.

    Args:
        method: Merge method, a name in :data:`STREAMING_METHODS`.
        weights: ``"sma"`` weights all checkpoints equally (the reference code's default), ``"ema"``
            exponentially.
        alpha: Share of the newest checkpoint under ``"ema"``, in [0, 1]; 0.5 is the paper's best.
        density: Share of each task vector that TIES keeps, in (0, 1]; 0.8 is the reference code's value. A linear merge
            trims nothing.
        lam: Scale of the merged task vector.
        election: TIES sign rule, ``"total"`` or ``"frequency"``.
        merge_interval: A new teacher is published after every so many checkpoints, >= 1 (paper: 1 to 10 are
            alike).

    Raises:
        UnknownNameError: If method, weights or election rule do not exist.
        ConfigError: If alpha or merge_interval is outside its range.
        MergeError: If density is outside its range.
    """

    def __init__(
        self,
        method: str = "ties",
        weights: Literal["sma", "ema"] = "sma",
        alpha: float = 0.5,
        density: float = 0.8,
        lam: float = 1.0,
        election: str = "total",
        merge_interval: int = 1,
    ) -> None:
        if method not in STREAMING_METHODS:
            raise unknown_name("teacher merge method", method, STREAMING_METHODS)
        if weights not in WEIGHTS:
            raise unknown_name("weighting of checkpoints", weights, WEIGHTS)
        if not 0.0 <= alpha <= 1.0:
            raise ConfigError(f"alpha must be in [0, 1], got {alpha!r}")
        if merge_interval < 1:
            raise ConfigError(f"merge_interval must be at least 1, got {merge_interval!r}")
        check_density(density)
        check_election(election)
        self.method = method
        self.weights = weights
        self.alpha = alpha
        self.density = density
        self.lam = lam
        self.election = election
        self.merge_interval = merge_interval
        self._version = 0
        self._drift = 0.0
        self._merge: StreamingMerge | None = None
        self._published: dict[str, Tensor] = {}

    @property
    def version(self) -> int:
        """Number of the published teacher: 0 before the start, 1 is the base."""
        return self._version

    @property
    def n_checkpoints(self) -> int:
        """How many checkpoints have been merged."""
        return len(self._merge.members) if self._merge is not None else 0

    def start(self, base: StateDict) -> None:
        """Begin a run; the base is the first teacher.

        Args:
            base: The policy's weights before the first update; copied. Accumulators stay on its devices.
        """
        self._merge = self._new_merge(base)
        self._published = dict(self._merge.base)
        self._version = 1
        self._drift = 0.0

    def add(self, checkpoint: StateDict, id: str | None = None) -> None:
        """Merge one checkpoint and publish a new teacher if its turn has come.

        Args:
            checkpoint: The policy's weights after an update: the same tensors as the base.
            id: Unique name of the checkpoint; numbered if None.

        Raises:
            MergeError: If the id was added before or the tensors do not fit; nothing is changed then.
        """
        merge = self._started()
        if self.weights == "sma" or not merge.members:
            merge.add(checkpoint, 1.0, id)
        else:
            merge.add(checkpoint, self.alpha, id, decay=1.0 - self.alpha)
        if self.n_checkpoints % self.merge_interval == 0:
            self._publish()

    def teacher_state(self) -> dict[str, Tensor]:
        """Return the published teacher's weights; do not change its tensors.

        Raises:
            MergeError: Before :meth:`start`.
        """
        self._started()
        return self._published

    def diagnostics(self) -> dict[str, float]:
        """Return metrics of the teacher.

        Returns:
            ``teacher/version``, ``teacher/checkpoints``, ``teacher/drift`` (cosine of the last two published
            task vectors; exactly 1 if the teacher is frozen, 0 while there are not yet two) and, under
            ``teacher/``, what :meth:`StreamingTies.diagnostics` tells of TIES.

        Raises:
            MergeError: Before :meth:`start`.
        """
        metrics = {
            "version": float(self._version),
            "checkpoints": float(self.n_checkpoints),
            "drift": self._drift,
        }
        merge = self._started()
        if isinstance(merge, StreamingTies):  # a mean keeps nothing to tell agreement from
            metrics |= merge.diagnostics()
        return {f"teacher/{name}": value for name, value in metrics.items()}

    def save(self, folder: str | Path) -> None:
        """Save base, accumulators and published teacher as a new checkpoint; the one before is then deleted.

        Args:
            folder: A folder of its own; a crash while writing leaves the earlier state in it usable.

        Raises:
            MergeError: Before :meth:`start`.
        """
        merge = self._started()
        tensors, settings = merge.state_dict()
        store = CheckpointStore(folder, keep_last=1)
        number = max((int(id) for id in store.ids() if id.isdecimal()), default=0) + 1
        states = {"base": merge.base, "accumulators": tensors, "teacher": self._published}
        meta = {"recipe": self._recipe(), "merge": settings, "version": self._version, "drift": self._drift}
        store.save(f"{number:06d}", states, meta)

    def load(self, folder: str | Path) -> None:
        """Continue exactly where :meth:`save` left off; :meth:`start` is not needed before.

        Args:
            folder: What was given to :meth:`save`.

        Raises:
            CheckpointError: If there is no complete state, or it was made with other settings.
        """
        states, meta = CheckpointStore(folder).load()
        if meta.get("recipe") != self._recipe():
            raise CheckpointError(
                f"the teacher in {folder} was merged with {meta.get('recipe')}, this one is set to "
                f"{self._recipe()}; use the same settings or start a new run"
            )
        merge = self._new_merge(states["base"])
        try:
            merge.load_state_dict(states["accumulators"], meta["merge"])
        except MergeError as error:
            raise CheckpointError(f"the teacher in {folder} is inconsistent: {error}") from error
        self._merge = merge
        self._published = states["teacher"]
        self._version = int(meta["version"])
        self._drift = float(meta["drift"])

    def _started(self) -> StreamingMerge:
        if self._merge is None:
            raise MergeError("the teacher has no base yet; call start(base) or load(folder) first")
        return self._merge

    def _new_merge(self, base: StateDict) -> StreamingMerge:
        if self.method == "linear":
            return StreamingLinear(base)
        return StreamingTies(base, density=self.density, election=self.election)

    def _publish(self) -> None:
        merge = self._started()
        published = merge.merged(self.lam)
        self._drift = _cosine_of_deltas(merge.base, self._published, published)
        self._published = published
        self._version += 1

    def _recipe(self) -> dict[str, Any]:
        names = ("method", "weights", "alpha", "density", "lam", "election", "merge_interval")
        return {name: getattr(self, name) for name in names}


def _cosine_of_deltas(base: StateDict, old: StateDict, new: StateDict) -> float:
    """Return the cosine of two task vectors over all float tensors; 0 if one of them is zero."""
    products = torch.zeros(3, dtype=torch.float64)
    for name, start in base.items():
        if start.is_floating_point():
            first, second = old[name].double() - start.double(), new[name].double() - start.double()
            products += torch.stack([(first * second).sum(), first.square().sum(), second.square().sum()]).cpu()
    inner, first_square, second_square = products.tolist()
    length = (first_square * second_square) ** 0.5
    return inner / length if length > 0 else 0.0
