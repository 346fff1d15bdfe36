"""Where the accumulators of a streaming merge live: in memory, or in memory-mapped files of a folder."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from gtr_agents.errors import MergeError
from gtr_agents.files import flush, sha256
from gtr_agents.merging.shards import ShardedState, map_new_file
from gtr_agents.merging.state_dict import StateDict, compute_dtype
from gtr_agents.merging.sums import Accumulators

MANIFEST = "manifest.json"
_STATE = "sums-"
_WRITING = ".writing-"

Update = Callable[[str, Accumulators], None]
"""(name of a tensor, its sums) to nothing; changes the sums in place."""


class SumsStore(Protocol):
    """What a streaming merge asks of the place of its accumulators."""

    names: list[str]
    """The floating-point tensors, sorted."""
    atomic: bool
    """An update that raises leaves everything as it was."""

    def read(self, name: str) -> Accumulators:
        """Return the sums of one tensor; not to be changed."""
        ...

    def files(self) -> dict[str, Path]:
        """Return the finished files of the state, by their paths below the folder; empty in memory or without state."""
        ...

    def rewrite(self, update: Update, settings: Mapping[str, Any]) -> None:
        """Apply an update to the sums of every tensor, one after the other, and keep the settings with them."""
        ...


class MemoryStore:
    """Accumulators in memory, on the device of the base.

    Args:
        base: The model at the start of the run.
        kind: Which sums are kept.
    """

    atomic = False

    def __init__(self, base: StateDict, kind: type[Accumulators]) -> None:
        self.names = float_names(base)
        self._sums = {name: kind.zeros(base[name]) for name in self.names}

    def read(self, name: str) -> Accumulators:
        """Return the live sums of one tensor."""
        return self._sums[name]

    def files(self) -> dict[str, Path]:
        """There are none."""
        return {}

    def rewrite(self, update: Update, settings: Mapping[str, Any]) -> None:  # noqa: ARG002 - kept by whoever saves
        """Change the sums in place."""
        for name, sums in self._sums.items():
            update(name, sums)


class FolderStore:
    """Accumulators in files that are mapped into memory one tensor at a time.

    An update writes all files anew beside the old ones and becomes the state by one rename, so that a crash at any
    point leaves the old state as it was; the new one then takes another ``add`` of the same checkpoint.

    Args:
        folder: Of its own; created by the first update.
        base: The model at the start of the run; for names, shapes and types.
        kind: Which sums are kept.
    """

    atomic = True

    def __init__(self, folder: str | Path, base: StateDict, kind: type[Accumulators]) -> None:
        self.folder = Path(folder)
        self._kind = kind
        self.names = float_names(base)
        self._base = base
        self._state = newest_state(self.folder)

    def read(self, name: str) -> Accumulators:
        """Map the sums of one tensor; zeros if there is no state yet."""
        if self._state is None:
            return self._kind.zeros(self._base[name])
        return self._kind(**ShardedState(self._state / self._file(name)))

    def files(self) -> dict[str, Path]:
        """Return sums and manifest of the state; they never change, so a link to them is as good as a copy."""
        return {} if self._state is None else {f"{self._state.name}/{p.name}": p for p in self._state.iterdir()}

    def rewrite(self, update: Update, settings: Mapping[str, Any]) -> None:
        """Write the updated sums of every tensor, then make them the state."""
        number = 1 if self._state is None else int(self._state.name.removeprefix(_STATE)) + 1
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(f"{_WRITING}*"):
            shutil.rmtree(leftover)
        fresh = self.folder / f"{_WRITING}{uuid.uuid4().hex}"
        fresh.mkdir()
        try:
            hashes = {name: self._write(fresh / self._file(name), name, update) for name in self.names}
            manifest = {"settings": dict(settings), "sha256": hashes}
            (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
            flush(fresh / MANIFEST)
            flush(fresh)
        except BaseException:
            shutil.rmtree(fresh)
            raise
        target = self.folder / f"{_STATE}{number:06d}"
        if target.exists():  # complete, but its update was reported as failed: this one was made from the state before
            shutil.rmtree(target)
        fresh.rename(target)
        flush(self.folder)
        self._state = target
        for old in self.folder.glob(f"{_STATE}*"):
            if old != target:
                shutil.rmtree(old)

    def _write(self, path: Path, name: str, update: Update) -> str:
        start = self._base[name]
        shape = torch.empty_like(start, dtype=compute_dtype(start), device="meta")
        sums = self._kind(**map_new_file(path, dict.fromkeys(self._kind.field_names(), shape)))
        if self._state is not None:  # a new file is zeros already
            for field, tensor in self.read(name).tensors().items():
                sums.tensors()[field].copy_(tensor)
        update(name, sums)
        flush(path)
        return sha256(path)

    def _file(self, name: str) -> str:
        return f"{self.names.index(name):05d}.safetensors"

    def check_files(self) -> None:
        """Check every file of the state, which must exist, against its hash.

        Raises:
            MergeError: If one is missing or was changed.
        """
        assert self._state is not None
        expected = read_manifest(self._state)["sha256"]
        for name in self.names:
            path = self._state / self._file(name)
            if not path.is_file() or sha256(path) != expected.get(name):
                raise MergeError(f"{path} is missing or not what was saved (SHA-256 differs); the sums are lost")


def float_names(base: StateDict) -> list[str]:
    """Return the names of the tensors that are merged, sorted."""
    return sorted(name for name, tensor in base.items() if tensor.is_floating_point())


def newest_state(folder: Path) -> Path | None:
    """Return the complete state of a folder, or None; two are there if a crash came just before the older one went."""
    return max(folder.glob(f"{_STATE}*"), default=None)


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Return the settings kept with the state of a folder, or None if it holds no state.

    Raises:
        MergeError: If the manifest cannot be read.
    """
    state = newest_state(folder)
    return None if state is None else dict(read_manifest(state)["settings"])


def read_manifest(state: Path) -> dict[str, Any]:
    """Read the manifest of a state folder.

    Raises:
        MergeError: If it is not one.
    """
    try:
        manifest = json.loads((state / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MergeError(f"{state / MANIFEST} cannot be read: {error}; the sums in that folder are unusable") from error
    if not isinstance(manifest, dict) or not {"settings", "sha256"} <= manifest.keys():
        raise MergeError(f"{state / MANIFEST} is not a manifest of sums; the sums in that folder are unusable")
    return manifest
