"""Trimmed task vectors on disk in about ``1 + 9 * density`` bits per entry, so that they can be taken out of a merge.

Per tensor: one bit per entry that says which are kept (not 0), and for each kept entry a sign bit and the logarithm of
its magnitude in 8 bits, evenly between the least and the largest logarithm of its block of 4096 kept entries (two
float32 per block). A kept entry comes back with a relative error of at most ``exp((highest - lowest) / 510) - 1``.

What is added to a sum must be what can be subtracted again: archive a task vector first, and add what the archive
gives back (:meth:`StreamingMerge.add_vectors`). The sums themselves are never quantised.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gtr_agents.errors import MergeError
from gtr_agents.files import flush, sha256
from gtr_agents.merging.state_dict import StateDict

BLOCK = 4096
"""Kept entries that share one scale."""
LEVELS = 255
"""Steps of a logarithm."""
MANIFEST = "manifest.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_WRITING = ".writing-"


def encode(vector: Tensor) -> dict[str, Tensor]:
    """Pack one trimmed task vector.

    Args:
        vector: Any shape, float32 or float64, finite; entries that are 0 are not kept.

    Returns:
        ``kept`` (one bit per entry) and ``signs`` (one bit per kept entry, 1 is negative) as bytes, ``levels`` (one
        byte per kept entry) and ``scales`` (blocks, 2): lowest and highest logarithm, float32.
    """
    flat = vector.detach().cpu().reshape(-1)
    kept = flat != 0
    values = flat[kept]
    logs = values.abs().double().log()
    n_blocks = math.ceil(values.numel() / BLOCK)
    # The last block is filled up with its own last value, which changes neither end of its range.
    blocks = torch.cat([logs, logs[-1:].expand(n_blocks * BLOCK - values.numel())]).reshape(n_blocks, BLOCK)
    scales = torch.stack([blocks.amin(1), blocks.amax(1)], 1).float() if n_blocks else torch.zeros(0, 2)
    low, step = _steps(scales)
    levels = ((blocks - low) / step.masked_fill(step == 0, 1.0)).round().clamp(0, LEVELS)
    return {
        "kept": _packed(kept),
        "signs": _packed(values < 0),
        "levels": levels.to(torch.uint8).reshape(-1)[: values.numel()].clone(),
        "scales": scales,
    }


def decode(parts: Mapping[str, Tensor], shape: torch.Size | list[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Unpack what :func:`encode` made; the same bytes always give the same values.

    Args:
        parts: The packed task vector.
        shape: Its shape.
        dtype: The type it gets.

    Returns:
        A new tensor on the CPU.
    """
    n, n_kept = math.prod(shape), parts["levels"].numel()
    low, step = (end.expand(-1, BLOCK).reshape(-1)[:n_kept] for end in _steps(parts["scales"]))
    # The ends are rounded to float32: without a limit the largest number there is would come back as infinity.
    values = (low + parts["levels"].double() * step).exp().clamp(max=torch.finfo(dtype).max)
    values = torch.where(_unpacked(parts["signs"], n_kept), -values, values)
    vector = torch.zeros(n, dtype=dtype)
    vector[_unpacked(parts["kept"], n)] = values.to(dtype)
    return vector.reshape(shape)


def _steps(scales: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest logarithm and the width of a level of every block, float64 (blocks, 1)."""
    low, high = scales.double().split(1, 1)
    return low, (high - low) / LEVELS


def _packed(bits: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(bits.numpy()))


def _unpacked(packed: Tensor, n: int) -> Tensor:
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=n)).bool()


class SparseArchive:
    """Task vectors in a folder, one sub-folder per checkpoint, oldest first.

    A sub-folder appears by one rename when all of its files are complete and is never changed after that.

    Args:
        folder: Created when something is added.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def ids(self) -> list[str]:
        """Return the names of the archived checkpoints, oldest first."""
        found = [path.parent for path in self.folder.glob(f"*/{MANIFEST}") if not path.parent.name.startswith(_WRITING)]
        return [path.name for path in sorted(found, key=lambda path: int(self._manifest(path.name)["sequence"]))]

    def add(self, id: str, task_vector: StateDict) -> None:
        """Archive the trimmed task vectors of one checkpoint, one tensor at a time.

        Args:
            id: Its name: letters, digits, dot, dash, underscore. What is there under that name is replaced: it may stem
                from an update that did not complete.
            task_vector: Trimmed task vectors by name; read one after the other.

        Raises:
            MergeError: If the name is not usable as a folder's.
        """
        if not _NAME.fullmatch(id):
            raise MergeError(f"expected an id of letters, digits, '.', '_' and '-', got {id!r}")
        sequence = 1 + max((int(self._manifest(other)["sequence"]) for other in self.ids()), default=0)
        fresh = self.folder / f"{_WRITING}{id}"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        tensors = {}
        for number, name in enumerate(sorted(task_vector)):
            vector = task_vector[name]
            file = fresh / f"{number:05d}.safetensors"
            save_file(encode(vector), file)
            flush(file)
            kind = str(vector.dtype).removeprefix("torch.")
            tensors[name] = {"file": file.name, "shape": list(vector.shape), "dtype": kind, "sha256": sha256(file)}
        (fresh / MANIFEST).write_text(json.dumps({"sequence": sequence, "tensors": tensors}, indent=1) + "\n", "utf-8")
        flush(fresh / MANIFEST)
        flush(fresh)
        self.remove(id)
        fresh.rename(self.folder / id)
        flush(self.folder)

    def read(self, id: str) -> ArchivedVectors:
        """Return the task vectors of one checkpoint; each is unpacked, and its file checked, when it is asked for.

        Args:
            id: What was given to :meth:`add`.

        Raises:
            MergeError: If there is no such checkpoint, or its manifest cannot be read.
        """
        return ArchivedVectors(self.folder / id, self._manifest(id)["tensors"])

    def remove(self, id: str) -> None:
        """Delete one checkpoint; nothing happens if it is not there."""
        shutil.rmtree(self.folder / id, ignore_errors=True)

    def files(self, id: str) -> dict[str, Path]:
        """Return the files of one checkpoint by their paths below the folder; none is ever changed."""
        return {f"{id}/{path.name}": path for path in (self.folder / id).iterdir()}

    def bits_per_entry(self) -> dict[str, float]:
        """Report the size of the archive.

        Returns:
            Bits per entry of the task vectors (kept or not), per checkpoint; headers of files count too.
        """
        report = {}
        for id in self.ids():
            described = self._manifest(id)["tensors"].values()
            size = sum((self.folder / id / tensor["file"]).stat().st_size for tensor in described)
            report[id] = 8 * size / max(sum(math.prod(tensor["shape"]) for tensor in described), 1)
        return report

    def _manifest(self, id: str) -> dict[str, Any]:
        path = self.folder / id / MANIFEST
        try:
            manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise MergeError(
                f"no archived task vectors {id!r} in {self.folder} ({error}); without them a checkpoint cannot be "
                "taken out of a merge"
            ) from error
        return manifest


class ArchivedVectors(Mapping[str, Tensor]):
    """The task vectors of one archived checkpoint, unpacked one at a time.

    Args:
        folder: Where their files are.
        described: File, shape, type and hash by name, as in the manifest.
    """

    def __init__(self, folder: Path, described: Mapping[str, Mapping[str, Any]]) -> None:
        self._folder = folder
        self._described = described

    def __getitem__(self, name: str) -> Tensor:
        described = self._described[name]
        file = self._folder / described["file"]
        if not file.is_file() or sha256(file) != described["sha256"]:
            raise MergeError(f"{file} is missing or not what was archived (SHA-256 differs); the merge must be redone")
        return decode(load_file(file), described["shape"], getattr(torch, described["dtype"]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._described)

    def __len__(self) -> int:
        return len(self._described)
