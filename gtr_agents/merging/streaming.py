"""Merges over a run's checkpoints as they come: constant memory and constant work per checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from gtr_agents.errors import MergeError
from gtr_agents.merging.rules import TiesRules
from gtr_agents.merging.state_dict import (
    StateDict,
    add_delta,
    check_compatible,
    check_names,
    check_tensor,
    copy_state,
    state_hash,
    task_vector,
)
from gtr_agents.merging.stores import FolderStore, MemoryStore, SumsStore, Update, read_settings
from gtr_agents.merging.sums import N_EVIDENCE, Accumulators, LinearSums, Sums, diagnostics, evidence
from gtr_agents.merging.trim import checkpoint_threshold, trim, trim_below


class StreamingMerge:
    """A merge over any number of checkpoints with constant memory and constant work per checkpoint.

    A few sums per entry replace the whole history, so the result equals the merge of all checkpoints with their current
    weights. Accumulators are float32 (float64 for a float64 base), in memory on the device of the base, or in the
    memory-mapped files of a folder. In a folder, every change is written beside the old state and becomes the
    state by one rename, and memory is that of a few copies of the largest tensor.

    Args:
        base: The model at the start of the run. A dict is copied; any other mapping (:class:`ShardedState`) is read
            tensor by tensor when needed and must not change. Zeros if checkpoints are deltas already.
        rules: How it is trimmed and elected; a linear merge has the defaults without trim.
        folder: Where the accumulators live on disk; if it holds a state, that is continued. In memory if None.

    Raises:
        MergeError: If the base is not finite, or the folder's state is damaged or was made from another base, by
            another method or with other rules.
    """

    method: str
    """Name of the method, as in saved settings."""
    sums_type: type[Accumulators]
    """Which sums the method needs."""

    def __init__(self, base: StateDict, rules: TiesRules, folder: str | Path | None = None) -> None:
        self.rules = rules
        check_compatible(base, base, "base")
        self.total_weight = 0.0
        self.members: dict[str, float] = {}
        self._base = copy_state(base) if isinstance(base, dict) else base
        self._store: SumsStore
        self._store = MemoryStore(self._base, self.sums_type) if folder is None else self._open(Path(folder))

    def _open(self, folder: Path) -> FolderStore:
        store = FolderStore(folder, self._base, self.sums_type)
        settings = read_settings(folder)
        if settings is not None:
            self._check_settings(settings)
            store.check_files()
            self.members, self.total_weight = _weights_of(settings)
        return store

    @property
    def base(self) -> StateDict:
        """The base; do not change its tensors."""
        return self._base

    def add(
        self,
        checkpoint: StateDict,
        weight: float = 1.0,
        id: str | None = None,
        *,
        decay: float = 1.0,
    ) -> None:
        """Add one checkpoint; nothing is changed if it is refused.

        Args:
            checkpoint: The same tensors as the base; a mapping that reads its tensors when asked is fine.
            weight: Its weight beside the current ones, >= 0.
            id: Unique name; numbered if None.
            decay: Factor for :meth:`decay`, applied to the earlier checkpoints once this one is accepted.

        Raises:
            MergeError: If the id was added before, weight or decay are outside their range, or the tensors do
                not fit or are not finite.
        """
        name = self._new_name(weight, id, decay)
        label = f"checkpoint {name!r}"
        check_names(self._base, checkpoint, label)
        if not self._store.atomic or self.rules.trim_scope == "global":
            check_compatible(self._base, checkpoint, label)
        sparsify = self._sparsifier(checkpoint)

        def vector_of(key: str) -> Tensor:
            start, tensor = self._base[key], checkpoint[key]
            if self._store.atomic:
                check_tensor(start, tensor, key, label)
            return sparsify(task_vector(start, tensor))

        self._add(vector_of, weight, name, decay)

    def sparse_vectors(self, checkpoint: StateDict) -> StateDict:
        """Return what :meth:`add` would add: the task vectors after trimming, computed when they are asked for.

        Args:
            checkpoint: As for :meth:`add`.

        Raises:
            MergeError: If the tensors do not fit or are not finite.
        """
        check_compatible(self._base, checkpoint)
        sparsify = self._sparsifier(checkpoint)
        return _Computed(self._store.names, lambda key: sparsify(task_vector(self._base[key], checkpoint[key])))

    def add_vectors(
        self,
        vectors: StateDict,
        weight: float = 1.0,
        id: str | None = None,
        *,
        decay: float = 1.0,
    ) -> None:
        """Add one checkpoint as its sparse task vectors, e.g. as a :class:`SparseArchive` gives them back.

        Args:
            vectors: As from :meth:`sparse_vectors`; nothing is trimmed any more.
            weight: As for :meth:`add`.
            id: As for :meth:`add`.
            decay: As for :meth:`add`.

        Raises:
            MergeError: As for :meth:`add`.
        """
        name = self._new_name(weight, id, decay)
        self._check_vectors(vectors, f"checkpoint {name!r}")
        self._add(lambda key: vectors[key].to(self._base[key].device), weight, name, decay)

    def remove(self, id: str, vectors: StateDict) -> None:
        """Take one checkpoint out of the merge, as if it had never been added, up to the rounding of the sums.

        Args:
            id: Its name.
            vectors: What was added, exactly: sparse task vectors as given to :meth:`add_vectors`.

        Raises:
            MergeError: If no such checkpoint was added, or the tensors do not fit.
        """
        if id not in self.members:
            raise MergeError(f"checkpoint {id!r} is no member of the merge: {', '.join(self.members) or 'it has none'}")
        self._check_vectors(vectors, f"checkpoint {id!r}")
        weight = self.members[id]
        members = {name: own for name, own in self.members.items() if name != id}
        least = min((own for own in members.values() if own > 0), default=float("inf"))

        def update(key: str, sums: Accumulators) -> None:
            sums.remove(vectors[key].to(next(iter(sums.tensors().values())).device), weight, least)

        self._commit(update, members, sum(members.values()))

    def _new_name(self, weight: float, id: str | None, decay: float) -> str:
        """Return the name of a checkpoint that may be added with this weight and decay."""
        name = id if id is not None else f"checkpoint-{len(self.members) + 1}"
        if name in self.members:
            raise MergeError(f"checkpoint {name!r} was added before; it must not count twice")
        if not 0.0 <= weight < float("inf"):
            raise MergeError(f"the weight of a checkpoint must be finite and >= 0, got {weight!r}")
        _check_decay(decay)
        return name

    def _check_vectors(self, vectors: StateDict, label: str) -> None:
        check_names(dict.fromkeys(self._store.names, torch.empty(0)), vectors, label)
        for key in self._store.names:
            check_tensor(self._base[key], vectors[key], key, label)

    def _add(self, vector_of: Callable[[str], Tensor], weight: float, name: str, decay: float) -> None:
        def update(key: str, sums: Accumulators) -> None:
            vector = vector_of(key)
            if decay != 1.0:
                sums.decay(decay)
            sums.add(vector.cpu() if self._store.atomic else vector, weight)  # files are on the CPU

        members = {earlier: own * decay for earlier, own in self.members.items()} | {name: weight}
        self._commit(update, members, self.total_weight * decay + weight)

    def _sparsifier(self, checkpoint: StateDict) -> Callable[[Tensor], Tensor]:  # noqa: ARG002 - for subclasses
        """Return what is done to each task vector of a checkpoint before it is added; nothing by default."""
        return lambda vector: vector

    def decay(self, factor: float) -> None:
        """Multiply the weight of everything added so far by a factor in [0, 1].

        Args:
            factor: ``1 - alpha`` before each new checkpoint gives an exponential moving average.

        Raises:
            MergeError: If the factor is outside [0, 1].
        """
        _check_decay(factor)
        members = {name: weight * factor for name, weight in self.members.items()}
        self._commit(lambda _key, sums: sums.decay(factor), members, self.total_weight * factor)

    def _commit(self, update: Update, members: dict[str, float], total_weight: float) -> None:
        self._store.rewrite(update, self._settings(members, total_weight))
        self.members, self.total_weight = members, total_weight

    def merged(self, lam: float = 1.0) -> dict[str, Tensor]:
        """Return base plus ``lam`` times the merged task vector, in the base's types.

        Args:
            lam: Scale of the merged task vector.

        Returns:
            New tensors; those that are not floating point are copies of the base's.
        """
        return dict(self.merged_tensors(lam))

    def merged_tensors(self, lam: float = 1.0) -> Iterator[tuple[str, Tensor]]:
        """Give the tensors of :meth:`merged` one after the other, for :func:`write_shards`.

        Args:
            lam: Scale of the merged task vector.

        Yields:
            Name and new tensor.
        """
        merged = set(self._store.names)
        for name, start in self._base.items():
            yield name, add_delta(start, self.delta(name), lam) if name in merged else start.clone()

    def delta(self, name: str) -> Tensor:
        """Return the merged task vector of one floating-point tensor, on the base's device."""
        return self._store.read(name).merged(self.rules, self.total_weight).to(self._base[name].device)

    def files(self) -> dict[str, Path]:
        """Return the files that the accumulators on disk live in, by their paths below the folder; empty in memory.

        None is ever changed: linked under the same paths in another folder, they are a state to continue from.
        """
        return self._store.files()

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return everything but the base: accumulator tensors by name, and JSON-ready settings.

        Returns:
            Tensors named ``FIELD/NAME`` (the live ones, not copies), and the settings with the base's hash.
        """
        tensors = {
            f"{field}/{name}": tensor
            for name in self._store.names
            for field, tensor in self._store.read(name).tensors().items()
        }
        return tensors, self._settings(self.members, self.total_weight)

    def load_state_dict(self, tensors: StateDict, settings: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned, bit for bit.

        Args:
            tensors: The accumulator tensors.
            settings: The settings.

        Raises:
            MergeError: If base, rules or tensors are not those of this object.
        """
        self._check_settings(settings)
        check_compatible(self.state_dict()[0], tensors, "saved accumulators")

        def copy(name: str, sums: Accumulators) -> None:
            for field, tensor in sums.tensors().items():
                tensor.copy_(tensors[f"{field}/{name}"])

        self._commit(copy, *_weights_of(settings))

    def save(self, folder: str | Path) -> None:
        """Write accumulators and settings, not the base, to a folder; a state that it holds is replaced.

        Args:
            folder: A folder of its own. Written tensor by tensor beside an older state, which a crash leaves usable.
                If the accumulators live in it already, nothing is left to do.
        """
        if isinstance(self._store, FolderStore) and self._store.folder.resolve() == Path(folder).resolve():
            return

        def copy(name: str, sums: Accumulators) -> None:
            for field, tensor in self._store.read(name).tensors().items():
                sums.tensors()[field].copy_(tensor)

        FolderStore(folder, self._base, self.sums_type).rewrite(copy, self._settings(self.members, self.total_weight))

    @classmethod
    def load(cls, folder: str | Path, base: StateDict, *, on_disk: bool = False) -> Self:
        """Continue what :meth:`save` wrote, bit for bit, with the rules it was made with.

        Args:
            folder: What was given to :meth:`save`, or where accumulators on disk live.
            base: The model at the start of the run, the same as then.
            on_disk: Keep the accumulators in that folder instead of reading them into memory.

        Returns:
            The merge.

        Raises:
            MergeError: If there is no state, it is damaged, or it was made from another base.
        """
        settings = read_settings(Path(folder))
        if settings is None:
            raise MergeError(f"expected the state of a streaming merge in {folder}, found none")
        options = cls._options(settings)
        stored = cls(base, folder=folder, **options)
        if on_disk:
            return stored
        loaded = cls(base, **options)
        loaded.load_state_dict(*stored.state_dict())
        return loaded

    @classmethod
    def _options(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments beside base and folder that saved settings were made with."""
        raise NotImplementedError

    @cached_property
    def _base_hash(self) -> str:
        return state_hash(self._base)

    def _settings(self, members: dict[str, float], total_weight: float) -> dict[str, Any]:
        return {
            "method": self.method,
            **asdict(self.rules),
            "members": dict(members),
            "total_weight": total_weight,
            "base_hash": self._base_hash,
        }

    def _check_settings(self, settings: dict[str, Any]) -> None:
        """Raise :class:`MergeError` unless settings have this base and these rules; rules they lack are the default."""
        given = {"method": "ties"} | asdict(TiesRules()) | settings
        own = {"method": self.method, **asdict(self.rules), "base_hash": self._base_hash}
        for key, expected in own.items():
            if given.get(key) != expected:
                raise MergeError(f"saved {key} must be {expected!r}, got {given.get(key)!r}")


class StreamingLinear(StreamingMerge):
    """The weighted mean of any number of checkpoints: a moving average with ``decay``, a simple one without.

    Args:
        base: The model at the start of the run; as for :class:`StreamingMerge`.
        folder: Where the accumulators live on disk; in memory if None.

    Raises:
        MergeError: If the base is not finite, or the folder's state does not fit.
    """

    method = "linear"
    sums_type = LinearSums

    def __init__(self, base: StateDict, *, folder: str | Path | None = None) -> None:
        super().__init__(base, TiesRules(density=1.0), folder)

    @classmethod
    def _options(cls, settings: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG003 - a mean has no options
        return {}


class StreamingTies(StreamingMerge):
    """TIES over any number of checkpoints with constant memory and constant work per checkpoint.

    Trimming looks at one checkpoint only, election and average need only sums, so four sums per entry replace
    the whole history; the result equals :func:`ties_merge` over all checkpoints with their current weights.

    Args:
        base: The model at the start of the run; as for :class:`StreamingMerge`.
        density: Share of each task vector kept, in (0, 1].
        election: ``"total"`` or ``"frequency"``.
        zero: What an undecided election gives: ``"zero"``, ``"positive"`` or ``"majority"``.
        min_mass: Entries whose agreeing weight is below this share of all weight become 0; 0 is off.
        trim_scope: ``"tensor"`` trims each tensor alone, ``"global"`` all tensors of a checkpoint by one threshold.
        folder: Where the accumulators live on disk; if it holds a state, that is continued. In memory if None.

    Raises:
        MergeError: If a range does not fit, the base is not finite, or the folder's state does not fit.
        UnknownNameError: If there is no such rule or scope.
    """

    method = "ties"
    sums_type = Sums

    def __init__(
        self,
        base: StateDict,
        density: float = 0.8,
        election: str = "total",
        *,
        zero: str = "zero",
        min_mass: float = 0.0,
        trim_scope: str = "tensor",
        folder: str | Path | None = None,
    ) -> None:
        super().__init__(base, TiesRules(density, election, zero, min_mass, trim_scope), folder)

    @classmethod
    def _options(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {name: settings[name] for name in asdict(TiesRules()) if name in settings}

    @property
    def density(self) -> float:
        """Share of each task vector that is kept."""
        return self.rules.density

    @property
    def election(self) -> str:
        """How signs are elected."""
        return self.rules.election

    def _sparsifier(self, checkpoint: StateDict) -> Callable[[Tensor], Tensor]:
        if self.rules.trim_scope == "tensor":
            return lambda vector: trim(vector, self.density)
        threshold = checkpoint_threshold(self._base, checkpoint, self.density)
        return lambda vector: trim_below(vector, threshold)

    def diagnostics(self) -> dict[str, float]:
        """Summarise how well the checkpoints agree, from the sums alone.

        Returns:
            ``agreement`` (share of the larger sign, mean over entries with mass), ``elected_agreement``
            (share of the elected sign), ``conflict_mass`` (0 none, 0.5 complete), ``coverage`` (share of
            entries with mass) and ``norm_ratio`` (norm of the merge over norm of the linear mean of the
            trimmed vectors); 0 where undefined.
        """
        total = torch.zeros(N_EVIDENCE, dtype=torch.float64)
        for name in self._store.names:
            total += self._evidence(name)
        return diagnostics(total)

    def tensor_diagnostics(self) -> dict[str, dict[str, float]]:
        """Return what :meth:`diagnostics` tells, for every floating-point tensor by name."""
        return {name: diagnostics(self._evidence(name)) for name in self._store.names}

    def _evidence(self, name: str) -> Tensor:
        sums = self.sums(name)
        return evidence(sums, sums.merged(self.rules, self.total_weight), self.rules, self.total_weight)

    def sums(self, name: str) -> Sums:
        """Return the live sums of one floating-point tensor; do not change them."""
        sums = self._store.read(name)
        assert isinstance(sums, Sums)
        return sums


class _Computed(Mapping[str, Tensor]):
    """Tensors that are computed when they are asked for."""

    def __init__(self, names: Sequence[str], compute: Callable[[str], Tensor]) -> None:
        self._names, self._compute = names, compute

    def __getitem__(self, name: str) -> Tensor:
        return self._compute(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _weights_of(settings: Mapping[str, Any]) -> tuple[dict[str, float], float]:
    """Return members with their weights, and the total weight, from saved settings."""
    members = {str(name): float(weight) for name, weight in settings["members"].items()}
    return members, float(settings["total_weight"])


def _check_decay(factor: float) -> None:
    if not 0.0 <= factor <= 1.0:
        raise MergeError(f"the decay factor must be in [0, 1], got {factor!r}")
