"""The study behind docs/results.md: plain PPO against GTR-Turbo (KL) on Points24, same start, same steps, three seeds.

    python benchmarks/study.py run  --folder runs/study     # hours on two cores; skips runs that are complete
    python benchmarks/study.py table --folder runs/study --data docs/results_data

``run`` makes one supervised start, then trains each method with each seed from it, two runs at a time with one thread
each. ``table`` copies summaries and metrics (small) to the data folder and writes the table and the figure from there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PRESET = "study-points24"
METHODS = {"ppo": "none", "gtr-turbo-kl": "reverse_kl"}
SEEDS = (1, 2, 3)  # seed 0 was used for tuning


def gtr(*arguments: str) -> None:
    """Run the gtr command of this Python; its plain progress goes to standard output."""
    subprocess.run([sys.executable, "-m", "gtr_agents.cli", *arguments], check=True)  # noqa: S603 - our own command


def run(folder: Path, jobs: int, overrides: list[str]) -> None:
    """Make the start, then every run that has no complete summary yet."""
    start = folder / "start"
    sets = [item for override in overrides for item in ("--set", override)]
    if not (start / "checkpoints" / "start").is_dir():
        gtr("sft", PRESET, "--out", str(start), "--set", f"threads={jobs}", *sets)

    def one(method: str, seed: int) -> None:
        out = folder / f"{method}-s{seed}"
        summary = out / "summary.json"
        if summary.is_file() and "success_rate_after" in json.loads(summary.read_text()):
            return
        gtr(
            "train", PRESET, "--start", str(start), "--seed", str(seed), "--out", str(out), "--overwrite",
            "--set", f"guidance.name={METHODS[method]}", "--set", "threads=1", *sets,
        )  # fmt: skip

    # Seed by seed, both methods side by side: an interrupted study is still balanced.
    with ThreadPoolExecutor(jobs) as pool:
        for future in [pool.submit(one, method, seed) for seed in SEEDS for method in METHODS]:
            future.result()


def collect(folder: Path, data: Path) -> None:
    """Copy the small raw files of every complete run."""
    for out in sorted(path for path in folder.iterdir() if (path / "summary.json").is_file()):
        target = data / out.name
        target.mkdir(parents=True, exist_ok=True)
        for name in ("summary.json", "metrics.jsonl", "config.json"):
            shutil.copy(out / name, target / name)


def table(data: Path) -> str:
    """Write the comparison as a Markdown table from the raw summaries."""
    rows = [
        "| run | before | after (95 %) | greedy | solvable | teacher (95 %) | cards read | return | steps | train s |"
    ]
    rows.append("|" + " --- |" * 10)
    for file in sorted(data.glob("*-s[0-9]*/summary.json")):
        out = file.parent
        s = json.loads(file.read_text())
        if "success_rate_after" not in s:
            continue
        (low, high), (tlow, thigh) = s["success_rate_after_interval"], s["success_rate_teacher_interval"]
        cells = [
            out.name,
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


def figure(data: Path, path: Path) -> None:
    """Draw evaluation curves of every run: student solid, teacher dashed."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    colours = {"ppo": "#777777", "gtr-turbo-kl": "#1f77b4"}
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    for method, colour in colours.items():
        for number, out in enumerate(sorted(data.glob(f"{method}-s*"))):
            lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
            points = [line for line in lines if "eval/student/success_rate" in line]
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


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("--folder", type=Path, default=Path("runs/study"))
    parser.add_argument("--data", type=Path, default=Path("docs/results_data"))
    parser.add_argument("--figure", type=Path, default=Path("docs/images/study.png"))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--set", action="append", default=[], help="overrides for every run, e.g. updates=10")
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments.folder, arguments.jobs, arguments.set)
    else:
        collect(arguments.folder, arguments.data)
        sys.stdout.write(table(arguments.data) + "\n")
        figure(arguments.data, arguments.figure)


if __name__ == "__main__":
    main()
