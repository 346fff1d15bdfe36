"""The free teacher of GTR-Turbo: a merge of the run's own earlier checkpoints (arXiv 2512.13043)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gtr_agents.errors import CheckpointError, ConfigError, MergeError, unknown_name
from gtr_agents.merging.compress import Products, factorise
from gtr_agents.merging.rules import check_election
from gtr_agents.merging.state_dict import StateDict
from gtr_agents.merging.streaming import StreamingLinear, StreamingMerge, StreamingTies
from gtr_agents.merging.trim import check_density
from gtr_agents.teachers.checkpoints import CheckpointStore
from gtr_agents.teachers.places import TEACHER, InMemory, OnDisk, Place

STREAMING_METHODS = ("ties", "linear")
"""Merge methods that need no history in memory."""
WEIGHTS = ("sma", "ema")
"""How checkpoints are weighted: all equally, or the newer ones more."""
FORMS = ("dense", "adapter")
"""How a teacher is published: as the tensors that were merged, or in factors of a given rank."""
ACCUMULATORS = ("memory", "disk")
"""Where the sums of the past live."""
LEAST_ENERGY = 0.95
"""A teacher in factors that keeps less of the merge than this share is warned about; our choice."""


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
        form: ``"dense"`` publishes the tensors that were merged, exactly; ``"adapter"``, for the task vectors of a LoRA
            run, publishes them in factors, which :meth:`VLMPolicy.using` loads beside the student's adapter.
        rank: Of the factors, >= 1; 128 is ours.
        accumulators: ``"memory"``, on the device of the base; or ``"disk"``: base, sums and a dense teacher lie in
            files of ``folder`` and are read one tensor at a time. The results are the same, bit for bit.
        window: Only so many newest checkpoints count, >= 1; 0 merges all of the run. Their trimmed task vectors are
            kept in 8-bit precision (:class:`gtr_agents.merging.archive.SparseArchive`), and the merge is of those.
            Needs accumulators on disk.
        folder: For ``"disk"``: working folder of this object, emptied by :meth:`start` and :meth:`load`. Without one, a
            saved teacher can be loaded and used where it lies, but nothing can be added to it.

    Raises:
        UnknownNameError: If method, weights, election rule, form or place of the accumulators do not exist.
        ConfigError: If alpha, merge_interval, rank or window is outside its range, or there is a window in memory.
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
        form: Literal["dense", "adapter"] = "dense",
        rank: int = 128,
        accumulators: Literal["memory", "disk"] = "memory",
        window: int = 0,
        folder: str | Path | None = None,
    ) -> None:
        _check_name("teacher merge method", method, STREAMING_METHODS)
        _check_name("weighting of checkpoints", weights, WEIGHTS)
        _check_name("form of a teacher", form, FORMS)
        _check_name("place of accumulators", accumulators, ACCUMULATORS)
        if not 0.0 <= alpha <= 1.0:
            raise ConfigError(f"alpha must be in [0, 1], got {alpha!r}")
        if merge_interval < 1 or rank < 1:
            raise ConfigError(f"merge_interval and rank must be at least 1, got {merge_interval!r} and {rank!r}")
        if window < 0 or (window and accumulators == "memory"):
            raise ConfigError(
                f"window must be 0, or at least 1 with accumulators on disk, got {window!r} with {accumulators!r}"
            )
        check_density(density)
        check_election(election)
        self.method = method
        self.weights = weights
        self.alpha = alpha
        self.density = density
        self.lam = lam
        self.election = election
        self.merge_interval = merge_interval
        self.form = form
        self.rank = rank
        self.accumulators = accumulators
        self.window = window
        self._place: Place = InMemory() if accumulators == "memory" else OnDisk(Path(folder) if folder else None)
        self._version = 0
        self._drift = 0.0
        self._added = 0
        self._energy: dict[str, float] = {}
        self._merge: StreamingMerge | None = None
        self._published: StateDict = {}

    @property
    def version(self) -> int:
        """Number of the published teacher: 0 before the start, 1 is the base."""
        return self._version

    @property
    def n_checkpoints(self) -> int:
        """How many checkpoints have been merged, those that a window has left behind counted too."""
        return self._added

    def start(self, base: StateDict) -> None:
        """Begin a run; the base is the first teacher.

        Args:
            base: The policy's weights before the first update; copied. Accumulators in memory stay on its devices.

        Raises:
            ConfigError: If the accumulators belong on disk and there is no folder for them.
            MergeError: If the teacher is to be published in factors and the base is no LoRA run's: not all matrices.
        """
        if self.form == "adapter" and (other := [name for name, tensor in base.items() if tensor.dim() != 2]):
            raise MergeError(
                f"form 'adapter' expects the task vectors of a LoRA run, which are matrices, but {other[0]!r} has "
                f"{base[other[0]].dim()} axes; use form 'dense' where all weights are trained"
            )
        self._merge = self._new_merge(self._place.begin(base))
        self._version = 1
        self._drift = 0.0
        self._added = 0
        self._energy = {}
        self._published = self._merge.base
        if self.form == "adapter":
            self._published = self._in_factors(self._merge.base.items())

    def add(self, checkpoint: StateDict, id: str | None = None) -> None:
        """Merge one checkpoint and publish a new teacher if its turn has come.

        Args:
            checkpoint: The policy's weights after an update: the same tensors as the base.
            id: Unique name of the checkpoint; numbered if None.

        Raises:
            MergeError: If the id was added before or the tensors do not fit; nothing is changed then.
            ConfigError: If the accumulators belong on disk and there is no folder for them.
        """
        merge = self._started()
        self._place.check_writable()
        name = id if id is not None else f"checkpoint-{self._added + 1}"
        fading = self.weights == "ema" and bool(merge.members)
        weight, decay = (self.alpha, 1.0 - self.alpha) if fading else (1.0, 1.0)
        if self.window:
            self._add_to_window(merge, checkpoint, name, weight, decay)
        else:
            merge.add(checkpoint, weight, name, decay=decay)
        self._added += 1
        if self.n_checkpoints % self.merge_interval == 0:
            self._publish()

    def _add_to_window(
        self, merge: StreamingMerge, checkpoint: StateDict, name: str, weight: float, decay: float
    ) -> None:
        """Add what the archive gives back, so that the same can be taken out again; then do so with what is too old."""
        archive = self._place.archive
        assert archive is not None
        if name not in merge.members:  # the vectors of a member are needed to take it out; add_vectors refuses it
            archive.add(name, merge.sparse_vectors(checkpoint))
        merge.add_vectors(archive.read(name), weight, name, decay=decay)
        for old in list(merge.members)[: -self.window]:
            merge.remove(old, archive.read(old))
            archive.remove(old)

    def teacher_state(self) -> StateDict:
        """Return the published teacher; do not change its tensors.

        Returns:
            Tensors named like the base's; in form ``"adapter"`` their factors, as
            :attr:`gtr_agents.merging.compress.Factors.tensors`.

        Raises:
            MergeError: Before :meth:`start`.
        """
        self._started()
        return self._published

    def diagnostics(self) -> dict[str, float]:
        """Return metrics of the teacher.

        Returns:
            ``teacher/version``, ``teacher/checkpoints``, ``teacher/drift`` (cosine of the last two published
            task vectors; exactly 1 if the teacher is frozen, 0 while there are not yet two); in form ``"adapter"``
            ``teacher/retained_energy`` and ``teacher/retained_energy_min`` (share of the merge's squared norm that the
            factors keep, over all tensors and of the worst one, in [0, 1]); and, under ``teacher/``, what
            :meth:`StreamingTies.diagnostics` tells of TIES.

        Raises:
            MergeError: Before :meth:`start`.
        """
        metrics = {
            "version": float(self._version),
            "checkpoints": float(self.n_checkpoints),
            "drift": self._drift,
            **self._energy,
        }
        merge = self._started()
        if isinstance(merge, StreamingTies):  # a mean keeps nothing to tell agreement from
            metrics |= merge.diagnostics()
        return {f"teacher/{name}": value for name, value in metrics.items()}

    def save(self, folder: str | Path) -> None:
        """Save base, accumulators and published teacher as a new checkpoint; the one before is then deleted.

        What lies on disk already is linked, or copied where the folder is on another file system, but never read into
        memory.

        Args:
            folder: A folder of its own; a crash while writing leaves the earlier state in it usable.

        Raises:
            MergeError: Before :meth:`start`.
        """
        merge = self._started()
        states, files, settings = self._place.saved(merge)
        if self.form == "adapter":
            states[TEACHER] = self._published
        else:
            more_states, more_files = self._place.saved_teacher(self._published)
            states, files = states | more_states, files | more_files
        store = CheckpointStore(folder, keep_last=1)
        number = max((int(id) for id in store.ids() if id.isdecimal()), default=0) + 1
        meta = {
            "recipe": self._recipe(),
            "merge": settings,
            "version": self._version,
            "drift": self._drift,
            "added": self._added,
            "energy": self._energy,
        }
        store.save(f"{number:06d}", states, meta, files)

    def load(self, folder: str | Path) -> None:
        """Continue exactly where :meth:`save` left off; :meth:`start` is not needed before.

        Args:
            folder: What was given to :meth:`save`. Accumulators on disk are linked (or copied) into the working folder;
                without one, they are read where they lie, and the folder must stay.

        Raises:
            CheckpointError: If there is no complete state, or it was made with other settings.
        """
        store = CheckpointStore(folder)
        states, meta = store.load()
        if meta.get("recipe") != self._recipe():
            raise CheckpointError(
                f"the teacher in {folder} was merged with {meta.get('recipe')}, this one is set to "
                f"{self._recipe()}; use the same settings or start a new run"
            )
        version = int(meta["version"])
        base, published = self._place.adopt(store.folder / store.ids()[-1], states, version)
        try:
            merge = self._new_merge(base)
            if meta["merge"]:
                merge.load_state_dict(states["accumulators"], meta["merge"])
        except MergeError as error:
            raise CheckpointError(f"the teacher in {folder} is inconsistent: {error}") from error
        self._merge = merge
        self._published = states[TEACHER] if self.form == "adapter" else published
        self._version = version
        self._drift = float(meta["drift"])
        self._added = int(meta.get("added", len(merge.members)))  # earlier versions had no windows
        self._energy = dict(meta.get("energy", {}))

    def _started(self) -> StreamingMerge:
        if self._merge is None:
            raise MergeError("the teacher has no base yet; call start(base) or load(folder) first")
        return self._merge

    def _new_merge(self, base: StateDict) -> StreamingMerge:
        if self.method == "linear":
            return StreamingLinear(base, folder=self._place.sums)
        return StreamingTies(base, density=self.density, election=self.election, folder=self._place.sums)

    def _publish(self) -> None:
        """Make the merge the teacher; the one before goes when the new one is complete."""
        merge, version = self._started(), self._version + 1
        tensors = merge.merged_tensors(self.lam)
        published = self._in_factors(tensors) if self.form == "adapter" else self._place.hold(tensors, version)
        self._drift = _cosine_of_deltas(merge.base, self._as_merged(self._published), self._as_merged(published))
        self._published = published
        self._version = version
        self._place.prune(version)

    def _in_factors(self, tensors: Iterable[tuple[str, Tensor]]) -> StateDict:
        factors = factorise(tensors, self.rank)
        if factors.overall_energy < LEAST_ENERGY <= self._energy.get("retained_energy", 1.0):  # once each time it falls
            warnings.warn(
                f"A teacher of rank {self.rank} keeps {factors.overall_energy:.3f} of the merge's squared norm, below "
                f"{LEAST_ENERGY}: raise teacher.rank, or set teacher.form to dense.",
                stacklevel=4,
            )
        least = min(factors.energy.values(), default=1.0)
        self._energy = {"retained_energy": factors.overall_energy, "retained_energy_min": least}
        return factors.tensors

    def _as_merged(self, published: StateDict) -> StateDict:
        """Return a published teacher by the base's names."""
        return Products(published) if self.form == "adapter" else published

    def _recipe(self) -> dict[str, Any]:
        """Return the settings that a saved state must have been made with; those that are off are left out."""
        names = ["method", "weights", "alpha", "density", "lam", "election", "merge_interval"]
        if self.form == "adapter":
            names += ["form", "rank"]
        if self.accumulators == "disk":
            names += ["accumulators"]
        if self.window:
            names += ["window"]
        return {name: getattr(self, name) for name in names}


def _check_name(kind: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise unknown_name(kind, name, known)


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
