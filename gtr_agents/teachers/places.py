"""Where a merged teacher keeps base, sums and published weights: in memory, or in the files of a folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from gtr_agents.errors import ConfigError
from gtr_agents.files import link_file
from gtr_agents.merging.archive import SparseArchive
from gtr_agents.merging.shards import ShardedState, write_shards
from gtr_agents.merging.state_dict import StateDict
from gtr_agents.merging.streaming import StreamingMerge

BASE, SUMS, TEACHER, ARCHIVE = "base", "sums", "teacher", "archive"
"""The parts of a teacher, and their names in a checkpoint."""


class Place(Protocol):
    """What a teacher asks of the place of its tensors."""

    sums: Path | None
    """Where the accumulators of a streaming merge live; in memory if None."""
    archive: SparseArchive | None
    """Where the task vectors that are members of the merge are kept; None in memory."""

    def begin(self, base: StateDict) -> StateDict:
        """Forget an earlier run; return the base as a streaming merge takes it."""
        ...

    def check_writable(self) -> None:
        """Raise :class:`ConfigError` if nothing can be added here."""
        ...

    def hold(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> StateDict:
        """Keep a published teacher beside the one before, and return it."""
        ...

    def prune(self, version: int) -> None:
        """Delete the teachers before this version."""
        ...

    def saved(self, merge: StreamingMerge) -> tuple[dict[str, StateDict], dict[str, Path], dict[str, Any]]:
        """Return what a checkpoint holds of base and sums: named tensors, files to link, and settings."""
        ...

    def saved_teacher(self, published: StateDict) -> tuple[dict[str, StateDict], dict[str, Path]]:
        """Return what a checkpoint holds of a teacher from :meth:`hold` or :meth:`begin`."""
        ...

    def adopt(self, checkpoint: Path, states: Mapping[str, StateDict], version: int) -> tuple[StateDict, StateDict]:
        """Take a checkpoint over (its folder, what was loaded of it, the teacher's number); return base and teacher.

        The teacher is empty if it is not kept here.
        """
        ...


class InMemory:
    """Everything in memory, on the devices of the base."""

    sums: Path | None = None
    archive: SparseArchive | None = None

    def begin(self, base: StateDict) -> StateDict:
        """Return the base; the merge copies it."""
        return dict(base)

    def check_writable(self) -> None:
        """Memory always is."""

    def hold(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> StateDict:  # noqa: ARG002
        """Return the tensors."""
        return dict(tensors)

    def prune(self, version: int) -> None:
        """Nothing to do: who still holds an older teacher may keep it."""

    def saved(self, merge: StreamingMerge) -> tuple[dict[str, StateDict], dict[str, Path], dict[str, Any]]:
        """Return base and sums as tensors."""
        sums, settings = merge.state_dict()
        return {BASE: merge.base, "accumulators": sums}, {}, settings

    def saved_teacher(self, published: StateDict) -> tuple[dict[str, StateDict], dict[str, Path]]:
        """Return the teacher as tensors."""
        return {TEACHER: published}, {}

    def adopt(
        self,
        checkpoint: Path,  # noqa: ARG002
        states: Mapping[str, StateDict],
        version: int,  # noqa: ARG002
    ) -> tuple[StateDict, StateDict]:
        """Return what was loaded."""
        return states[BASE], states[TEACHER]


class OnDisk:
    """Everything in files, read one tensor at a time; none is ever changed, so that checkpoints can be hard links.

    Args:
        folder: Working folder; emptied by :meth:`begin` and :meth:`adopt`. None only reads: a checkpoint is used where
            it lies.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.sums: Path | None = None if folder is None else folder / SUMS
        self.archive: SparseArchive | None = None if folder is None else SparseArchive(folder / ARCHIVE)

    def begin(self, base: StateDict) -> StateDict:
        """Write the base."""
        folder = self._emptied()
        return ShardedState(write_shards(folder / BASE, ((name, base[name]) for name in sorted(base))))

    def check_writable(self) -> None:
        """Raise :class:`ConfigError` without a working folder."""
        if self.folder is None:
            raise ConfigError(
                "A teacher with accumulators on disk needs a folder for them: pass folder=, on a file system with room "
                "for two sets of sums."
            )

    def _emptied(self) -> Path:
        self.check_writable()
        assert self.folder is not None
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return self.folder

    def hold(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> StateDict:
        """Write the teacher under a name of its own."""
        assert self.folder is not None
        folder = self.folder / TEACHER / f"v{version:06d}"
        shutil.rmtree(folder, ignore_errors=True)  # of an attempt that failed
        return ShardedState(write_shards(folder, tensors))

    def prune(self, version: int) -> None:
        """Delete the folders of older teachers."""
        assert self.folder is not None
        for old in (self.folder / TEACHER).glob("v*"):
            if old.name < f"v{version:06d}":
                shutil.rmtree(old)

    def saved(self, merge: StreamingMerge) -> tuple[dict[str, StateDict], dict[str, Path], dict[str, Any]]:
        """Return the files of base and sums; the sums' settings are among them."""
        sums = {f"{SUMS}/{name}": path for name, path in merge.files().items()}
        assert self.archive is not None
        archived: dict[str, Path] = {}
        for id in set(self.archive.ids()) & set(merge.members):  # others are left over from updates that failed
            archived |= {f"{ARCHIVE}/{name}": path for name, path in self.archive.files(id).items()}
        return {}, _files(merge.base, BASE) | sums | archived, {}

    def saved_teacher(self, published: StateDict) -> tuple[dict[str, StateDict], dict[str, Path]]:
        """Return the files of the teacher."""
        return {}, _files(published, TEACHER)

    def adopt(
        self,
        checkpoint: Path,
        states: Mapping[str, StateDict],  # noqa: ARG002
        version: int,
    ) -> tuple[StateDict, StateDict]:
        """Link the files into the working folder, or use them where they are."""
        places = {part: checkpoint / part for part in (BASE, SUMS, TEACHER, ARCHIVE) if (checkpoint / part).is_dir()}
        if self.folder is None:
            self.sums, self.archive = checkpoint / SUMS, SparseArchive(checkpoint / ARCHIVE)
        else:
            folder = self._emptied()
            homes = {part: folder / part for part in places}
            homes[TEACHER] = folder / TEACHER / f"v{version:06d}"
            for part, source in places.items():
                for file in sorted(path for path in source.rglob("*") if path.is_file()):
                    link_file(file, homes[part] / file.relative_to(source))
                places[part] = homes[part]
        return ShardedState(places[BASE]), ShardedState(places[TEACHER]) if TEACHER in places else {}


def _files(state: StateDict, part: str) -> dict[str, Path]:
    """Return the files of a state by their names in a checkpoint."""
    assert isinstance(state, ShardedState)
    return {f"{part}/{path.name}": path for path in state.path.iterdir()}
