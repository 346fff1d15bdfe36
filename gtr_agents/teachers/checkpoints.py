"""How checkpoints lie on disk: safetensors files with a manifest, written atomically, verified on load."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gtr_agents.errors import CheckpointError
from gtr_agents.files import flush, link_file, sha256
from gtr_agents.merging.state_dict import StateDict, copy_state

MANIFEST = "manifest.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_WRITING = ".writing-"


class CheckpointStore:
    """Checkpoints under one folder, oldest first.

    A checkpoint is written beside the others under a temporary name, flushed, and appears by one rename: a
    crash at any point leaves every earlier checkpoint usable and no half-written one visible.

    Args:
        folder: Where the checkpoints lie; created when the first one is saved.
        keep_last: How many checkpoints stay after a save, >= 1; all of them if None.

    Raises:
        CheckpointError: If ``keep_last`` is below 1.
    """

    def __init__(self, folder: str | Path, keep_last: int | None = None) -> None:
        if keep_last is not None and keep_last < 1:
            raise CheckpointError(f"keep_last must be at least 1 or None, got {keep_last!r}")
        self.folder = Path(folder)
        self.keep_last = keep_last

    def save(
        self,
        id: str,
        states: Mapping[str, StateDict],
        meta: Mapping[str, Any] | None = None,
        files: Mapping[str, Path] | None = None,
    ) -> Path:
        """Save one checkpoint, then delete those beyond ``keep_last``.

        Args:
            id: Its folder name: letters, digits, dot, dash, underscore.
            states: Named tensors by file name without ending, e.g. ``{"policy": ..., "value_head": ...}``.
            meta: Anything JSON can hold, returned by :meth:`load`.
            files: Finished files by their path in the checkpoint, ``FOLDER/.../NAME``. They are linked, or copied where
                that is not possible, so they must not be changed any more. :meth:`load` checks, but does not read them.

        Returns:
            The checkpoint's folder.

        Raises:
            CheckpointError: If a name is not usable or the id exists already.
        """
        files = files or {}
        for name in (id, *states, *(part for path in files for part in path.split("/"))):
            if not _NAME.fullmatch(name):
                raise CheckpointError(f"expected a name of letters, digits, '.', '_' and '-', got {name!r}")
        target = self.folder / id
        if target.exists():
            raise CheckpointError(f"checkpoint {id!r} exists already in {self.folder}; choose another id")
        existing = self.ids()
        last = self._manifest(existing[-1])["sequence"] if existing else 0
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(f"{_WRITING}*"):
            shutil.rmtree(leftover)
        temporary = self.folder / f"{_WRITING}{uuid.uuid4().hex}"
        temporary.mkdir()
        hashes = {}
        for name, state in states.items():
            path = temporary / f"{name}.safetensors"
            # Copies, because safetensors refuses tensors that share memory (tied embeddings).
            save_file(copy_state(state), path)
            flush(path)
            hashes[path.name] = sha256(path)
        for name, source in files.items():
            link_file(source, temporary / name)
            flush(temporary / name)
            hashes[name] = sha256(temporary / name)
        manifest = {"id": id, "sequence": last + 1, "files": hashes, "meta": dict(meta or {})}
        path = temporary / MANIFEST
        path.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        flush(path)
        flush(temporary)
        temporary.rename(target)
        flush(self.folder)
        if self.keep_last is not None:
            for old in [*existing, id][: -self.keep_last]:
                shutil.rmtree(self.folder / old)
        return target

    def load(self, id: str | None = None) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Load one checkpoint after checking the hash of every file.

        Args:
            id: Which one; the newest if None.

        Returns:
            Named tensors by file name, and the saved meta data. Linked files stay where they are.

        Raises:
            CheckpointError: If it does not exist, or a file is missing or was changed.
        """
        ids = self.ids()
        if id is None and ids:
            id = ids[-1]
        if id not in ids or id is None:
            raise CheckpointError(f"no checkpoint {id!r} in {self.folder}; there are: {', '.join(ids) or 'none'}")
        manifest = self._manifest(id)
        states = {}
        for name, expected in manifest["files"].items():
            path = self.folder / id / name
            if not path.is_file():
                raise CheckpointError(f"checkpoint {id!r} is incomplete: {path} is missing; load an earlier one")
            if sha256(path) != expected:
                raise CheckpointError(f"{path} is not the file that was saved (SHA-256 differs); load an earlier one")
            if "/" in name:
                continue
            try:
                states[path.stem] = load_file(path)
            except SafetensorError as error:
                raise CheckpointError(f"{path} is not a safetensors file: {error}") from error
        return states, manifest["meta"]

    def ids(self) -> list[str]:
        """Return the ids of the complete checkpoints, oldest first."""
        folders = [path.parent.name for path in self.folder.glob(f"*/{MANIFEST}")]
        complete = [name for name in folders if not name.startswith(_WRITING)]
        return sorted(complete, key=lambda name: int(self._manifest(name)["sequence"]))

    def _manifest(self, id: str) -> dict[str, Any]:
        path = self.folder / id / MANIFEST
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} is not readable as a manifest: {error}; delete that folder") from error
        if not isinstance(manifest, dict) or not {"sequence", "files", "meta"} <= manifest.keys():
            raise CheckpointError(f"{path} is not a checkpoint manifest; delete that folder")
        return manifest
