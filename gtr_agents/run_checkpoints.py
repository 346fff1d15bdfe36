"""The checkpoints of a run: written whole, kept by policy, and the newest that is whole is found again."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from gtr_agents.errors import CheckpointError
from gtr_agents.files import check_folder, publish_folder

if TYPE_CHECKING:
    from gtr_agents.algorithms.base import Learner
    from gtr_agents.policies.vlm import VLMPolicy

CHECKPOINTS_FOLDER = "checkpoints"
START = "start"
"""The model before the first update."""
_MADE = "made.json"
_NAME = re.compile(r"update-(\d{6,})")


class RunCheckpoints:
    """Checkpoints of one run, in ``RUN/checkpoints/update-000012`` and the like.

    Args:
        run: the run folder.
        keep: how many of the newest stay after a save, >= 1; more than one, so that there is another if the newest is
            damaged.
        keep_every: those of every so many updates stay as well; 0 keeps none of them.
    """

    def __init__(self, run: str | Path, keep: int = 2, keep_every: int = 0) -> None:
        self.run = Path(run)
        self.folder = self.run / CHECKPOINTS_FOLDER
        self.keep = keep
        self.keep_every = keep_every

    @property
    def start(self) -> Path:
        """Where the model before the first update lies."""
        return self.folder / START

    def save_start(self, policy: VLMPolicy, seconds: float) -> None:
        """Write the model before the first update, whole or not at all, and how long it took to make."""
        fresh = self.start.with_name(START + ".tmp")
        shutil.rmtree(fresh, ignore_errors=True)
        policy.save(fresh)
        (fresh / _MADE).write_text(json.dumps({"seconds": round(seconds, 1)}) + "\n", encoding="utf-8")
        publish_folder(fresh, self.start)

    def start_seconds(self) -> float:
        """How long it took to make the model before the first update."""
        return float(json.loads((self.start / _MADE).read_text(encoding="utf-8"))["seconds"])

    def save(self, learner: Learner) -> Path:
        """Write a checkpoint, whole or not at all; then delete those that the policy does not keep.

        Returns:
            Its folder.

        Raises:
            CheckpointError: if it cannot be written, e.g. because the disk is full; earlier ones stay as they are.
        """
        target = self.folder / f"update-{learner.n_updates:06d}"
        try:
            learner.save(target)
        except (OSError, SafetensorError) as error:  # safetensors tells of a full disk in its own way
            shutil.rmtree(target.with_name(target.name + ".tmp"), ignore_errors=True)
            free = shutil.disk_usage(self.run).free / 1e9
            raise CheckpointError(
                f"The checkpoint of update {learner.n_updates} could not be written to {self.folder}: {error} "
                f"({free:.1f} GB are free there). Earlier checkpoints are untouched: make room, then go on with "
                f"gtr train --resume {self.run}"
            ) from error
        found = self._all()
        for path in found[: -self.keep]:
            if not (self.keep_every and _number(path) % self.keep_every == 0):
                shutil.rmtree(path)
        return target

    def newest(self, tell: Callable[[str], None]) -> Path | None:
        """Find the newest whole checkpoint.

        Args:
            tell: told about every damaged checkpoint that is passed over.

        Returns:
            Its folder; None if the run has no checkpoint yet.

        Raises:
            CheckpointError: if there are checkpoints, and all are damaged.
        """
        damage = []
        for path in reversed(self._all()):
            try:
                check_folder(path)
            except CheckpointError as error:
                damage.append(str(error))
                tell(f"Passing over a damaged checkpoint: {error}")
            else:
                return path
        if damage:
            raise CheckpointError(f"{self.run} has no checkpoint that is whole: {' '.join(damage)}")
        return None

    def clear_halves(self) -> None:
        """Delete what a crash has left half written; only for who writes here, and nobody else does."""
        for half in (*self.folder.glob("*.tmp"), *self.folder.glob("*.old")):
            shutil.rmtree(half)

    def has_start(self) -> bool:
        """True if the model before the first update was saved whole."""
        try:
            check_folder(self.start)
        except CheckpointError:
            return False
        return True

    def _all(self) -> list[Path]:
        """All checkpoints, oldest first."""
        return sorted((path for path in self.folder.glob("update-*") if _NAME.fullmatch(path.name)), key=_number)


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def model_folder(path: Path) -> Path:
    """Find the newest model in a run folder, or take the folder itself as a model's."""
    checkpoints = RunCheckpoints(path)
    if not checkpoints.folder.is_dir():
        return path
    return checkpoints.newest(warnings.warn) or (checkpoints.start if checkpoints.start.is_dir() else path)
