"""A run from its preset to its report, for Python; ``gtr train`` is this and a table."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtr_agents.config import load_config, resolve
from gtr_agents.display import TrainingDisplay
from gtr_agents.errors import ConfigError
from gtr_agents.files import LOCK, sole_writer
from gtr_agents.ranks import this_process
from gtr_agents.recorder import RunFolder
from gtr_agents.report import build_report
from gtr_agents.requirements import check_versions
from gtr_agents.run_checkpoints import model_folder
from gtr_agents.training import follow
from gtr_agents.training import train as run_training

if TYPE_CHECKING:
    from gtr_agents.algorithms.base import Callback


@dataclass(frozen=True, slots=True)
class Run:
    """What a run has left."""

    folder: Path
    """The run folder."""
    summary: Mapping[str, Any]
    """The numbers of ``summary.json``: success before and after, of student and teacher, with intervals, and more."""

    @property
    def model(self) -> Path:
        """The folder of the newest model, for :meth:`VLMPolicy.from_pretrained`."""
        return model_folder(self.folder)

    @property
    def report(self) -> Path:
        """The page to open."""
        return self.folder / "report.html"


def train(
    preset: str,
    *,
    out: str | Path | None = None,
    seed: int = 0,
    overrides: Iterable[str] = (),
    start: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Run | None:
    """Train with a preset: supervised start, updates, evaluations, checkpoints, report.

    Args:
        preset: the name of a preset, or the path of a YAML file like one.
        out: the run folder; default ``runs/PRESET-sSEED``.
        seed: the seed; one seed makes one run.
        overrides: changed options, each ``section.option=value``.
        start: a run folder or model folder to start from, instead of the preset's supervised start.
        overwrite: True replaces a run that is already in the folder.
        quiet: True shows no progress.
        callbacks: what else is told about phases, progress and updates.

    Returns:
        The run; None in the processes of a run that do not lead it.

    Raises:
        ConfigError: if the configuration is not valid, or the folder is taken.
        BusyFolderError: if another process trains there.
        DependencyError: if a package is too old.
    """
    check_versions()
    overrides = tuple(overrides)
    config = load_config(preset, overrides)
    ranks = this_process()
    if not ranks.leads:
        follow(config, seed=seed, ranks=ranks)
        return None
    folder = Path(out) if out is not None else Path("runs") / f"{short(preset)}-s{seed}"
    _make_room(folder, overwrite=overwrite)
    model = None if start is None else model_folder(Path(start))
    title = f"{config.env.id} · {short(preset)} · seed {seed}"
    with (
        sole_writer(folder),
        RunFolder(folder) as run,
        TrainingDisplay(config.updates, title, enabled=not quiet) as display,
    ):
        try:
            summary = run_training(
                config,
                run,
                display,
                seed=seed,
                preset=preset,
                start=model,
                overrides=overrides,
                ranks=ranks,
                callbacks=callbacks,
            )
        except KeyboardInterrupt:  # not during the updates, which end in a summary then
            display.message(_outside_training(folder))
            raise
    return _reported(folder, summary)


def resume(folder: str | Path, *, quiet: bool = False, callbacks: Sequence[Callback] = ()) -> Run | None:
    """Go on with a run, by its own configuration, from its newest whole checkpoint or wherever it stopped before.

    Args:
        folder: the run folder.
        quiet: True shows no progress.
        callbacks: as for :func:`train`.

    Returns:
        As for :func:`train`.

    Raises:
        RunFolderError: if there is no such run.
        BusyFolderError: if another process trains there.
        CheckpointError: if all of its checkpoints are damaged.
    """
    folder = Path(folder)
    ranks = this_process()
    with RunFolder.open(folder) as run:
        record = run.config()
        config = resolve(record["config"])
        if not ranks.leads:
            follow(config, seed=record["seed"], ranks=ranks)
            return None
        title = f"{config.env.id} · resumed"
        with sole_writer(folder), TrainingDisplay(config.updates, title, enabled=not quiet) as display:
            try:
                summary = run_training(
                    config,
                    run,
                    display,
                    seed=record["seed"],
                    preset=record["preset"],
                    start=record.get("start"),
                    resume=True,
                    ranks=ranks,
                    callbacks=callbacks,
                )
            except KeyboardInterrupt:
                display.message(_outside_training(folder))
                raise
    return _reported(folder, summary)


def short(preset: str) -> str:
    """What a run of a preset is called: its name, or its file's."""
    return Path(preset).stem if preset.endswith((".yaml", ".yml")) else preset


def _make_room(folder: Path, *, overwrite: bool) -> None:
    """Make room for a run; an existing run is only replaced on request, anything else never."""
    if not folder.exists() or all(path.suffix == ".tmp" or path.name == LOCK for path in folder.iterdir()):
        return  # a run that was killed while it wrote its first file has not begun
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} is not empty and holds no run; choose another --out.")
    if not overwrite:
        raise ConfigError(f"{folder} already holds a run. Use --overwrite, another --out, or --resume {folder}.")
    with sole_writer(folder):
        shutil.rmtree(folder)


def _outside_training(folder: Path) -> str:
    """What an interruption outside the updates leaves, and how to go on."""
    if (folder / "checkpoints" / "start").is_dir():
        return f"Interrupted, but the model is saved. Go on with: gtr train --resume {folder}"
    return f"Interrupted during the supervised start, which begins anew with: gtr train --resume {folder}"


def _reported(folder: Path, summary: Mapping[str, Any]) -> Run:
    build_report(folder)
    return Run(folder, summary)
