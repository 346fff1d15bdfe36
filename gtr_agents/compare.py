"""Runs side by side, from their raw files: a table, the differences between methods, learning curves, intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from gtr_agents.curves import SUCCESS, split_metrics
from gtr_agents.errors import ConfigError, unknown_name
from gtr_agents.metrics import mean_interval, newcombe_interval, welch_interval, wilson_interval
from gtr_agents.recorder import CONFIG_FILE, RunFolder, RunFolderError
from gtr_agents.report import flatten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODELS = {"student": "success_rate_after", "merged teacher": "success_rate_teacher"}
"""Who is compared with the start, and the key of its success in a summary."""
NO_METHOD = ("threads", "trackers", "description", "evaluation.")
"""Beginnings of options in which runs of one method may differ."""


@dataclass(frozen=True, slots=True)
class RunFiles:
    """What the raw files of a run say."""

    name: str
    """Name of the run folder."""
    summary: dict[str, Any]
    """``summary.json``."""
    options: dict[str, str]
    """The configuration, as dotted option to text; empty where it was not kept."""
    training: list[dict[str, Any]]
    """The lines of ``metrics.jsonl`` that belong to updates."""


def read_runs(folders: Sequence[str | Path]) -> list[RunFiles]:
    """Read the raw files of finished runs.

    Args:
        folders: Run folders.

    Returns:
        The runs, in the order given.

    Raises:
        RunFolderError: If a folder is no run, or its run was not evaluated at its end.
    """
    return [_read(RunFolder.open(folder)) for folder in folders]


def _read(run: RunFolder) -> RunFiles:
    summary = run.summary()
    needed = ("success_rate_before", "success_rate_after", "episodes")
    if lacking := [key for key in needed if summary.get(key) is None]:
        raise RunFolderError(f"{str(run.path)!r} cannot be compared: its summary has no {', '.join(lacking)}.")
    record = run.config() if (run.path / CONFIG_FILE).is_file() else {}
    return RunFiles(
        run.path.resolve().name, summary, dict(flatten(record.get("config", {}))), split_metrics(run.metrics())[0]
    )


def group_runs(runs: Sequence[RunFiles], by: str | None = None) -> dict[str, list[RunFiles]]:
    """Put runs together that differ in nothing but their seed.

    Args:
        runs: The runs.
        by: ``method``, or an option of the configuration (``guidance.beta``), to group by this alone. None groups by
            all options that differ between the runs.

    Returns:
        Label -> runs, in the order in which the labels first come.

    Raises:
        UnknownNameError: If no run has such an option.
    """
    every = list(dict.fromkeys(name for run in runs for name in run.options))
    if by not in (None, "method", *every):
        raise unknown_name("option to group by", by, ["method", *every])
    telling = [name for name in every if not name.startswith(NO_METHOD)]
    differing = [name for name in telling if len({run.options.get(name) for run in runs}) > 1]
    groups: dict[str, list[RunFiles]] = {}
    for run in runs:
        groups.setdefault(_label(run, by, differing), []).append(run)
    return groups


def _label(run: RunFiles, by: str | None, differing: Sequence[str]) -> str:
    method = str(run.summary.get("method", run.name))
    if by == "method":
        return method
    if by is not None:
        return f"{by}={run.options.get(by, '')}"
    # The method has the guidance's name in it; said twice it would only be longer.
    told = [f"{name}={run.options.get(name, '')}" for name in differing if name != "guidance.name"]
    return ", ".join([method, *told])


def comparable(runs: Sequence[RunFiles]) -> None:
    """Check that runs were measured alike.

    Args:
        runs: The runs.

    Raises:
        ConfigError: If they were evaluated on different environments, splits or numbers of episodes.
    """
    for key in ("env", "evaluation_split", "episodes"):
        found = {run.name: run.summary[key] for run in runs if key in run.summary}
        if len(set(found.values())) > 1:
            told = ", ".join(f"{name}: {value}" for name, value in found.items())
            raise ConfigError(f"Runs can only be compared on the same episodes, but {key} differs ({told}).")


def success_table(groups: Mapping[str, Sequence[RunFiles]]) -> str:
    """Write what each group gained on its start.

    Args:
        groups: Label -> runs.

    Returns:
        A Markdown table. Over runs: Student's interval of the gains, ``-`` with one run. Over episodes: Newcombe's
        interval, which takes before and after for independent, and the episodes of all runs.
    """
    rows = ["| | runs | start | end | gain | 95 % over runs | 95 % over episodes |", f"|{' --- |' * 7}"]
    for label, runs in groups.items():
        for model, key in MODELS.items():
            if any(run.summary.get(key) is None for run in runs):
                continue
            before, after = rates(runs, "success_rate_before"), rates(runs, key)
            n = sum(int(run.summary["episodes"]) for run in runs)
            gains = [b - a for a, b in zip(before, after, strict=True)]
            cells = [
                f"{label}, {model}",
                str(len(runs)),
                f"{mean(before):.3f}",
                f"{mean(after):.3f}",
                f"{mean(gains):+.3f}",
                _bounds(mean_interval(gains)),
                _bounds(newcombe_interval((mean(before), n), (mean(after), n))),
            ]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def difference_table(groups: Mapping[str, Sequence[RunFiles]]) -> str:
    """Write how much the success of the groups differs, each pair.

    Args:
        groups: Label -> runs.

    Returns:
        A Markdown table: Welch's interval and p value over runs (``-`` where a group has one run, or equal ones), and
        Newcombe's interval over all episodes. Nothing is corrected for the number of comparisons.
    """
    rows = ["| second minus first | model | difference | 95 % over runs | p | 95 % over episodes |", f"|{' --- |' * 6}"]
    for (one, first), (two, second) in combinations(groups.items(), 2):
        for model, key in MODELS.items():
            if any(run.summary.get(key) is None for run in (*first, *second)):
                continue
            a, b = rates(first, key), rates(second, key)
            n, m = (sum(int(run.summary["episodes"]) for run in runs) for runs in (first, second))
            welch = welch_interval(a, b)
            over_runs = _bounds(None if welch is None else welch[:2])
            p = "-" if welch is None else f"{welch[2]:.2f}"
            over_episodes = _bounds(newcombe_interval((mean(a), n), (mean(b), m)))
            rows.append(f"| {two} - {one} | {model} | {mean(b) - mean(a):+.3f} | {over_runs} | {p} | {over_episodes} |")
    return "\n".join(rows)


def rates(runs: Sequence[RunFiles], key: str) -> list[float]:
    """One number of each run's summary."""
    return [float(run.summary[key]) for run in runs]


def _bounds(interval: tuple[float, float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}"


def draw(groups: Mapping[str, Sequence[RunFiles]], path: str | Path) -> Path:
    """Draw learning curves and final success.

    Args:
        groups: Label -> runs.
        path: Where to write the picture (PNG).

    Returns:
        The path.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=(11, max(4.0, 0.5 * len(groups) + 2)), dpi=130, layout="constrained")
    curves, forest = picture.subplots(1, 2)
    for number, (label, runs) in enumerate(groups.items()):
        _draw_curves(curves, label, runs, f"C{number}")
    _draw_forest(forest, groups)
    FigureCanvasAgg(picture)  # savefig uses the canvas; without one, pyplot and a display would be needed
    picture.savefig(path, format="png")
    return Path(path)


def _draw_curves(axes: Axes, label: str, runs: Sequence[RunFiles], colour: str) -> None:
    """The mean over the runs that were evaluated after an update, and the range of them."""
    found: dict[int, list[float]] = {}
    for run in runs:
        for line in run.training:
            if (rate := line.get(f"eval/student/{SUCCESS}")) is not None:
                found.setdefault(line["update"], []).append(rate)
    updates = sorted(found)
    axes.plot(updates, [mean(found[update]) for update in updates], "o-", color=colour, label=label, markersize=3)
    if len(runs) > 1:
        lows, highs = ([end(found[update]) for update in updates] for end in (min, max))
        axes.fill_between(updates, lows, highs, color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="update", ylabel="success of the student", title="mean and range over runs")
    axes.legend(fontsize=7)


def _draw_forest(axes: Axes, groups: Mapping[str, Sequence[RunFiles]]) -> None:
    """Success at the end with Wilson's interval over the episodes of all runs; a tick for each run."""
    for place, runs in enumerate(groups.values()):
        each = rates(runs, "success_rate_after")
        n = sum(int(run.summary["episodes"]) for run in runs)
        low, high = wilson_interval(round(mean(each) * n), n)
        axes.plot([low, high], [-place, -place], color=f"C{place}")
        axes.plot(mean(each), -place, "o", color=f"C{place}")
        axes.plot(each, [-place - 0.15] * len(each), "|", color=f"C{place}")
    axes.set_yticks([-place for place in range(len(groups))], list(groups), fontsize=7)
    axes.set_ylim(-len(groups) + 0.5, 0.6)
    axes.set(xlabel="success of the student at the end", title="95 % over episodes; ticks are runs")
