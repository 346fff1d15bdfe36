"""What can be merged from disk: which files of a folder are a model or an adapter, and what else is refused and why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gtr_agents.errors import CheckpointError, MergeError
from gtr_agents.merging.lora import check_config
from gtr_agents.merging.shards import WEIGHT_FILES, ShardedState
from gtr_agents.merging.state_dict import compute_dtype

ADAPTER_CONFIG = "adapter_config.json"
CONFIG = "config.json"

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
"""Endings of files that hold pickles, which can run programs when they are read."""

COMPANIONS = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "*.py", "LICENSE*", "NOTICE*", "value_head.*")
"""What makes a model of weights: configuration, tokenizer, processor, own code, terms; our policies' value head."""
NO_COMPANIONS = ("*.index.json", "adapter_*", "hashes.json", "manifest.json", "trainer_state.json", "merge_report.json")
"""What describes the weights or the training of a folder, and is not true of another one."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model or an adapter on disk."""

    path: Path
    """As it was given."""
    state: ShardedState
    """Its tensors."""
    adapter: Mapping[str, Any] | None
    """What ``adapter_config.json`` holds; None for a model."""


def open_source(path: str | Path, role: str) -> Source:
    """Open a model or a PEFT adapter.

    Args:
        path: A folder as transformers or peft write it, or a safetensors file of a model.
        role: How messages call it, e.g. ``"the base"``.

    Returns:
        The source; of its tensors only names are read yet.

    Raises:
        CheckpointError: If nothing is there, the weights are pickled, or a file is damaged or missing.
        MergeError: If it is an adapter of a kind that cannot be merged, or its weights are quantised.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(
            f"{role} does not exist: {path}. Expected a model or adapter folder, or a .safetensors file, on this "
            "machine; a model of the hub is fetched with: hf download NAME --local-dir FOLDER"
        )
    _refuse_pickles(path, role)
    if not path.is_dir():
        return Source(path, ShardedState(path), None)
    if (path / ADAPTER_CONFIG).is_file():
        config = read_json(path / ADAPTER_CONFIG)
        check_config(config)
        return Source(path, ShardedState(path / WEIGHT_FILES[1]), config)
    if (path / CONFIG).is_file() and "quantization_config" in read_json(path / CONFIG):
        raise MergeError(f"{role} is quantised ({path / CONFIG}); merge the weights before quantisation")
    return Source(path, ShardedState(path), None)


def _refuse_pickles(path: Path, role: str) -> None:
    files = [path] if path.is_file() else sorted(path.iterdir())
    pickled = [file.name for file in files if file.suffix in PICKLED and file.name != "training_args.bin"]
    if pickled and not any(file.suffix == ".safetensors" for file in files):
        raise CheckpointError(
            f"{role} is pickled ({path}: {', '.join(pickled[:3])}), and pickles can run programs; expected "
            ".safetensors. Convert it where you trust it: load it with transformers or peft and call save_pretrained"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        CheckpointError: If it cannot be read or is none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable as JSON: {error}; get it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(value).__name__}; get it again")
    return value


class RenamedBase(Mapping[str, Tensor]):
    """A base model whose tensors are also found by the names that its modules have in memory.

    Files of some families name what is ``model.language_model.layers.0`` in memory ``model.layers.0`` or
    ``language_model.model.layers.0``; adapters are saved with the names in memory. A name that the files do not hold
    stands for the only tensor that is called alike but for the parts ``model`` and ``language_model``.

    Args:
        state: The tensors by the names in the files.
    """

    def __init__(self, state: ShardedState) -> None:
        self._state = state
        self._alike: dict[str, list[str]] = {}
        for name in state:
            self._alike.setdefault(_bare(name), []).append(name)

    def stored(self, name: str) -> str | None:
        """Return the name in the files, or None if there is no such tensor or more than one could be meant."""
        if name in self._state:
            return name
        alike = self._alike.get(_bare(name), [])
        return alike[0] if len(alike) == 1 else None

    def outline(self, name: str) -> Tensor:
        """Return shape and type of a tensor, as :meth:`ShardedState.outline`."""
        return self._state.outline(self.stored(name) or name)

    def __getitem__(self, name: str) -> Tensor:
        return self._state[self.stored(name) or name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.stored(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in ("model", "language_model"))


class ZerosLike(Mapping[str, Tensor]):
    """Zeros in the shapes of some of a base's tensors: what task vectors of adapters are differences to.

    Args:
        base: Gives shapes and types; no data are read.
        names: Which of its tensors.
    """

    def __init__(self, base: RenamedBase, names: Iterable[str]) -> None:
        self._base = base
        self._names = list(names)

    def outline(self, name: str) -> Tensor:
        """Return shape and type of a tensor, as :meth:`ShardedState.outline`."""
        return self._base.outline(name)

    def __getitem__(self, name: str) -> Tensor:
        return torch.zeros(self.outline(name).shape, dtype=compute_dtype(self.outline(name)))

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def companions(folder: Path) -> list[Path]:
    """Return the files beside a model's weights that belong to every model of its kind, sorted.

    Args:
        folder: A model folder; what is no folder has none.
    """
    if not folder.is_dir():
        return []
    wanted = {file for pattern in COMPANIONS for file in folder.glob(pattern) if file.is_file()}
    return sorted(wanted - {file for pattern in NO_COMPANIONS for file in folder.glob(pattern)})
