"""Merges models or adapters from disk into a new folder, tensor by tensor, and tells how well they agree.

Tensors are the outer loop and checkpoints the inner one: a few sums per entry replace the checkpoints, so memory is
that of a few copies of the largest tensor, whatever their number. ``slerp`` and the dialects need all task vectors of
one tensor at once.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from gtr_agents.errors import CheckpointError, ConfigError, MergeError, unknown_name
from gtr_agents.files import flush
from gtr_agents.merging import MERGE_METHODS
from gtr_agents.merging.compress import CompressedAdapter, compress
from gtr_agents.merging.dare import drop, mask_generator
from gtr_agents.merging.dialects import DIALECTS, dialect_ties
from gtr_agents.merging.lora import LoraDeltas, ZeroState
from gtr_agents.merging.rules import TiesRules
from gtr_agents.merging.shards import WEIGHT_FILES, ShardedState, write_shards
from gtr_agents.merging.slerp import slerp
from gtr_agents.merging.sources import (
    ADAPTER_CONFIG,
    CONFIG,
    RenamedBase,
    ZerosLike,
    companions,
    open_source,
    read_json,
)
from gtr_agents.merging.state_dict import (
    StateDict,
    add_delta,
    check_names,
    check_tensor,
    check_weights,
    compute_dtype,
    task_vector,
)
from gtr_agents.merging.streaming import StreamingTies
from gtr_agents.merging.sums import N_EVIDENCE, Sums, diagnostics, evidence
from gtr_agents.merging.trim import trim

REPORT = "merge_report.json"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Types that merged weights can be written in, by name."""
STREAMED: dict[str, Callable[[Sums, TiesRules, float], Tensor]] = {
    "ties": lambda sums, rules, total: sums.merged(rules, total),
    "dare_ties": lambda sums, rules, total: sums.merged(rules, total),
    "linear": lambda sums, _rules, total: sums.mean(total),
    "dare_linear": lambda sums, _rules, total: sums.mean(total),
}
"""Method to how its merge comes from the sums alone: ``(sums, rules, total weight)``."""
FLAT = tuple(name for name, dialect in DIALECTS.items() if dialect.flat)
_WRITING = ".writing-"
_LAYER = re.compile(r".*?\.\d+(?=\.)")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How checkpoints are merged; the terms are those of :func:`gtr_agents.merging.merge`.

    Raises:
        UnknownNameError: If there is no such method, election rule or dialect.
        MergeError: If density is outside its range, or a dialect does not fit.
    """

    method: str = "ties"
    """A name in :data:`MERGE_METHODS`."""
    weights: tuple[float, ...] | None = None
    """One per checkpoint, >= 0; only their ratios matter. Equal if None."""
    density: float = 0.8
    """Share of each task vector that TIES and DARE keep, in (0, 1]."""
    lam: float = 1.0
    """Scale of the merged task vector."""
    election: str = "total"
    """TIES sign rule, ``"total"`` or ``"frequency"``."""
    dialect: str = "ours"
    """A name in :data:`DIALECTS`, for what another library's TIES would give."""
    seed: int = 0
    """Of DARE's masks."""

    def __post_init__(self) -> None:
        if self.method not in MERGE_METHODS:
            raise unknown_name("merge method", self.method, MERGE_METHODS)
        if self.dialect not in DIALECTS:
            raise unknown_name("dialect", self.dialect, DIALECTS)
        if self.dialect != "ours" and self.method != "ties":
            raise MergeError(f"dialects differ in 'ties' only; expected that method, got {self.method!r}")
        if self.dialect in FLAT:
            raise MergeError(
                f"dialect {self.dialect!r} takes all tensors as one vector, which needs all checkpoints in memory; "
                f"expected another one ({', '.join(sorted(set(DIALECTS) - set(FLAT)))}). Small models: "
                "gtr_agents.merging.merge(..., dialect=...)"
            )
        _ = self.rules

    @property
    def rules(self) -> TiesRules:
        """The switches of TIES; a method that does not trim has density 1."""
        return TiesRules(self.density if MERGE_METHODS[self.method].sparsify != "nothing" else 1.0, self.election)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a merge will read and write, found out from the headers of the files."""

    kind: str
    """``"models"`` or ``"adapters"``."""
    n_tensors: int
    """Tensors that are merged; the others are copied from the base."""
    n_entries: int
    """Their entries."""
    largest: int
    """Entries of the largest of them."""
    memory_bytes: int
    """Estimate of the memory at the largest tensor, without the interpreter's own."""
    output_bytes: int
    """Size of the weights that are written."""


class FileMerge:
    """A merge of models or adapters on disk; opening it checks everything that needs no data.

    Args:
        base: The model that the checkpoints were trained from: a folder, or a safetensors file.
        checkpoints: Models like the base, or LoRA adapters for it; at least one, oldest first.
        recipe: How they are merged.
        rank: Write an adapter of this rank instead of a model, >= 1; for adapters only.
        dtype: Type of the written floating-point weights, a name in :data:`DTYPES`; the base's own if None, and float32
            for an adapter.
        shard_bytes: Size at which a file of weights is closed.
        scratch: Folder for the sums (16 bytes per merged entry, 32 during an update). A merge that was interrupted goes
            on from there, and later ones of the same recipe read only checkpoints that are new. ``ties`` and ``linear``
            only; without it nothing is kept.

    Raises:
        CheckpointError: If a file is missing, damaged or pickled.
        MergeError: If kinds, tensors, weights or scratch do not fit, or an adapter cannot be merged (the reason is
            given).
        ConfigError: If dtype, rank or shard size cannot be.
    """

    def __init__(
        self,
        base: str | Path,
        checkpoints: Sequence[str | Path],
        recipe: Recipe | None = None,
        *,
        rank: int | None = None,
        dtype: str | None = None,
        shard_bytes: int = 2 << 30,
        scratch: str | Path | None = None,
    ) -> None:
        self.recipe = recipe or Recipe()
        self.rank = rank
        self.dtype = dtype
        self.shard_bytes = shard_bytes
        self.scratch = None if scratch is None else Path(scratch)
        self._check_options(len(checkpoints))
        self.base = open_source(base, "the base")
        self.sources = [open_source(path, f"checkpoint {n}") for n, path in enumerate(checkpoints, start=1)]
        self.weights = list(self.recipe.weights or [1.0] * len(checkpoints))
        """One per checkpoint."""
        self._check_kinds()
        self._start: ShardedState | ZerosLike
        self._checkpoints: list[StateDict]
        self._start, self._checkpoints = self._adapters() if self.of_adapters else self._models()
        self.names = sorted(name for name in self._start if self._outline(name).is_floating_point())
        """The tensors that are merged."""

    @property
    def of_adapters(self) -> bool:
        """True if adapters are merged, False for models."""
        return self.sources[0].adapter is not None

    def _check_options(self, count: int) -> None:
        if not count:
            raise MergeError("expected at least one checkpoint to merge, got none")
        if self.recipe.weights is not None:
            check_weights(self.recipe.weights, count)
        if self.recipe.method == "slerp" and count != 2:
            raise MergeError(f"slerp interpolates between two checkpoints, got {count}; use 'linear' or 'ties'")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise unknown_name("dtype", self.dtype, DTYPES)
        if self.rank is not None and self.rank < 1:
            raise ConfigError(f"rank must be at least 1, got {self.rank}")
        if self.shard_bytes < 1:
            raise ConfigError(f"a shard must have at least 1 byte, got {self.shard_bytes}")
        if self.scratch is not None and (self.recipe.method not in ("ties", "linear") or self.recipe.dialect != "ours"):
            raise MergeError(
                f"sums can be kept on disk for 'ties' and 'linear' in our dialect, got {self.recipe.method!r} in "
                f"{self.recipe.dialect!r}; leave the scratch folder out, memory is that of single tensors anyway"
            )

    def _check_kinds(self) -> None:
        if self.base.adapter is not None:
            raise MergeError(
                f"the base must be a model, got an adapter: {self.base.path}; name the adapters' base model"
            )
        kinds = [source.adapter is not None for source in self.sources]
        if any(kinds) != all(kinds):
            odd = self.sources[kinds.index(not kinds[0])]
            raise MergeError(
                f"expected all checkpoints to be models or all to be adapters; {self.sources[0].path} and {odd.path} "
                "differ. Merge an adapter into its base first"
            )
        if self.rank is not None and not self.of_adapters:
            raise MergeError("--rank makes an adapter of adapters; models are merged into a model: leave it out")

    def _models(self) -> tuple[ShardedState, list[StateDict]]:
        state = self.base.state
        shapes = {name: state.outline(name).shape for name in state}
        for source in self.sources:
            check_names(state, source.state, str(source.path))
            for name, shape in shapes.items():
                if (own := source.state.outline(name).shape) != shape:
                    raise MergeError(
                        f"{source.path}: {name!r} must have shape {tuple(shape)} as in the base, got {tuple(own)}. "
                        "Merge checkpoints of one base only"
                    )
        return state, [source.state for source in self.sources]

    def _adapters(self) -> tuple[ZerosLike, list[StateDict]]:
        base = RenamedBase(self.base.state)
        deltas = [LoraDeltas(source.state, source.adapter or {}, base) for source in self.sources]
        for source, own in zip(self.sources, deltas, strict=True):
            check_names(deltas[0], own, str(source.path))
        if extra := sorted(name for name in deltas[0] if name not in base):
            raise MergeError(
                f"the base {self.base.path} has no tensors {extra[:3]} that the adapters change; is it their "
                "base model?"
            )
        if self.rank is not None and deltas[0].saved_whole:
            raise MergeError(
                f"the adapters hold {sorted(deltas[0].saved_whole)[:3]} saved whole, which an adapter of lower rank "
                "does not hold; leave --rank out to merge them into a model"
            )
        return ZerosLike(base, deltas[0]), list(deltas)

    def _outline(self, name: str) -> Tensor:
        return self._start.outline(name)

    @cached_property
    def plan(self) -> Plan:
        """What will be read and written."""
        sizes = {name: self._outline(name) for name in self.names}
        largest = max(sizes.values(), key=Tensor.numel, default=torch.empty(0, device="meta"))
        entry = torch.finfo(compute_dtype(largest)).bits // 8
        # Four sums; task vector, its trimmed copy and temporaries, those of the diagnostics in float64.
        copies = 4 + 12 + (0 if self.recipe.method in STREAMED and self.recipe.dialect == "ours" else len(self.sources))
        return Plan(
            "adapters" if self.of_adapters else "models",
            len(sizes),
            sum(map(Tensor.numel, sizes.values())),
            largest.numel(),
            largest.numel() * entry * copies
            + (2 * min(self.shard_bytes, self._output_bytes()) if not self.rank else 0),
            self._output_bytes(),
        )

    def _output_bytes(self) -> int:
        if self.rank is not None:
            return sum(self.rank * sum(self._outline(name).shape) * self._adapter_dtype.itemsize for name in self.names)
        total = 0
        for name in self.base.state:
            tensor = self.base.state.outline(name)
            kind = self._dtype if self._dtype is not None and tensor.is_floating_point() else tensor.dtype
            total += tensor.numel() * kind.itemsize
        return total

    @property
    def output_dtype(self) -> str:
        """Name of the type of the written weights; that of most entries if the base has several."""
        entries: dict[str, int] = {}
        for name in self.names:
            kind = str(self._outline(name).dtype).removeprefix("torch.")
            entries[kind] = entries.get(kind, 0) + self._outline(name).numel()
        return self.dtype or max(entries, key=lambda kind: entries[kind], default="float32")

    @property
    def _dtype(self) -> torch.dtype | None:
        return None if self.dtype is None else DTYPES[self.dtype]

    @property
    def _adapter_dtype(self) -> torch.dtype:
        return self._dtype or torch.float32

    # --- merging

    def run(self, out: str | Path, on_tensor: Callable[[int], None] | None = None) -> dict[str, Any]:
        """Merge, and write a folder that appears complete or not at all.

        Args:
            out: The new folder; must not exist.
            on_tensor: Told how many further tensors are done, :attr:`n_steps` altogether.

        Returns:
            The report, as in ``merge_report.json`` in the folder.

        Raises:
            CheckpointError: If the folder exists, or the disk cannot hold it.
            MergeError: If a tensor is not finite, or the scratch folder holds something else.
        """
        out = Path(out)
        tell = on_tensor or (lambda _n: None)
        if out.exists() or out.is_symlink():
            raise CheckpointError(f"{out} exists already; choose another output folder, or remove it first")
        with _fresh_folder(out, self.plan.output_bytes) as fresh:
            deltas = _MergedDeltas(self, self._sums_on_disk(tell) if self.scratch is not None else None, tell)
            adapter = None
            if self.rank is None:
                self._write_model(fresh, deltas)
            else:
                adapter = self._write_adapter(fresh, deltas)
            report = self._report(deltas, adapter)
            (fresh / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        return report

    @property
    def n_steps(self) -> int:
        """How many tensors are read or written, as :meth:`run` counts them."""
        return len(self.names) * (1 if self.scratch is None else 1 + len(self.sources))

    def _sums_on_disk(self, tell: Callable[[int], None]) -> StreamingTies:
        """Bring the sums of the scratch folder up to date: checkpoints that it holds already are not read again."""
        start = ZeroState(self._checkpoints[0]) if self.of_adapters else self._start
        merge = StreamingTies(start, self.recipe.rules.density, self.recipe.election, folder=self.scratch)
        wanted = {str(s.path.resolve()): weight for s, weight in zip(self.sources, self.weights, strict=True)}
        if len(wanted) < len(self.sources):
            raise MergeError("a checkpoint is named twice, but sums on disk hold each once; give it a larger weight")
        for name, weight in merge.members.items():
            if wanted.get(name) != weight:
                raise MergeError(
                    f"{self.scratch} holds {name} with weight {weight:g}, which is not part of this merge "
                    f"(got {wanted.get(name)}); use another scratch folder"
                )
        for (name, weight), checkpoint in zip(wanted.items(), self._checkpoints, strict=True):
            if name in merge.members:
                tell(len(self.names))
            else:
                merge.add(_Watched(checkpoint, tell), weight, name)
        return merge

    def sums_of(self, name: str) -> tuple[Sums, list[Tensor]]:
        """Read one tensor of every checkpoint.

        Args:
            name: One of :attr:`names`.

        Returns:
            The sums, and the task vectors, which are empty for methods that need sums only.
        """
        start = self._start[name]
        sums = Sums.zeros(start)
        needed: list[Tensor] = []
        for number, (checkpoint, weight) in enumerate(zip(self._checkpoints, self.weights, strict=True), start=1):
            tensor = checkpoint[name]
            check_tensor(start, tensor, name, str(self.sources[number - 1].path))
            vector = task_vector(start, tensor)
            sums.add(self._sparse(vector, number, name), weight)
            if self.recipe.method not in STREAMED or self.recipe.dialect != "ours":
                needed.append(vector)
        return sums, needed

    def _sparse(self, vector: Tensor, number: int, name: str) -> Tensor:
        kind = MERGE_METHODS[self.recipe.method].sparsify
        if kind == "drop":
            return drop(vector, self.recipe.density, mask_generator(self.recipe.seed, f"checkpoint-{number}", name))
        return trim(vector, self.recipe.rules.density)

    def combine(self, sums: Sums, vectors: Sequence[Tensor]) -> Tensor:
        """Return the merged task vector of one tensor from what :meth:`sums_of` gave."""
        if self.recipe.dialect != "ours":
            return dialect_ties([[v] for v in vectors], self.weights, self.recipe.rules, self.recipe.dialect)[0]
        if self.recipe.method == "slerp":
            return slerp(vectors, self.weights)
        return STREAMED[self.recipe.method](sums, self.recipe.rules, sum(self.weights))

    # --- writing

    def _write_model(self, folder: Path, deltas: Mapping[str, Tensor]) -> None:
        write_shards(folder, self._merged_tensors(deltas), self.shard_bytes)
        for file in companions(self.base.path):
            shutil.copyfile(file, folder / file.name)
        if self.dtype is not None and (folder / CONFIG).is_file():
            config = _with_dtype(read_json(folder / CONFIG), self.dtype)
            (folder / CONFIG).write_text(json.dumps({"dtype": self.dtype} | config, indent=2) + "\n", encoding="utf-8")

    def _merged_tensors(self, deltas: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        state = self.base.state
        names = {RenamedBase(state).stored(name) or name if self.of_adapters else name: name for name in deltas}
        for name in state:
            start = state[name]
            if name in names:
                yield name, add_delta(start, deltas[names[name]], self.recipe.lam, self._dtype)
            else:
                yield name, start.to(self._dtype) if self._dtype is not None and start.is_floating_point() else start

    def _write_adapter(self, folder: Path, deltas: Mapping[str, Tensor]) -> CompressedAdapter:
        assert self.rank is not None
        first = self._checkpoints[0]
        assert isinstance(first, LoraDeltas)
        for file in companions(self.sources[-1].path):
            shutil.copyfile(file, folder / file.name)
        adapter = compress(
            deltas, self.rank, self.sources[0].adapter or {}, embeddings=first.embeddings, seed=self.recipe.seed
        )
        save_file(
            {name: tensor.to(self._adapter_dtype) for name, tensor in adapter.tensors.items()},
            folder / WEIGHT_FILES[1],
            metadata={"format": "pt"},
        )
        # The factors are loaded, never initialised; other ways to initialise could need data or change the base.
        config = adapter.config | {"init_lora_weights": True, "inference_mode": True}
        config["base_model_name_or_path"] = config.get("base_model_name_or_path") or str(self.base.path)
        (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        return adapter

    def _report(self, deltas: _MergedDeltas, adapter: CompressedAdapter | None) -> dict[str, Any]:
        groups: dict[str, Tensor] = {}
        for name, own in deltas.evidence.items():
            groups[layer_of(name)] = groups.get(layer_of(name), torch.zeros(N_EVIDENCE, dtype=torch.float64)) + own
        layers = {layer: diagnostics(groups[layer]) for layer in sorted(groups, key=_with_numbers)}
        overall = diagnostics(sum(groups.values(), torch.zeros(N_EVIDENCE, dtype=torch.float64)))
        report: dict[str, Any] = {
            "recipe": asdict(self.recipe) | {"weights": self.weights},
            "base": str(self.base.path),
            "checkpoints": [str(source.path) for source in self.sources],
            **asdict(self.plan),
            "dtype": self.dtype,
            "rank": self.rank,
            "overall": overall,
            "layers": layers,
        }
        if adapter is not None:
            overall["retained_energy"] = adapter.overall_energy
            report["retained_energy"] = adapter.energy
            for layer, numbers in layers.items():
                shares = {name: share for name, share in adapter.energy.items() if layer_of(name) == layer}
                whole = sum(deltas.norms[name] for name in shares)
                kept = sum(share * deltas.norms[name] for name, share in shares.items())
                numbers["retained_energy"] = kept / whole if whole > 0 else 1.0
        return report


class _MergedDeltas(Mapping[str, Tensor]):
    """Merged task vectors, each computed when it is asked for, once; what they tell of agreement is kept."""

    def __init__(self, merge: FileMerge, on_disk: StreamingTies | None, tell: Callable[[int], None]) -> None:
        self._merge = merge
        self._on_disk = on_disk
        self._tell = tell
        self.evidence: dict[str, Tensor] = {}
        self.norms: dict[str, float] = {}

    def __getitem__(self, name: str) -> Tensor:
        merge = self._merge
        sums, vectors = merge.sums_of(name) if self._on_disk is None else (self._on_disk.sums(name), [])
        delta = merge.combine(sums, vectors)
        self.evidence[name] = evidence(sums, delta, merge.recipe.rules, sum(merge.weights))
        self.norms[name] = float(delta.double().square().sum())
        self._tell(1)
        return delta if merge.rank is None else delta * merge.recipe.lam

    def __contains__(self, name: object) -> bool:
        return name in self._merge.names

    def __iter__(self) -> Iterator[str]:
        return iter(self._merge.names)

    def __len__(self) -> int:
        return len(self._merge.names)


class _Watched(Mapping[str, Tensor]):
    """A checkpoint that tells of every tensor that is read."""

    def __init__(self, state: StateDict, tell: Callable[[int], None]) -> None:
        self._state = state
        self._tell = tell

    def __getitem__(self, name: str) -> Tensor:
        self._tell(1)
        return self._state[name]

    def __contains__(self, name: object) -> bool:
        return name in self._state

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


def layer_of(name: str) -> str:
    """Return the layer a tensor belongs to: its name up to the first number, or up to its last dot.

    >>> layer_of("model.layers.3.mlp.up_proj.weight"), layer_of("model.embed_tokens.weight"), layer_of("scale")
    ('model.layers.3', 'model.embed_tokens', 'scale')
    """
    found = _LAYER.match(name)
    return found[0] if found else name.rpartition(".")[0] or name


def _with_numbers(name: str) -> list[tuple[str, int]]:
    """Return a key that sorts layer 2 before layer 10."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]


def _with_dtype(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Say the new type wherever a configuration, or one of a part of the model, says a type."""
    changed = {key: dtype for key in ("dtype", "torch_dtype") if key in config}
    parts = {key: _with_dtype(value, dtype) for key, value in config.items() if isinstance(value, dict)}
    return config | parts | changed


@contextmanager
def _fresh_folder(out: Path, needed: int) -> Iterator[Path]:
    """Give a folder beside the target that takes its name at the end, or is removed whatever happened.

    Raises:
        CheckpointError: If the disk cannot hold so many bytes, or cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out.parent).free
        if free < needed:
            raise CheckpointError(
                f"{out} needs {needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free there; choose another disk, or "
                "write fewer bytes (--dtype bfloat16)"
            )
        for leftover in out.parent.glob(f"{_WRITING}{out.name}-*"):
            shutil.rmtree(leftover)
        fresh = out.parent / f"{_WRITING}{out.name}-{uuid.uuid4().hex}"
        fresh.mkdir()
        try:
            yield fresh
            _publish(fresh, out)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"writing {out} failed: {error}; nothing was left there. Is the disk full?") from error


def _publish(fresh: Path, out: Path) -> None:
    for path in [*sorted(fresh.iterdir()), fresh]:
        flush(path)
    fresh.rename(out)
    flush(out.parent)
