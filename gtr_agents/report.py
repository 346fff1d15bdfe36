"""What a run looks like afterwards: one self-contained HTML page, and the learning curve as a picture."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtr_agents import charts, curves
from gtr_agents.display import duration
from gtr_agents.metrics import wilson_interval
from gtr_agents.recorder import CONFIG_FILE, SUMMARY_FILE, RunFolder, RunFolderError
from gtr_agents.viewer import select_episodes, viewer_data

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCRIPTS = ("report.js", "tokens.js", "viewer.js")
"""The script of the page, in this order."""


def build_report(run: str | Path) -> Path:
    """Write ``report.html`` into a run folder: one file without any reference to the outside.

    Everything the model wrote is escaped, and the page lets no script run but its own. Parts of an interrupted or
    purely supervised run that do not exist are named on the page.

    Args:
        run: The run folder.

    Returns:
        Path of the page.

    Raises:
        RunFolderError: If the folder is no run, or one of its files cannot be read.
    """
    import jinja2
    from markupsafe import Markup

    folder = RunFolder.open(run)
    training, supervised = curves.split_metrics(folder.metrics())
    config = folder.config() if (folder.path / CONFIG_FILE).is_file() else {}
    summary = folder.summary() if (folder.path / SUMMARY_FILE).is_file() else {}
    episodes = select_episodes(folder.episodes())
    rows = comparison(summary, training)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gtr_agents"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    script = "".join(environment.get_template(name).render() for name in SCRIPTS)
    page = environment.get_template("report.html").render(
        script=Markup(script),  # noqa: S704 - our own files
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        name=folder.path.resolve().name,
        title=summary.get("preset") or config.get("preset") or folder.path.resolve().name,
        subtitle=" on ".join(str(summary[key]) for key in ("method", "env") if summary.get(key)),
        headline=headline(rows, summary),
        tiles=tiles(summary, training),
        notes=missing(summary, training, config, episodes),
        rows=rows,
        task_types=task_types(summary),
        intervals=[charts.interval_chart(rows, label="Success rates", size=size) for size in _sizes(rows)],
        learning_curves=[curves.success_chart(training, size) for size in ((1060, 330), (380, 280))],
        legend=[(line.label, line.role) for line in curves.all_series(training, f"rollout/{curves.SUCCESS}")],
        teacher_charts=[curves.teacher_chart(training, size) for size in ((1060, 300), (380, 260))],
        teacher_legend=[(line.label, line.role) for line in curves.teacher_series(training)],
        by_steps=curves.position(training) == "env_steps",
        sections=dict(curves.sections(training, supervised)),
        other_heading=curves.OTHER,
        viewer=viewer_data(folder, episodes) if episodes else None,
        config=list(flatten(config)),
    )
    path = folder.path / "report.html"
    path.write_text(page, encoding="utf-8", errors="replace")
    return path


def learning_curve_png(run: str | Path, path: str | Path) -> Path:
    """Draw success over environment steps: rollouts, student and teacher with 95% bands, the level before.

    Args:
        run: The run folder.
        path: Where to write the picture.

    Returns:
        ``path``.

    Raises:
        RunFolderError: If the folder is no run or has recorded no success rate yet.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Picture

    folder = RunFolder.open(run)
    training, _ = curves.split_metrics(folder.metrics())
    if not any(key.endswith(f"/{curves.SUCCESS}") for line in training for key in line):
        raise RunFolderError(f"{str(folder.path)!r} has no success rate to draw yet; wait for the first update.")
    picture = Picture(figsize=(8, 4.5), dpi=160, layout="constrained")
    axes = picture.add_subplot()
    _draw_curve(axes, training)
    axes.set_xlabel("environment steps" if curves.position(training) == "env_steps" else "updates")
    axes.set_ylabel("success rate")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.xaxis.set_major_formatter(lambda value, _: charts.short(value))
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", edgecolor="none", framealpha=0.85)
    FigureCanvasAgg(picture)  # savefig uses the canvas; without one, pyplot and a display would be needed
    picture.savefig(path, format="png")
    return Path(path)


def comparison(summary: Mapping[str, Any], training: Sequence[Mapping[str, Any]]) -> list[charts.Row]:
    """List the success rates before, after and of the teacher.

    Args:
        summary: ``summary.json``; may be empty.
        training: The lines of the updates; they stand in for what an interrupted run's summary lacks.

    Returns:
        One row for each rate that is known.
    """
    rows = []
    for key, label, role, prefix, place in (
        ("before", "Start", "start", "eval/student", 0),
        ("after", "Student", "student", "eval/student", -1),
        ("teacher", "Teacher", "teacher", "eval/teacher", -1),
    ):
        value, interval = summary.get(f"success_rate_{key}"), summary.get(f"success_rate_{key}_interval")
        measured = [line for line in training if line.get(f"{prefix}/{curves.SUCCESS}") is not None]
        if value is None and measured and (place == 0 or measured[-1]["update"] > 0):
            value = measured[place][f"{prefix}/{curves.SUCCESS}"]
            ends = [measured[place].get(f"{prefix}/success_{end}") for end in ("low", "high")]
            interval = None if None in ends else ends
        if value is not None:
            bounds = None if interval is None else (float(interval[0]), float(interval[1]))
            rows.append(charts.Row(label, role, float(value), bounds, summary.get(f"success_rate_{key}_greedy")))
    return rows


def task_types(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the success by type of task, where tasks have types.

    Args:
        summary: ``summary.json``; may be empty.

    Returns:
        For each type its name and the rates by role, each with its 95% Wilson interval and the number of episodes.
    """
    roles = {"before": "Start", "after": "Student", "teacher": "Teacher"}
    found = {label: summary.get(f"success_by_task_type_{role}") for role, label in roles.items()}
    measured = {label: types for label, types in found.items() if types}
    names = sorted({name for types in measured.values() for name in types})
    return [
        {"name": name, "rates": {label: _rate(*types.get(name, (0, 0))) for label, types in measured.items()}}
        for name in names
    ]


def _rate(won: int, played: int) -> str:
    if not played:
        return "-"
    low, high = wilson_interval(won, played)
    return f"{won / played:.0%} ({low:.0%} - {high:.0%}) of {played}"


def headline(rows: Sequence[charts.Row], summary: Mapping[str, Any]) -> str:
    """Say the result in one sentence.

    Args:
        rows: As :func:`comparison` gives them.
        summary: For the number of episodes; may be empty.

    Returns:
        A sentence that claims a change only where the 95% intervals do not overlap.
    """
    rates = {row.label: row for row in rows}
    start, student = rates.get("Start"), rates.get("Student")
    kind = f"fixed {summary.get('evaluation_split', '')} episodes".replace("  ", " ")
    on = f" on {summary['episodes']} {kind}" if summary.get("episodes") else ""
    if start is None or student is None:
        return f"Success is {rows[0].value:.1%}{on}." if rows else "No success rate has been measured."
    points = f"from {start.value:.1%} to {student.value:.1%} ({(student.value - start.value) * 100:+.1f} points){on}"
    if start.interval is None or student.interval is None:
        return f"Success went {points}."
    if student.interval[0] > start.interval[1]:
        return f"Success rose {points}; the 95% intervals do not overlap."
    if student.interval[1] < start.interval[0]:
        return f"Success fell {points}; the 95% intervals do not overlap."
    return f"Success went {points}; the 95% intervals overlap, so this may be chance."


def tiles(summary: Mapping[str, Any], training: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Choose the facts shown as tiles.

    Args:
        summary: ``summary.json``; may be empty.
        training: The lines of the updates.

    Returns:
        Label and text of each tile.
    """
    last = training[-1] if training else {}
    facts = {
        "updates": summary.get("updates", last.get("update")),
        "environment steps": summary.get("env_steps", last.get("env_steps")),
        "evaluation episodes": summary.get("episodes"),
        "temperature": summary.get("temperature"),
        "seed": summary.get("seed"),
    }
    shown = [(label, f"{value:,}") for label, value in facts.items() if isinstance(value, (int, float))]
    seconds = summary.get("wall_seconds", last.get("wall_seconds"))
    return [*shown, ("wall time", duration(seconds))] if seconds is not None else shown


def missing(
    summary: Mapping[str, Any], training: Sequence[Mapping[str, Any]], config: object, episodes: Sequence[object]
) -> list[str]:
    """Name what the run does not hold.

    Args:
        summary: ``summary.json``; empty if missing.
        training: The lines of the updates.
        config: ``config.json``; empty if missing.
        episodes: The recorded episodes.

    Returns:
        Sentences for the reader.
    """
    facts = {
        "The run was interrupted; the numbers are those of its last complete update.": summary.get("interrupted"),
        "There is no summary.json: the run has not ended, or was killed.": not summary,
        "There is no config.json: the settings are unknown.": not config,
        "No update of reinforcement learning was recorded.": not any(line["update"] > 0 for line in training),
        "No episodes were recorded.": not episodes,
    }
    return [sentence for sentence, holds in facts.items() if holds]


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Turn a nested configuration into rows.

    Args:
        config: Mappings in mappings.
        prefix: Put before each name.

    Yields:
        Dotted name and text of each value.
    """
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "" if value is None else str(value)


def _sizes(rows: Sequence[charts.Row]) -> list[tuple[int, int]]:
    """Sizes of the comparison on a wide and on a narrow page; none without rows."""
    height = 40 + 56 * len(rows)
    return [(1060, height), (380, height)] if rows else []


COLOURS = {"rollout": "#9ca3af", "student": "#2563eb", "teacher": "#d97706", "start": "#6b7280"}


def _draw_curve(axes: Axes, training: Sequence[Mapping[str, Any]]) -> None:
    for line in curves.all_series(training, f"rollout/{curves.SUCCESS}"):
        if line.role == "greedy":
            continue
        colour = COLOURS[line.role]
        if line.marked:
            axes.plot(line.xs, line.ys, "o-", color=colour, label=f"{line.label}, evaluated", markersize=4)
        else:
            axes.plot(line.xs, line.ys, color=colour, alpha=0.35, linewidth=1)
            means = charts.smoothed(line.ys, max(1, len(line.ys) // 24))
            axes.plot(line.xs, means, color=colour, linewidth=1.5, label=f"{line.label}, moving mean")
        if line.intervals:
            lows, highs = zip(*line.intervals, strict=True)
            axes.fill_between(line.xs, lows, highs, color=colour, alpha=0.15, linewidth=0)
    before = curves.success_before(training)
    if before is not None:
        axes.axhline(before, color=COLOURS["start"], linestyle="--", linewidth=1, label="before")
