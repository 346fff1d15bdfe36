"""The run beside its folder: the same metrics, configuration and summary in W&B or trackio, for those who look there.

The run folder stays the record. Nothing that a tracker does stops training: its first failure is a warning, its later
ones are silent, and what the run folder holds can be sent again by the tracker's own tools. Keys are read from the
environment by the trackers themselves and are never written here.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import uuid
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from gtr_agents.errors import ConfigError, DependencyError
from gtr_agents.recorder import RunFolder

TrackerName = Literal["wandb", "trackio"]
PROJECT = "gtr-suite"
"""Where the runs are filed; ``WANDB_PROJECT`` and ``TRACKIO_PROJECT`` name another project."""
IDS_FILE = "trackers.json"
"""Holds each tracker's id of this run, so that a run that is resumed goes on there as well."""
_OFFLINE = ("offline", "dryrun", "disabled")


def check_trackers(names: Iterable[TrackerName]) -> None:
    """Refuse trackers that cannot be used, before anything is trained.

    Args:
        names: The trackers of a run.

    Raises:
        DependencyError: If a tracker's package is not installed.
        ConfigError: If W&B should go online and there is no key for it.
    """
    for name in names:
        if find_spec(name) is None:
            raise DependencyError(
                f"The run asks for trackers=[{name}], but the package {name!r} is not installed. "
                f'Run: pip install "gtr-suite[trackers]" (or: pip install {name}), or leave it out.'
            )
        if name == "wandb" and os.environ.get("WANDB_MODE") not in _OFFLINE and not os.environ.get("WANDB_API_KEY"):
            raise ConfigError(
                "The run asks for trackers=[wandb], but the environment variable WANDB_API_KEY is not set. Set it, or "
                "set WANDB_MODE=offline to write into the run folder and send it later with `wandb sync`."
            )


class Trackers:
    """The trackers of one run; a context manager that begins their runs and ends them.

    Args:
        names: Which; none is allowed.
        run: The run folder, whose every logged line is sent on.
        config: What decided the run: shown as its configuration. Must be plain values.
    """

    def __init__(self, names: Sequence[TrackerName], run: RunFolder, config: Mapping[str, Any]) -> None:
        self._names, self._folder, self._config = names, run, config
        self._runs: dict[str, Any] = {}
        self._warned: set[str] = set()

    def __enter__(self) -> Self:
        """Begin or go on with a run in each tracker."""
        ids = _ids(self._folder.path, self._names)
        for name in self._names:
            with self._harmless(name):
                self._runs[name] = _BEGIN[name](self._folder.path, ids[name], self._shown())
        if self._runs:
            self._folder.on_log(self._log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the runs; W&B shows one that ended by an error as failed."""
        for name, run in self._runs.items():
            with self._harmless(name):
                if name == "wandb":
                    run.finish(exit_code=int(kind is not None))
                else:
                    import_module(name).finish()  # the run's own would be called, and print, again when Python ends
        self._runs = {}

    def summarise(self, summary: Mapping[str, Any]) -> None:
        """Send the summary: to W&B as the run's summary, to trackio as a last line with names under ``summary/``.

        Args:
            summary: What ``summary.json`` holds.
        """
        for name, run in self._runs.items():
            with self._harmless(name):
                if name == "wandb":
                    run.summary.update({**summary, "report": self._report()})
                else:
                    run.log({f"summary/{key}": v for key, v in summary.items() if isinstance(v, (int, float, str))})

    def _log(self, line: Mapping[str, Any]) -> None:
        known = {key: value for key, value in line.items() if value is not None}
        for name, run in self._runs.items():
            with self._harmless(name):
                run.log(known)

    def _shown(self) -> dict[str, Any]:
        return {**self._config, "folder": str(self._folder.path.resolve()), "report": self._report()}

    def _report(self) -> str:
        return str(self._folder.path.resolve() / "report.html")

    @contextlib.contextmanager
    def _harmless(self, name: str) -> Any:
        """Let a tracker fail: warn once. What it prints would spoil the display."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        except Exception as error:  # noqa: BLE001 - whatever a tracker or its network raises, training goes on
            if name not in self._warned:
                self._warned.add(name)
                warnings.warn(
                    f"The tracker {name!r} failed, and training goes on without it or with gaps in it: "
                    f"{type(error).__name__}: {error}. The run folder has everything.",
                    stacklevel=4,
                )


def _ids(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Read the ids of this run, and write new ones for trackers that it does not have yet."""
    path = folder / IDS_FILE
    ids: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    new = {name: uuid.uuid4().hex[:8] for name in names if name not in ids}
    if new:
        path.write_text(json.dumps(ids | new, indent=2) + "\n", encoding="utf-8")
    return ids | new


def _begin_wandb(folder: Path, run_id: str, config: dict[str, Any]) -> Any:
    """Begin a run whose x-axis is the environment steps, since a resumed run logs some updates again."""
    wandb = import_module("wandb")
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=folder.resolve().name,
        id=run_id,
        resume="allow",
        dir=str(folder),
        config=config,
        settings=wandb.Settings(console="off", silent=True),
    )
    run.define_metric("*", step_metric="env_steps")
    return run


def _begin_trackio(folder: Path, run_id: str, config: dict[str, Any]) -> Any:
    """Begin a run; trackio knows a run by its name, so the id is a part of it."""
    return import_module("trackio").init(
        project=os.environ.get("TRACKIO_PROJECT", PROJECT),
        name=f"{folder.resolve().name}-{run_id}",
        resume="allow",
        config=config,
        embed=False,
    )


_BEGIN: dict[str, Callable[[Path, str, dict[str, Any]], Any]] = {"wandb": _begin_wandb, "trackio": _begin_trackio}
