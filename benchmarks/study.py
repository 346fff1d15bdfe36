"""The study behind docs/results.md: plain PPO against GTR-Turbo (KL) on Points24, same start, same steps, three seeds.

    python benchmarks/study.py run       # hours on two cores; skips runs that are complete
    python benchmarks/study.py long      # one run of many updates from the same start; goes on where it was stopped
    python benchmarks/study.py table     # needs scipy (the extra dev)

``run`` makes one supervised start, then trains each method with each seed from it, two runs at a time with one thread
each. ``table`` copies summaries and metrics (small) to the data folder and writes tables and figures from there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

PRESET = "study-points24"
METHODS = {"ppo": "none", "gtr-turbo-kl": "reverse_kl"}
COLOURS = {"ppo": "#777777", "gtr-turbo-kl": "#1f77b4"}
SEEDS = (1, 2, 3)  # seed 0 was used for tuning
PAPER = 0.535
"""Success of GTR-Turbo (KL) on Points24 in arXiv 2512.13043, with a 7B model."""


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


def make_start(folder: Path, threads: int, overrides: list[str]) -> Path:
    """Make the supervised start that all runs share, unless it is there."""
    start = folder / "start"
    if not (start / "checkpoints" / "start").is_dir():
        gtr("sft", PRESET, "--out", str(start), "--set", f"threads={threads}", *options(overrides))
    return start


def run(folder: Path, jobs: int, overrides: list[str]) -> None:
    """Make the start, then every run that has no complete summary yet."""
    start = make_start(folder, jobs, overrides)

    def one(method: str, seed: int) -> None:
        out = folder / f"{method}-s{seed}"
        if not is_complete(out):
            sets = options([f"guidance.name={METHODS[method]}", "threads=1", *overrides])
            gtr("train", PRESET, "--start", str(start), "--seed", str(seed), "--out", str(out), "--overwrite", *sets)

    # Seed by seed, both methods side by side: an interrupted study is still balanced.
    with ThreadPoolExecutor(jobs) as pool:
        for future in [pool.submit(one, method, seed) for seed in SEEDS for method in METHODS]:
            future.result()


def long(folder: Path, updates: int, overrides: list[str]) -> None:
    """Train GTR-Turbo (KL) for many updates; what was stopped goes on from its last checkpoint."""
    out = folder / "long-gtr-turbo-kl-s1"
    if (out / "checkpoints" / "last").is_dir() and not is_complete(out):
        gtr("train", "--resume", str(out))
    elif not is_complete(out):
        sets = options([f"updates={updates}", "evaluation.every=10", *overrides])
        start = make_start(folder, 1, overrides)
        gtr("train", PRESET, "--start", str(start), "--seed", "1", "--out", str(out), "--overwrite", *sets)


def collect(folder: Path, data: Path) -> None:
    """Copy the small raw files of every complete run, and of the start."""
    for out in sorted(path for path in folder.iterdir() if is_complete(path) or path.name == "start"):
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


def table(data: Path) -> str:
    """Write the comparison as a Markdown table from the raw summaries."""
    rows = [
        "| run | before | after (95 %) | greedy | solvable | teacher (95 %) | cards read | return | steps | train s |"
    ]
    rows.append("|" + " --- |" * 10)
    methods = [s for method in METHODS for s in summaries(data, f"{method}-s*")]
    for s in methods + summaries(data, "long-*"):
        (low, high), (tlow, thigh) = s["success_rate_after_interval"], s["success_rate_teacher_interval"]
        cells = [
            s["run"],
            f"{s['success_rate_before']:.3f}",
            f"**{s['success_rate_after']:.3f}** ({low:.3f}-{high:.3f})",
            f"{s['success_rate_after_greedy']:.3f}",
            f"{s['success_rate_after_solvable']:.3f}",
            f"{s['success_rate_teacher']:.3f} ({tlow:.3f}-{thigh:.3f})",
            f"{s['cards_accuracy_after']:.4f}",
            f"{s['return_after']:.2f}",
            str(s["env_steps"]),
            f"{s['train_seconds']:.0f}",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def comparison(data: Path) -> str:
    """Compare the methods: mean and standard deviation over runs, and Welch's 95 % interval of the difference."""
    from scipy.stats import ttest_ind

    plain, guided = (summaries(data, f"{method}-s*") for method in METHODS)
    rows = ["| | plain PPO | GTR-Turbo (KL) | difference (95 %), p |", "| --- | --- | --- | --- |"]
    measures = {
        "student": "success_rate_after",
        "student, greedy": "success_rate_after_greedy",
        "merged teacher": "success_rate_teacher",
        "cards read": "cards_accuracy_after",
    }
    for name, key in measures.items():
        groups = [[float(s[key]) for s in runs] for runs in (plain, guided)]
        digits = 4 if key.startswith("cards") else 3
        cells = [f"{mean(g):.{digits}f} ± {stdev(g):.{digits}f}" for g in groups]
        gain = mean(groups[1]) - mean(groups[0])
        told = f"{gain:+.{digits}f}"
        if all(map(stdev, groups)):  # runs that agree to the last digit say nothing about a deviation
            test = ttest_ind(groups[1], groups[0], equal_var=False)
            low, high = test.confidence_interval()
            told += f" ({low:+.{digits}f} to {high:+.{digits}f}), p = {test.pvalue:.2f}"
        rows.append(f"| {name} | {' | '.join(cells)} | {told} |")
    return "\n".join(rows)


def curve(out: Path) -> list[dict[str, Any]]:
    """The evaluations of a run, in order."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "eval/student/success_rate" in line]


def figure(data: Path, path: Path) -> None:
    """Draw evaluation curves of every run: student solid, teacher dashed."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    for method, colour in COLOURS.items():
        for number, out in enumerate(sorted(data.glob(f"{method}-s*"))):
            points = curve(out)
            steps = [line["env_steps"] for line in points]
            label = method if number == 0 else None
            axes[0].plot(steps, [line["eval/student/success_rate"] for line in points], color=colour, label=label)
            axes[0].plot(steps, [line["eval/teacher/success_rate"] for line in points], "--", color=colour, alpha=0.6)
            axes[1].plot(steps, [line["eval/student/cards_accuracy"] for line in points], color=colour, label=label)
    axes[0].set(xlabel="environment steps", ylabel="success rate (all hands)", title="student —, merged teacher - -")
    axes[1].set(xlabel="environment steps", ylabel="cards read correctly", title="card reading of the student")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=130)


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
    parser.add_argument("command", choices=("run", "long", "table"))
    parser.add_argument("--folder", type=Path, default=Path("runs/study"))
    parser.add_argument("--data", type=Path, default=Path("docs/results_data"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"), help="where the figures go")
    parser.add_argument("--updates", type=int, default=200, help="length of the long run")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--set", action="append", default=[], help="overrides for every run, e.g. updates=10")
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments.folder, arguments.jobs, arguments.set)
    elif arguments.command == "long":
        long(arguments.folder, arguments.updates, arguments.set)
    else:
        collect(arguments.folder, arguments.data)
        sys.stdout.write(f"{table(arguments.data)}\n\n{comparison(arguments.data)}\n")
        figure(arguments.data, arguments.images / "study.png")
        long_figure(arguments.data, arguments.images / "long_run.png")


if __name__ == "__main__":
    main()
