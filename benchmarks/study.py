"""The studies behind docs/results.md: plain PPO against GTR-Turbo (KL), same start, same steps, three seeds.

    python benchmarks/study.py points24 run    # hours on two cores; skips runs that are complete
    python benchmarks/study.py points24 long   # one run of many updates from the same start; goes on where it stopped
    python benchmarks/study.py points24 table
    python benchmarks/study.py alfworld run    # likewise, and table; each seed makes a supervised start of its own

``run`` makes the supervised starts, then trains each method with each seed, two runs at a time with one thread each.
``table`` copies summaries and metrics (small) to the data folder and writes tables and figures from there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from gtr_agents.metrics import mean_interval, newcombe_interval, welch_interval, wilson_interval

METHODS = {"ppo": "none", "gtr-turbo-kl": "reverse_kl"}
COLOURS = {"ppo": "#777777", "gtr-turbo-kl": "#1f77b4"}
PAPER = 0.535
"""Success of GTR-Turbo (KL) on Points24 in arXiv 2512.13043, with a 7B model."""


@dataclass(frozen=True)
class Study:
    """What is compared, and where its files lie."""

    preset: str
    data: Path
    """Folder of the raw data."""
    image: Path
    """The figure."""
    starts: dict[int, str]
    """Seed, none used for tuning, to its supervised start; ``start`` is made with seed 0, ``start-s7`` with seed 7."""
    measures: dict[str, str]
    """Columns of the tables, and their keys in a run's summary."""


STUDIES = {
    "points24": Study(
        preset="study-points24",
        data=Path("docs/results_data"),
        image=Path("docs/images/study.png"),
        starts=dict.fromkeys((1, 2, 3), "start"),
        measures={
            "student": "success_rate_after",
            "greedy": "success_rate_after_greedy",
            "solvable": "success_rate_after_solvable",
            "merged teacher": "success_rate_teacher",
            "cards read": "cards_accuracy_after",
            "return": "return_after",
        },
    ),
    "alfworld": Study(
        preset="tiny-alfworld",
        data=Path("docs/results_data/alfworld/study"),
        image=Path("docs/images/alfworld/study.png"),
        starts={seed: f"start-s{seed}" for seed in (7, 8, 9)},
        measures={
            "student": "success_rate_after",
            "greedy": "success_rate_after_greedy",
            "merged teacher": "success_rate_teacher",
            "return": "return_after",
        },
    ),
}


def gtr(*arguments: str) -> None:
    """Run the gtr command of this Python; its plain progress goes to standard output."""
    subprocess.run([sys.executable, "-m", "gtr_agents.cli", *arguments], check=True)  # noqa: S603 - our own command


def is_complete(out: Path) -> bool:
    """Whether a run ended and was evaluated."""
    summary = out / "summary.json"
    return summary.is_file() and "success_rate_after" in json.loads(summary.read_text())


def options(overrides: list[str]) -> list[str]:
    """Overrides as arguments of gtr."""
    return [item for override in overrides for item in ("--set", override)]


def make_start(study: Study, start: Path, threads: int, overrides: list[str]) -> None:
    """Make a supervised start, unless it is there."""
    if not (start / "checkpoints" / "start").is_dir():
        seed = start.name.partition("-s")[2] or "0"
        sets = options([f"threads={threads}", *overrides])
        gtr("sft", study.preset, "--seed", seed, "--out", str(start), *sets)


def run(study: Study, folder: Path, jobs: int, overrides: list[str]) -> None:
    """Make the starts, then every run that has no complete summary yet."""

    def one(method: str, seed: int) -> None:
        starts[study.starts[seed]].result()
        out, start = folder / f"{method}-s{seed}", folder / study.starts[seed]
        if not is_complete(out):
            sets = options([f"guidance.name={METHODS[method]}", "threads=1", *overrides])
            run = ["--start", str(start), "--seed", str(seed), "--out", str(out), "--overwrite"]
            gtr("train", study.preset, *run, *sets)

    with ThreadPoolExecutor(jobs) as pool:
        names = sorted(set(study.starts.values()))
        threads = max(1, jobs // len(names))
        # All of them are begun before any run, so that none waits for a start that waits for it.
        starts = {name: pool.submit(make_start, study, folder / name, threads, overrides) for name in names}
        # Seed by seed, both methods side by side: an interrupted study is still balanced.
        for future in [pool.submit(one, method, seed) for seed in study.starts for method in METHODS]:
            future.result()


def long(study: Study, folder: Path, updates: int, overrides: list[str]) -> None:
    """Train GTR-Turbo (KL) for many updates; what was stopped goes on from its last checkpoint."""
    out = folder / "long-gtr-turbo-kl-s1"
    if (out / "checkpoints" / "start").is_dir() and not is_complete(out):
        gtr("train", "--resume", str(out))
    elif not is_complete(out):
        sets = options([f"updates={updates}", "evaluation.every=10", *overrides])
        start = folder / study.starts[1]
        make_start(study, start, 1, overrides)
        gtr("train", study.preset, "--start", str(start), "--seed", "1", "--out", str(out), "--overwrite", *sets)


def collect(folder: Path, data: Path) -> None:
    """Copy the small raw files of every complete run, and of the start."""
    for out in sorted(path for path in folder.glob("*") if is_complete(path) or path.name.startswith("start")):
        target = data / out.name
        target.mkdir(parents=True, exist_ok=True)
        for name in ("summary.json", "metrics.jsonl", "config.json"):
            if (out / name).is_file():
                shutil.copy(out / name, target / name)


def summaries(data: Path, name: str) -> list[dict[str, Any]]:
    """Read the summaries of the runs whose folder matches a pattern, in order of names."""
    return [
        json.loads(file.read_text()) | {"run": file.parent.name} for file in sorted(data.glob(f"{name}/summary.json"))
    ]


def shown(key: str, value: float, sign: str = "") -> str:
    """Write a measure with the digits it deserves; the sign ``+`` shows that of gains too."""
    return f"{value:{sign}.{2 if key.startswith('return') else 4 if key.startswith('cards') else 3}f}"


def table(study: Study) -> str:
    """Write the runs as a Markdown table from the raw summaries."""
    rows = [f"| run | before | {' | '.join(study.measures)} | steps | train s |"]
    rows.append("|" + " --- |" * (len(study.measures) + 4))
    methods = [s for method in METHODS for s in summaries(study.data, f"{method}-s*")]
    for s in methods + summaries(study.data, "long-*"):
        cells = [s["run"], shown("", s["success_rate_before"])]
        for key in study.measures.values():
            low, high = s.get(f"{key}_interval", (None, None))
            cells.append(shown(key, s[key]) + ("" if low is None else f" ({low:.3f}-{high:.3f})"))
        rows.append(f"| {' | '.join([*cells, str(s['env_steps']), format(s['train_seconds'], '.0f')])} |")
    return "\n".join(rows)


def comparison(study: Study) -> str:
    """Compare the methods: mean and standard deviation over runs, and Welch's 95 % interval of the difference."""
    plain, guided = (summaries(study.data, f"{method}-s*") for method in METHODS)
    rows = ["| | plain PPO | GTR-Turbo (KL) | difference (95 %), p |", "| --- | --- | --- | --- |"]
    for name, key in study.measures.items():
        groups = [[float(s[key]) for s in runs] for runs in (plain, guided)]
        cells = [f"{shown(key, mean(g))} ± {shown(key, stdev(g))}" for g in groups]
        told = shown(key, mean(groups[1]) - mean(groups[0]), "+")
        if (found := welch_interval(groups[0], groups[1])) is not None:
            low, high, p = found
            told += f" ({shown(key, low, '+')} to {shown(key, high, '+')}), p = {p:.2f}"
        rows.append(f"| {name} | {' | '.join(cells)} | {told} |")
    return "\n".join(rows)


def gains(study: Study) -> str:
    """How much each method adds to its starts: by run, the mean with its t interval over runs, and over all episodes.

    The last is the difference of two shares with Newcombe's 95 % interval (doi 10.1002/sim.861, method 10). It takes
    all episodes for independent, though before and after share their tasks (which makes it too wide), and so do the
    runs (which makes it too narrow).
    """
    rows = ["| | by run | mean (95 % over runs) | all episodes (95 %) |", "| --- | --- | --- | --- |"]
    for method in METHODS:
        runs = summaries(study.data, f"{method}-s*")
        n = sum(int(s["episodes"]) for s in runs)
        before = [float(s["success_rate_before"]) for s in runs]
        for name, key in (("student", "success_rate_after"), ("merged teacher", "success_rate_teacher")):
            after = [float(s[key]) for s in runs]
            found = [a - b for a, b in zip(after, before, strict=True)]
            middle, (below, above) = mean(found), mean_interval(found) or (float("nan"), float("nan"))
            low, high = newcombe_interval((mean(before), n), (mean(after), n))
            each = ", ".join(f"{gain:+.3f}" for gain in found)
            rows.append(
                f"| {method}, {name} | {each} | {middle:+.3f} ({below:+.3f} to {above:+.3f}) "
                f"| {middle:+.3f} ({low:+.3f} to {high:+.3f}) |"
            )
    return "\n".join(rows)


def by_task(study: Study, method: str, when: str) -> dict[str, tuple[int, int]]:
    """Episodes won and episodes of each task type, over the runs of a method; ``when`` is before, after or teacher."""
    runs = [s[f"success_by_task_type_{when}"] for s in summaries(study.data, f"{method}-s*")]
    return {task: (sum(s[task][0] for s in runs), sum(s[task][1] for s in runs)) for task in runs[0]}


def task_table(study: Study) -> str:
    """Write success by task type, all runs of a method together, with Wilson's 95 % interval over their episodes."""
    columns = [("ppo", "before"), *((method, when) for method in METHODS for when in ("after", "teacher"))]
    rows = [f"| task type | {' | '.join(f'{method}, {when}' for method, when in columns)} |"]
    rows.append("|" + " --- |" * (len(columns) + 1))
    for task in by_task(study, *columns[0]):
        cells = []
        for method, when in columns:
            won, n = by_task(study, method, when)[task]
            low, high = wilson_interval(won, n)
            cells.append(f"{won}/{n} = {won / n:.2f} ({low:.2f}-{high:.2f})")
        rows.append(f"| {task} | {' | '.join(cells)} |")
    return "\n".join(rows)


def curve(out: Path, key: str = "eval/student/success_rate") -> list[dict[str, Any]]:
    """The lines of a run's metrics that have a key, in order."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if key in line]


def draw_success(axis: Any, study: Study) -> None:
    """Draw the evaluations of every run: student solid, merged teacher dashed; between them the games of training."""
    for method, colour in COLOURS.items():
        for number, out in enumerate(sorted(study.data.glob(f"{method}-s*"))):
            points = curve(out)
            steps = [line["env_steps"] for line in points]
            label = method if number == 0 else None
            marker = "o" if len(points) < 3 else ""
            for model, style in (("student", "-"), ("teacher", "--")):
                rates = [line[f"eval/{model}/success_rate"] for line in points]
                axis.plot(steps, rates, style, marker=marker, color=colour, label=label if model == "student" else None)
            if len(points) < 3:
                rollouts = curve(out, "rollout/success_rate")
                steps = [line["env_steps"] for line in rollouts]
                axis.plot(steps, [line["rollout/success_rate"] for line in rollouts], color=colour, alpha=0.3)
    axis.set(xlabel="environment steps", ylabel="success rate", title="student —, merged teacher - -")


def draw_cards(axis: Any, study: Study) -> None:
    """Draw how many cards the student reads."""
    for method, colour in COLOURS.items():
        for number, out in enumerate(sorted(study.data.glob(f"{method}-s*"))):
            points = curve(out)
            cards = [line["eval/student/cards_accuracy"] for line in points]
            axis.plot([p["env_steps"] for p in points], cards, color=colour, label=None if number else method)
    axis.set(xlabel="environment steps", ylabel="cards read correctly", title="card reading of the student")


def draw_tasks(axis: Any, study: Study) -> None:
    """Draw success by task type before and after, all runs of a method together."""
    bars = {"start": ("ppo", "before", "#dddddd")} | {m: (m, "after", colour) for m, colour in COLOURS.items()}
    for number, (label, (method, when, colour)) in enumerate(bars.items()):
        rates, errors = [], []
        for won, n in by_task(study, method, when).values():
            low, high = wilson_interval(won, n)
            rates.append(won / n)
            errors.append((won / n - low, high - won / n))
        places = [task + 0.27 * (number - 1) for task in range(len(rates))]
        error = list(zip(*errors, strict=True))
        axis.bar(places, rates, 0.25, yerr=error, color=colour, label=label, error_kw={"elinewidth": 0.8})
    tasks = [task.split("_then")[0].removesuffix("_simple") for task in by_task(study, "ppo", "before")]
    axis.set_xticks(range(len(tasks)), [task.replace("_", "\n") for task in tasks], fontsize=8)
    axis.set(ylabel="success rate", title="by task type, three runs together")


def figure(study: Study, panels: list[Callable[[Any, Study], None]]) -> None:
    """Draw the figure of a study."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), 4), constrained_layout=True)
    for axis, panel in zip(axes, panels, strict=True):
        panel(axis, study)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(study.image, dpi=130)


def long_figure(data: Path, path: Path) -> None:
    """Draw the long run: student and merged teacher with the students' 95 % intervals, and the paper's figure."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 4), constrained_layout=True)
    for out in sorted(data.glob("long-*")):
        points = curve(out)
        steps = [line["env_steps"] for line in points]
        axis.plot(steps, [line["eval/student/success_rate"] for line in points], color="#1f77b4", label="student")
        bounds = ([line[f"eval/student/success_{end}"] for line in points] for end in ("low", "high"))
        axis.fill_between(steps, *bounds, color="#1f77b4", alpha=0.15, linewidth=0)
        axis.plot(
            steps, [line["eval/teacher/success_rate"] for line in points], "--", color="#d62728", label="merged teacher"
        )
        greedy = [line for line in points if "eval/student_greedy/success_rate" in line]
        axis.plot(
            [line["env_steps"] for line in greedy],
            [line["eval/student_greedy/success_rate"] for line in greedy],
            "o", color="black", label="student, greedy",
        )  # fmt: skip
    axis.axhline(PAPER, color="#777777", linewidth=1, linestyle=":", label="7B model of the paper")
    axis.set(xlabel="environment steps", ylabel="success rate (500 fixed hands of all)")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=tuple(STUDIES))
    parser.add_argument("command", choices=("run", "long", "table"))
    parser.add_argument("--folder", type=Path, help="where the runs go; default runs/study-STUDY")
    parser.add_argument("--updates", type=int, default=200, help="length of the long run")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--set", action="append", default=[], help="overrides for every run, e.g. updates=10")
    arguments = parser.parse_args()
    study = STUDIES[arguments.study]
    folder = arguments.folder or Path("runs") / f"study-{arguments.study}"
    if arguments.command == "run":
        run(study, folder, arguments.jobs, arguments.set)
    elif arguments.command == "long":
        long(study, folder, arguments.updates, arguments.set)
    else:
        collect(folder, study.data)
        sys.stdout.write(f"{table(study)}\n\n{comparison(study)}\n")
        sys.stdout.write(f"\n{gains(study)}\n")
        if arguments.study == "points24":
            figure(study, [draw_success, draw_cards])
            long_figure(study.data, study.image.with_name("long_run.png"))
        else:
            sys.stdout.write(f"\n{task_table(study)}\n")
            figure(study, [draw_success, draw_tasks])


if __name__ == "__main__":
    main()
