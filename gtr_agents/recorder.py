"""What a run leaves on disk: the run folder, written while training and read back afterwards.

A run folder holds ``config.json``, ``metrics.jsonl`` (one flat object a line), ``progress.csv`` and
TensorBoard events, ``episodes/*.jsonl`` with their frames, ``evaluations/*.jsonl`` with a line for every
evaluated episode, and ``summary.json``. ``metrics.jsonl`` is the record; the CSV file and the TensorBoard
events are copies of it for other tools.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

from gtr_agents.errors import GtrError
from gtr_agents.types import FloatArray, Image, Step, TokenComparison, Trajectory

if TYPE_CHECKING:
    from stable_baselines3.common.logger import KVWriter

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
SUMMARY_FILE = "summary.json"
START_FILE = "start.json"
FAILURE_FILE = "failure.json"
UNLOGGED_FILE = "unlogged.json"
EPISODES_FOLDER = "episodes"
EVALUATIONS_FOLDER = "evaluations"
FRAMES_FOLDER = "frames"
ROLES = ("start", "student", "teacher")


class RunFolderError(GtrError):
    """A folder is not a run folder, or a file in it is missing or cannot be read."""


class RunFolder:
    """One run on disk, new or continued. Use :meth:`open` for a run that must already exist.

    It is a context manager; leaving it closes the log files.

    Args:
        path: The run folder, e.g. ``runs/my-run``; created if it does not exist.

    Raises:
        RunFolderError: If ``path`` is a file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise RunFolderError(f"A run needs a folder, but {str(self.path)!r} is a file; choose another.")
        self.path.mkdir(parents=True, exist_ok=True)
        self._metrics_file: IO[str] | None = None
        self._copies: list[KVWriter] = []
        self._listeners: list[Callable[[Mapping[str, Any]], None]] = []

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open an existing run for reading or continuing.

        Args:
            path: The run folder.

        Returns:
            The run.

        Raises:
            RunFolderError: If there is no such folder, or neither configuration, metrics nor summary in it.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise RunFolderError(f"There is no run folder {str(folder)!r}.{_runs_beside(folder)}")
        if not _is_run(folder):
            raise RunFolderError(
                f"{str(folder)!r} is no run folder: expected {CONFIG_FILE}, {METRICS_FILE} or {SUMMARY_FILE} "
                f"in it.{_runs_beside(folder / CONFIG_FILE)}"
            )
        return cls(folder)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write ``config.json``.

        Args:
            config: The resolved configuration and where it came from; what JSON does not know becomes text.
        """
        _write_json(self.path / CONFIG_FILE, config)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write ``summary.json`` at once or not at all, so that a killed run never leaves half of it.

        Args:
            summary: The numbers a reader looks at first.
        """
        _write_json(self.path / SUMMARY_FILE, summary)

    def write_start(self, results: Mapping[str, Any]) -> None:
        """Write ``start.json``: what the start model's evaluation adds to the summary, for a run that is resumed."""
        _write_json(self.path / START_FILE, results)

    def start(self) -> dict[str, Any] | None:
        """Read ``start.json``; None if the start model was not evaluated yet."""
        path = self.path / START_FILE
        return _read_json(path, "Delete it, and resume the run.") if path.is_file() else None

    def write_failure(self, samples: Sequence[Mapping[str, Any]]) -> Path:
        """Write ``failure.json``: the samples whose loss was not finite.

        The checkpoint that is saved then leads to the same update, and there to the same failure.

        Args:
            samples: Plain records.

        Returns:
            The file.
        """
        path = self.path / FAILURE_FILE
        _write_json(path, {"samples": samples})
        return path

    def write_evaluation(self, name: str, episodes: Iterable[Mapping[str, Any]]) -> None:
        """Write ``evaluations/<name>.jsonl``: what came of every episode of an evaluation.

        Args:
            name: Who was evaluated, and how.
            episodes: One plain record an episode.
        """
        path = self.path / EVALUATIONS_FOLDER / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        _write_text(path, "".join(json.dumps(episode, default=_as_json) + "\n" for episode in episodes))

    def config(self) -> dict[str, Any]:
        """Read ``config.json``.

        Returns:
            The configuration.

        Raises:
            RunFolderError: If it is missing or cannot be read.
        """
        return _read_json(self.path / CONFIG_FILE, "It is written when a run starts; start it again.")

    def summary(self) -> dict[str, Any]:
        """Read ``summary.json``.

        Returns:
            The summary.

        Raises:
            RunFolderError: If it is missing (the run has not ended) or cannot be read.
        """
        return _read_json(self.path / SUMMARY_FILE, "It is written when a run ends; wait, or resume the run.")

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Append one line of metrics and hand it to the CSV file and TensorBoard; on disk when this returns.

        Args:
            metrics: Flat numbers, texts, booleans or None. NaN and infinity become null: JSON has neither.

        Raises:
            TypeError: If a value is something else, e.g. a nested mapping.
        """
        line = {key: _plain(key, value) for key, value in metrics.items()}
        if self._metrics_file is None:
            self._metrics_file = _open_for_append(self.path / METRICS_FILE)
            self._copies = _open_copies(self.path, self.metrics())
        self._metrics_file.write(json.dumps(line) + "\n")
        self._metrics_file.flush()
        for copy in self._copies:
            _copy_line(copy, line)
        for listener in self._listeners:
            listener(line)

    def on_log(self, listener: Callable[[Mapping[str, Any]], None]) -> None:
        """Have every further line of metrics told to somebody else as well.

        Args:
            listener: Is given the line once it is on disk.
        """
        self._listeners.append(listener)

    def metrics(self) -> list[dict[str, Any]]:
        """Read all lines of ``metrics.jsonl``; empty if nothing was logged yet.

        Returns:
            One mapping a line, in the order written. A half-written last line of a killed run is skipped.

        Raises:
            RunFolderError: If an earlier line is not a JSON object.
        """
        return list(_read_lines(self.path / METRICS_FILE))

    def write_unlogged(self, metrics: Mapping[str, Any]) -> None:
        """Keep the line of an update whose evaluation was interrupted, in ``unlogged.json``."""
        _write_json(self.path / UNLOGGED_FILE, metrics)

    def unlogged(self, update: int) -> dict[str, Any] | None:
        """Return the line that :meth:`write_unlogged` kept of this update, unless it was logged after all."""
        path = self.path / UNLOGGED_FILE
        if not path.is_file():
            return None
        line = _read_json(path, "Delete it, and resume the run.")
        logged = any(other.get("update") == update for other in self.metrics())
        return line if line.get("update") == update and not logged else None

    def forget_after(self, update: int | None) -> None:
        """Drop what a run that resumes will write again: everything after a checkpoint.

        Args:
            update: The update of the checkpoint; 0 is the start model after its evaluation, -1 before it. The final
                evaluation of an update comes after its checkpoint. Lines that name no update (of the supervised start)
                stay. None begins the run anew.
        """
        kept: list[dict[str, Any]] = []
        seen: set[int] = set()
        for line in self.metrics() if update is not None else ():
            if "update" not in line or (line["update"] <= update and line["update"] not in seen):
                kept.append(line)
                seen.add(line.get("update", -1))
        self.close()
        if update is None:
            (self.path / START_FILE).unlink(missing_ok=True)
        if (self.path / METRICS_FILE).exists():
            _write_text(self.path / METRICS_FILE, "".join(json.dumps(line) + "\n" for line in kept))
        for file in (self.path / EPISODES_FOLDER).glob("update-*.jsonl"):
            if update is None or int(file.stem.removeprefix("update-")) > update:
                file.unlink()

    def record_episode(
        self,
        trajectory: Trajectory,
        *,
        update: int,
        role: str,
        env: str,
        frames: Sequence[Image],
        expert_actions: Sequence[str | None],
        token_texts: Callable[[Sequence[int]], list[str]],
        observations: Sequence[str] | None = None,
        comparisons: Sequence[TokenComparison] | None = None,
    ) -> str:
        """Write one episode with its frames, for the report and the replay.

        Args:
            trajectory: The episode.
            update: The update it was played after; 0 is the start model.
            role: Who played: ``start``, ``student`` or ``teacher``.
            env: The environment's id.
            frames: Pictures, uint8 [H, W, 3], one before each action; one more shows the end.
            expert_actions: What a perfect player would do at each step; None where nothing wins any more.
            token_texts: Turns token ids into one text a token.
            observations: The text observation of each step; left empty if None.
            comparisons: What student and teacher say about the tokens of each step; None if nobody was asked.

        Returns:
            The episode's id, unique in the run.

        Raises:
            ValueError: If the role is unknown or the lists do not fit the number of steps.
        """
        n_steps = len(trajectory.steps)
        texts = [""] * n_steps if observations is None else observations
        compared = [None] * n_steps if comparisons is None else comparisons
        if role not in ROLES:
            raise ValueError(f"Expected one of the roles {ROLES}, got {role!r}.")
        lengths = [len(expert_actions), len(texts), len(compared)]
        if len(frames) - n_steps not in (0, 1) or lengths != [n_steps] * 3:
            raise ValueError(
                f"Expected {n_steps} frames (or one more), expert actions, observations and comparisons, one a step; "
                f"got {len(frames)} frames and {lengths}."
            )
        folder = self.path / EPISODES_FOLDER
        (folder / FRAMES_FOLDER).mkdir(parents=True, exist_ok=True)
        lines = folder / f"update-{update:04d}.jsonl"
        episode_id = f"{role}-{update:04d}-{sum(e['role'] == role for e in _read_lines(lines)):02d}"
        names = [_save_frame(folder, f"{episode_id}_{i:02d}", frame) for i, frame in enumerate(frames)]
        steps = [
            {"frame": name, "observation": text, "expert_action": expert, **_step_record(step, token_texts, comparison)}
            for name, text, expert, step, comparison in zip(
                names, texts, expert_actions, trajectory.steps, compared, strict=False
            )
        ]
        episode = {
            "id": episode_id,
            "update": update,
            "role": role,
            "env": env,
            "seed": trajectory.seed,
            "success": trajectory.success,
            "solvable": trajectory.solvable,
            "return": trajectory.episode_return,
            **{key: trajectory.steps[0].info.get(key) if n_steps else None for key in ("numbers", "task")},
            "final_frame": names[n_steps] if len(names) > n_steps else None,
            "steps": steps,
        }
        with _open_for_append(lines) as file:
            file.write(json.dumps(episode, default=_as_json) + "\n")
        return episode_id

    def episodes(self) -> Iterator[dict[str, Any]]:
        """Iterate over the recorded episodes, by update and in the order written.

        Yields:
            One mapping an episode; see :meth:`record_episode`. Paths of frames are relative to ``episodes/``.

        Raises:
            RunFolderError: If a line is not a JSON object.
        """
        for file in sorted((self.path / EPISODES_FOLDER).glob("*.jsonl")):
            yield from _read_lines(file)

    def frame(self, relative: str | None) -> Path | None:
        """Find a recorded frame.

        Args:
            relative: The path an episode gives, relative to ``episodes/``; None where it gives none.

        Returns:
            The file, or None if it is missing or would lie outside the run.
        """
        folder = (self.path / EPISODES_FOLDER).resolve()
        file = (folder / (relative or "")).resolve()
        return file if file.is_relative_to(folder) and file.is_file() else None

    def close(self) -> None:
        """Close the log files; logging again reopens them."""
        if self._metrics_file is not None:
            self._metrics_file.close()
            self._metrics_file = None
        for copy in self._copies:
            copy.close()
        self._copies = []

    def __enter__(self) -> Self:
        """Return the run itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the log files."""
        self.close()


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (CONFIG_FILE, METRICS_FILE, SUMMARY_FILE))


def _runs_beside(folder: Path) -> str:
    """Name the runs that lie beside a wrong path, newest first."""
    if not folder.parent.is_dir():
        return " Give the folder that training wrote, e.g. runs/my-run."
    runs = sorted((p for p in folder.parent.iterdir() if _is_run(p)), key=lambda p: -p.stat().st_mtime)
    if not runs:
        return " Give the folder that training wrote, e.g. runs/my-run."
    return f" Runs found in {str(folder.parent)!r}: {', '.join(run.name for run in runs[:8])}."


def _as_json(value: Any) -> Any:
    """Turn arrays and NumPy scalars into plain values, anything else into its text."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return str(value)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    _write_text(path, json.dumps(content, indent=2, ensure_ascii=False, default=_as_json) + "\n")


def _write_text(path: Path, text: str) -> None:
    """Write a file at once or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read_json(path: Path, remedy: str) -> dict[str, Any]:
    if not path.is_file():
        raise RunFolderError(f"There is no {path.name} in the run folder {str(path.parent)!r}. {remedy}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunFolderError(f"{str(path)!r} should be JSON, but cannot be read: {error}. {remedy}") from error
    if not isinstance(content, dict):
        raise RunFolderError(f"{str(path)!r} should be a JSON object, got {type(content).__name__}. {remedy}")
    return content


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file, without a last line that a kill cut short."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            try:
                content = json.loads(line)
            except ValueError as error:
                if not line.endswith("\n"):
                    return
                raise RunFolderError(
                    f"Line {number} of {str(path)!r} should be a JSON object, but cannot be read: {error}. "
                    "Remove that line to read the rest."
                ) from error
            if not isinstance(content, dict):
                raise RunFolderError(f"Line {number} of {str(path)!r} should be an object, got {line[:60]!r}.")
            yield content


def _open_for_append(path: Path) -> IO[str]:
    """Open a JSONL file for appending; a half-written last line is cut, or it would spoil the next."""
    if path.is_file():
        content = path.read_bytes()
        if not content.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(content.rfind(b"\n") + 1)
    return path.open("a", encoding="utf-8")


def _plain(key: str, value: Any) -> Any:
    """Turn a metric into something JSON can hold; NumPy and torch scalars become numbers."""
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"Metric {key!r} should be a number, text, boolean or None, got {value!r}; flatten it.")


def _open_copies(folder: Path, earlier: Sequence[Mapping[str, Any]]) -> list[KVWriter]:
    """Open the CSV file, restarted with the ``earlier`` lines, and TensorBoard if it is installed."""
    from stable_baselines3.common import logger

    csv = logger.CSVOutputFormat(str(folder / "progress.csv"))
    for line in earlier:
        _copy_line(csv, line)
    try:
        return [csv, logger.TensorBoardOutputFormat(str(folder))]
    except AssertionError:  # how stable-baselines3 says that tensorboard is missing
        warnings.warn(
            "TensorBoard is not installed: this run writes metrics.jsonl and progress.csv only. "
            'For TensorBoard events install the extra: pip install "gtr-suite[agents]".',
            stacklevel=3,
        )
        return [csv]


def _copy_line(writer: KVWriter, line: Mapping[str, Any]) -> None:
    known = {key: value for key, value in line.items() if value is not None}
    writer.write(known, dict.fromkeys(known, ()), int(known.get("env_steps", known.get("update", 0))))


def _save_frame(folder: Path, name: str, frame: Image) -> str:
    """Save a picture as PNG and return its path relative to the episodes folder."""
    from PIL import Image as PilImage

    relative = f"{FRAMES_FOLDER}/{name}.png"
    # `optimize=True` takes five times as long and saves a twentieth of the space.
    PilImage.fromarray(np.ascontiguousarray(frame)).save(folder / relative)
    return relative


def _step_record(
    step: Step, token_texts: Callable[[Sequence[int]], list[str]], comparison: TokenComparison | None
) -> dict[str, Any]:
    response = step.response
    teacher = step.teacher_log_probs if comparison is None else comparison.teacher
    return {
        "system": step.prompt.system,
        "prompt": step.prompt.text,
        "legal_actions": list(step.prompt.legal_actions),
        "answer": response.text,
        "thought": response.answer.thought,
        "action": response.answer.action,
        "error": response.answer.error,
        "reward": float(step.reward),
        "legal": bool(step.legal),
        "finding": step.finding,
        "tokens": token_texts(response.token_ids.tolist()),
        "log_probs": _rounded(response.log_probs),
        "log_probs_t1": _rounded(response.log_probs_t1),
        "student_log_probs": None if comparison is None else _rounded(comparison.student),
        "teacher_log_probs": None if teacher is None else _rounded(teacher),
        "kl": None if comparison is None else _rounded(comparison.kl),
        "thought_mask": response.thought_mask.tolist(),
    }


def _rounded(values: FloatArray) -> list[float | None]:
    """Round to five decimals, plenty to look at and half the file; what JSON cannot hold becomes None."""
    return [round(float(value), 5) if math.isfinite(value) else None for value in values]
